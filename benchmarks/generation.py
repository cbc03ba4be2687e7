"""Compare the sampler with PyTorch's diffusers: same device, weights, texts, latents, steps and precision.

  python benchmarks/generation.py --json=generation.json     # 15 minutes on 2 cores or on one GPU
  python benchmarks/generation.py --small                    # smoke test: one or two minutes

`--model` selects a model of each family:

  reduced       Stable Diffusion 2 with reduced width and full 64 x 64 latents, so that attention sees as many
                tokens as at full size; the default on CPU
  sd21          U-Net and autoencoder of SD 2.1-base; the default on a GPU
  sdxl-reduced  SDXL with reduced width and 64 x 64 latents
  sdxl          SDXL base, 128 x 128 latents

Weights are random. Precision is float32 on CPU and bfloat16 on a GPU (SDXL's autoencoder in float32). On a GPU,
PyTorch is compiled and uses scaled-dot-product attention and channels-last tensors. Warm rounds alternate between
the two sides, each with new random inputs. Reported are medians, and the ratio of PyTorch's seconds to ours:
above 1, ours is faster.

  loop    DPM-Solver++ steps with guidance; with `--few-step`, four Euler steps without guidance, as for SD-Turbo.
  images  the whole sampler: the loop, decoding, conversion to uint8. Latents and texts start on the device.

`--sides ours` or `--sides torch` runs only one side, to fill its compilation cache. `--profile` lists the
slowest kernels of our denoising loop.
"""

import argparse
import collections
import dataclasses
import gzip
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import torch
from safetensors.torch import save_file

from genbench_jax.diffusion.cost import flops_of_image
from genbench_jax.diffusion.program import (
  COMPILER_OPTIONS,
  Guidance,
  denoise,
  params_on,
  sampling_program,
)
from genbench_jax.diffusion.schedulers import sampler_steps
from genbench_jax.models import checkpoints, weights
from genbench_jax.models.configuration import Settings
from genbench_jax.models.diffusion_model import StableDiffusion, Texts
from genbench_jax.models.stable_diffusion import aligned, describe
from genbench_jax.runtime.mesh import data_mesh
from genbench_jax.zoo import tiny

PUBLISHED = Path(__file__).parent.parent / "tests" / "data" / "state_dict_keys.json.gz"
TOKENS, GUIDANCE = 77, 7.5
REDUCED_UNET = tiny.UNET | {
  "sample_size": 64,
  "in_channels": 4,
  "out_channels": 4,
  "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
  "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
  "block_out_channels": [128, 256, 512, 512],
  "attention_head_dim": [2, 4, 8, 8],
  "cross_attention_dim": 512,
}
REDUCED_VAE = tiny.VAE | {
  "down_block_types": ["DownEncoderBlock2D"] * 4,
  "up_block_types": ["UpDecoderBlock2D"] * 4,
  "block_out_channels": [32, 64, 64, 64],
  "latent_channels": 4,
  "norm_num_groups": 32,
  "sample_size": 512,
  "scaling_factor": 0.18215,
}


REDUCED_XL = REDUCED_UNET | {
  "block_out_channels": [128, 256, 512],
  "attention_head_dim": [2, 4, 8],
  "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2,
  "up_block_types": ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
  "transformer_layers_per_block": [1, 2, 4],
  "addition_embed_type": "text_time",
  "addition_time_embed_dim": 64,
  "projection_class_embeddings_input_dim": 256 + 6 * 64,
}
NARROW = {"block_out_channels": [64] * 4, "attention_head_dim": [1] * 4, "sample_size": 16}


class Inputs(NamedTuple):
  """Inputs of a round: hidden states of negative prompt and prompt, or of the prompt alone, and unit-normal latents."""

  text: np.ndarray  # [b, g, l, d]
  pooled: np.ndarray | None  # [b, g, p]
  latents: np.ndarray  # [b, h, w, c]


class Timing(NamedTuple):
  """Median times, and the time of the first call, which compiles."""

  seconds: float
  cpu_seconds: float
  first_seconds: float


class Side(NamedTuple):
  """Functions of one side, from prepared inputs to results; they return when the result is ready."""

  prepare: Callable[[Inputs], Any]
  loop: Callable[[Any], Any]
  images: Callable[[Any], Any]
  fetch: Callable[[Any], np.ndarray]


def main() -> None:
  arguments = parsed()
  diffusers.utils.logging.set_verbosity_error()
  platform = jax.default_backend()
  torch_device = "cuda" if platform == "gpu" else "cpu"
  dtypes = (jnp.float32, torch.float32) if platform == "cpu" else (jnp.bfloat16, torch.bfloat16)
  name = arguments.model or ("reduced" if platform == "cpu" else "sd21")
  configs = configurations("small" if arguments.small else name)
  if arguments.few_step:
    arguments.steps, arguments.guidance = 4, 1.0
  with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
    peer_unet, peer_vae = torch_modules(configs["unet"], configs["vae"])
    for name, module in (("unet", peer_unet), ("vae", peer_vae)):
      write_part(Path(folder) / name, module)
    model = our_model(configs, Path(folder), dtypes[0])
    results: dict[str, Any] = {
      "device": str(jax.devices()[0].device_kind),
      "cores": os.cpu_count(),
      "load_before": os.getloadavg()[0],
      "settings": vars(arguments),
      "peak_tflops": matmul_peak(dtypes[0], arguments.small) / 1e12,
    }
    sides = {}
    if "ours" in arguments.sides:
      sides["ours"] = our_side(model, arguments)
    if "torch" in arguments.sides:
      vae_dtype = torch.float32 if model.vae_dtype == jnp.float32 else dtypes[1]
      peers = [
        part.to(torch_device, dtype, memory_format=torch.channels_last)
        for part, dtype in ((peer_unet, dtypes[1]), (peer_vae, vae_dtype))
      ]
      sides["torch"] = torch_side(*peers, arguments)
    for batch in arguments.batches or ((1, 2) if platform == "cpu" else (1, 8, 32)):
      results[f"batch {batch}"] = compared(sides, model, batch, arguments, results["peak_tflops"])
      print(json.dumps({batch: results[f"batch {batch}"]}, indent=2), flush=True)
  if arguments.json:
    Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n")


def parsed() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--model", choices=("reduced", "sd21", "sdxl-reduced", "sdxl"))
  parser.add_argument("--few-step", action="store_true", help="four steps without guidance")
  parser.set_defaults(guidance=GUIDANCE)
  parser.add_argument("--batches", type=lambda text: [int(part) for part in text.split(",")])
  parser.add_argument("--steps", type=int, default=10)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--sides", type=lambda text: text.split(","), default=["ours", "torch"])
  parser.add_argument(
    "--torch-compile", default="max-autotune", help="mode of torch.compile on a GPU"
  )
  parser.add_argument(
    "--profile", action="store_true", help="list kernels of our loop by their time"
  )
  parser.add_argument("--small", action="store_true", help="16 x 16 latents, narrow")
  parser.add_argument("--loop-only", action="store_true", help="without the whole sampler")
  parser.add_argument("--json", help="file for the results")
  return parser.parse_args()


def configurations(name: str) -> dict[str, dict[str, Any]]:
  """Return configurations of U-Net, autoencoder and text encoders; the latter are used only for their widths."""
  published = {"sd21": "stable-diffusion-2.1-base", "sdxl": "sdxl-base-1.0"}
  if name in published:
    record = json.loads(gzip.decompress(PUBLISHED.read_bytes()))
    parts = [key for key in record if key.startswith(f"{published[name]}/")]
    return {key.split("/")[1]: record[key]["config"] for key in parts}
  text = tiny.text_config() | {"max_position_embeddings": TOKENS, "num_attention_heads": 4}
  if name == "sdxl-reduced":
    tower = text | {"hidden_size": 256, "projection_dim": 256}
    vae = REDUCED_VAE | {"force_upcast": True}
    return {"unet": REDUCED_XL, "vae": vae, "text_encoder": tower, "text_encoder_2": tower}
  tower = text | {"hidden_size": 512}
  if name == "small":
    vae = REDUCED_VAE | {"sample_size": 128}
    return {"unet": REDUCED_UNET | NARROW, "vae": vae, "text_encoder": tower}
  return {"unet": REDUCED_UNET, "vae": REDUCED_VAE, "text_encoder": tower}


def torch_modules(unet: dict[str, Any], vae: dict[str, Any]) -> tuple[Any, Any]:
  """Return PyTorch's modules with fixed random weights that keep activations near one."""
  with torch.device("meta"):
    modules = (
      diffusers.UNet2DConditionModel.from_config(unet),
      diffusers.AutoencoderKL.from_config(vae),
    )
  for module in modules:
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    arrays = tiny.random_weights(shapes)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    module.load_state_dict(tensors, assign=True)
    module.eval()
  return modules


def write_part(folder: Path, module: Any) -> None:
  folder.mkdir()
  (folder / "config.json").write_text(module.to_json_string())
  save_file(module.state_dict(), folder / "diffusion_pytorch_model.safetensors")


def our_model(configs: dict[str, Any], folder: Path, dtype: Any) -> StableDiffusion:
  """Return the same model in this package, without text encoders: texts are given as hidden states."""
  settings = {part: Settings(config, folder / part) for part, config in configs.items()}
  model = describe(settings, dtype)
  dtypes = {"unet": dtype, "vae": model.vae_dtype}
  params = {
    part: weights.load(
      checkpoints.read_weights(folder / part), model.params[part], folder, of, place=aligned
    )
    for part, of in dtypes.items()
  }
  return dataclasses.replace(model, params=params)


def our_side(model: StableDiffusion, arguments: argparse.Namespace) -> Side:
  mesh = data_mesh(jax.devices()[:1])
  platform = mesh.devices.flat[0].platform
  params = params_on(model, mesh)
  schedule = model.schedule.with_settings(tiny.SCHEDULER | scheduler_settings(arguments))
  name = "euler" if arguments.few_step else "dpmsolver++"
  table, scale = sampler_steps(schedule, name, arguments.steps)
  guidance = Guidance(np.float32(arguments.guidance), np.float32(0))
  table, scale, guidance = jax.device_put((table, np.float32(scale), guidance))
  program = sampling_program(model, mesh)

  def denoised(params: Any, texts: Texts, latents: jax.Array, *settings: Any) -> jax.Array:
    table, scale, guidance = settings
    return denoise(model, params, texts, scale * latents, table, guidance, None, platform)

  loop = jax.jit(denoised, compiler_options=COMPILER_OPTIONS.get(platform))

  def prepare(inputs: Inputs) -> tuple[Texts, jax.Array]:
    parts = (inputs.text, inputs.pooled)
    texts = Texts(*(None if part is None else part.astype(model.dtype) for part in parts))
    return jax.device_put((texts, inputs.latents))

  def images(inputs: tuple[Texts, jax.Array]) -> jax.Array:
    return program(params, *inputs, None, table, scale, guidance).images.block_until_ready()

  return Side(
    prepare=prepare,
    loop=lambda inputs: loop(params["unet"], *inputs, table, scale, guidance).block_until_ready(),
    images=images,
    fetch=np.asarray,
  )


def scheduler_settings(arguments: argparse.Namespace) -> dict[str, Any]:
  """Return scheduler settings of both sides; distilled models start at the last training step."""
  return {"timestep_spacing": "trailing" if arguments.few_step else "linspace"}


def torch_side(unet: Any, vae: Any, arguments: argparse.Namespace) -> Side:
  """Return PyTorch's functions, as diffusers' pipelines run them."""
  kinds = (diffusers.DPMSolverMultistepScheduler, diffusers.EulerDiscreteScheduler)
  kind = kinds[arguments.few_step]
  scheduler = kind.from_config(tiny.SCHEDULER | scheduler_settings(arguments))
  device, dtype, guided = unet.device.type, unet.dtype, arguments.guidance > 1
  if device == "cuda":
    mode = arguments.torch_compile
    unet = torch.compile(unet, mode=mode, dynamic=False)
    vae.decode = torch.compile(vae.decode, mode=mode, dynamic=False)

  def rows(array: np.ndarray) -> torch.Tensor:
    groups = torch.from_numpy(array).to(device, dtype)
    return torch.cat(list(groups.unbind(1)))

  def prepare(inputs: Inputs) -> tuple[torch.Tensor, Any, torch.Tensor]:
    latents = torch.from_numpy(inputs.latents.transpose(0, 3, 1, 2).copy()).to(device)
    added = None
    if inputs.pooled is not None:
      side = 8.0 * inputs.latents.shape[1]
      pooled = rows(inputs.pooled)
      sizes = torch.tensor([[side, side, 0, 0, side, side]] * len(pooled)).to(device, dtype)
      added = {"text_embeds": pooled, "time_ids": sizes}
    return rows(inputs.text), added, latents

  def predicted(text: Any, added: Any, latents: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    latents = scheduler.scale_model_input(latents, time)
    doubled = torch.cat([latents] * (2 if guided else 1))
    doubled = doubled.to(dtype, memory_format=torch.channels_last)
    output = unet(doubled, time, encoder_hidden_states=text, added_cond_kwargs=added).sample.float()
    if not guided:
      return output
    negative, positive = output.chunk(2)
    return negative + arguments.guidance * (positive - negative)

  def denoised(text: torch.Tensor, added: Any, latents: torch.Tensor) -> torch.Tensor:
    scheduler.set_timesteps(arguments.steps, device=device)
    latents = latents * scheduler.init_noise_sigma
    for time_ in scheduler.timesteps:
      output = predicted(text, added, latents, time_)
      latents = scheduler.step(output, time_, latents).prev_sample
    return latents

  def images(inputs: tuple[torch.Tensor, Any, torch.Tensor]) -> torch.Tensor:
    latents = denoised(*inputs) / vae.config.scaling_factor
    decoded = vae.decode(latents.to(vae.dtype)).sample.float()
    return waited(((decoded / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8))

  def waited(result: torch.Tensor) -> torch.Tensor:
    if device == "cuda":
      torch.cuda.synchronize()
    return result

  return Side(
    prepare,
    lambda inputs: waited(denoised(*inputs)),
    images,
    lambda made: made.permute(0, 2, 3, 1).cpu().numpy(),
  )


def compared(
  sides: dict[str, Side],
  model: StableDiffusion,
  batch: int,
  arguments: argparse.Namespace,
  peak_tflops: float,
) -> dict[str, Any]:
  """Return alternating medians of both sides, and the difference of their images."""
  draw = np.random.default_rng(batch)
  config, guided = model.unet.config, arguments.guidance > 1
  shape = (config.sample_size, config.sample_size, model.latent_channels)

  def inputs() -> Inputs:
    rows = (batch, 1 + guided)
    text = draw.standard_normal((*rows, TOKENS, config.cross_attention_dim), np.float32)
    pooled = draw.standard_normal((*rows, config.pooled_width), np.float32)
    latents = draw.standard_normal((batch, *shape), np.float32)
    return Inputs(text, pooled if config.takes_sizes else None, latents)

  found: dict[str, Any] = {}
  for what in ("loop",) if arguments.loop_only else ("loop", "images"):
    timings = alternately(sides, what, inputs, arguments.rounds)
    found[what] = {name: timing._asdict() for name, timing in timings.items()}
    if len(sides) == 2:
      ours, peer = timings["ours"], timings["torch"]
      found[what]["ratio"] = peer.seconds / ours.seconds
      found[what]["ratio_cpu"] = peer.cpu_seconds / ours.cpu_seconds
  once, twice = (flops_of_image(model, count, guided, shape) for count in (1, 2))
  step_flops = twice - once
  for name in sides:
    step_seconds = found["loop"][name]["seconds"] / arguments.steps
    reached = batch * step_flops / step_seconds / 1e12
    found["loop"][name] |= {
      "step_seconds": step_seconds,
      "share_of_matmul_peak": reached / peak_tflops,
    }
  if "images" in found:
    for name in sides:
      found["images"][name]["images_per_second"] = batch / found["images"][name]["seconds"]
    same = inputs()
    made = [side.fetch(side.images(side.prepare(same))).astype(int) for side in sides.values()]
    found["images"]["largest_difference_of_255"] = int(np.abs(made[0] - made[-1]).max())
    found["images"]["mean_difference_of_255"] = float(np.abs(made[0] - made[-1]).mean())
  if arguments.profile and "ours" in sides:
    prepared = sides["ours"].prepare(inputs())
    found["kernels"] = longest_kernels(lambda: sides["ours"].loop(prepared))
  return found


def alternately(
  sides: dict[str, Side], what: str, inputs: Callable[[], Inputs], rounds: int
) -> dict[str, Timing]:
  """Return the timings of each side; the first round warms up and is excluded from the medians."""
  wall: dict[str, list[float]] = {name: [] for name in sides}
  cpu: dict[str, list[float]] = {name: [] for name in sides}
  for _ in range(rounds + 1):
    for name, side in sides.items():
      prepared = side.prepare(inputs())
      began, began_cpu = time.perf_counter(), time.process_time()
      getattr(side, what)(prepared)
      wall[name].append(time.perf_counter() - began)
      cpu[name].append(time.process_time() - began_cpu)
  return {
    name: Timing(
      seconds=statistics.median(wall[name][1:]),
      cpu_seconds=statistics.median(cpu[name][1:]),
      first_seconds=wall[name][0],
    )
    for name in sides
  }


def longest_kernels(run: Callable[[], Any], count: int = 40) -> dict[str, float]:
  """Return a GPU's milliseconds per kernel, by name, longest first."""
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      run()
    (trace,) = Path(folder).rglob("*.xplane.pb")
    profile = jax.profiler.ProfileData.from_file(str(trace))
    spent: collections.Counter[str] = collections.Counter()
    for plane in profile.planes:
      if plane.name.startswith("/device:"):
        for line in plane.lines:
          if line.name.startswith("Stream"):
            for event in line.events:
              spent[event.name] += event.duration_ns / 1e6
  return {"all": sum(spent.values()), **dict(spent.most_common(count))}


def matmul_peak(dtype: Any, small: bool) -> float:
  """Return the FLOP/s of the fastest of several large matrix products: the device's practical peak."""
  side = 1024 if small or jax.default_backend() == "cpu" else 8192
  matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)  # zeros would be faster
  multiply = jax.jit(jnp.matmul)
  multiply(matrix, matrix).block_until_ready()
  seconds = []
  for _ in range(10):
    began = time.perf_counter()
    multiply(matrix, matrix).block_until_ready()
    seconds.append(time.perf_counter() - began)
  return 2 * side**3 / min(seconds)


if __name__ == "__main__":
  main()
