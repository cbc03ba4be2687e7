"""The sampler beside PyTorch's diffusers: same device, weights, texts, latents, steps and precision, in one run.

  python benchmarks/generation.py --json=generation.json     # CPU: a quarter of an hour on 2 cores; the same on one GPU
  python benchmarks/generation.py --small                    # a smoke run: a minute or two

On CPU both run in float32 a Stable Diffusion 2 of reduced width and full 64 x 64 latents, so that attention sees as many tokens
as at full size. On a GPU it is the UNet and autoencoder of SD 2.1-base with random weights in bfloat16, PyTorch compiled, with
scaled-dot-product attention and channels last. Rounds alternate between the two sides, warm, each with new random inputs; medians
count. Ratios are PyTorch's seconds / ours: above 1 ours is faster.

  loop    DPM-Solver++ steps with guidance; also divided by their number.
  images  the whole sampler: the loop, decoding, uint8. Latents and texts are on the device at the start.

`--sides ours` or `--sides torch` runs one of the two alone, to fill its compilation cache; `--profile` names the kernels of our
denoising loop that take longest.
"""

import argparse
import collections
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
from genbench_jax.diffusion.program import COMPILER_OPTIONS, denoise, params_on, sampling_program
from genbench_jax.diffusion.schedulers import sampler_steps
from genbench_jax.models import checkpoints
from genbench_jax.models.noise_schedule import NoiseSchedule
from genbench_jax.models.stable_diffusion import FIXED_UNET, FIXED_VAE, StableDiffusion, _module
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


class Inputs(NamedTuple):
  """Of one round: hidden states of negative prompt and prompt, and unit-normal latents."""

  text: np.ndarray  # [b, 2, l, d]
  latents: np.ndarray  # [b, h, w, c]


class Timing(NamedTuple):
  """Medians, and the first call, which compiles."""

  seconds: float
  cpu_seconds: float
  first_seconds: float


class Side(NamedTuple):
  """One of the two, its functions from prepared inputs to results that have been waited for."""

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
  unet, vae = configurations(platform, arguments.small)
  with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
    peer_unet, peer_vae = torch_modules(unet, vae)
    for name, module in (("unet", peer_unet), ("vae", peer_vae)):
      write_part(Path(folder) / name, module)
    model = flax_model(Path(folder), dtypes[0])
    results: dict[str, Any] = {
      "device": str(jax.devices()[0].device_kind),
      "cores": os.cpu_count(),
      "load_before": os.getloadavg()[0],
      "settings": vars(arguments),
      "peak_tflops": matmul_peak(dtypes[0], arguments.small) / 1e12,
    }
    sides = {}
    if "ours" in arguments.sides:
      sides["ours"] = our_side(model, arguments.steps)
    if "torch" in arguments.sides:
      peers = [
        part.to(torch_device, dtypes[1], memory_format=torch.channels_last)
        for part in (peer_unet, peer_vae)
      ]
      sides["torch"] = torch_side(*peers, arguments.steps, dtypes[1], arguments.torch_compile)
    for batch in arguments.batches or ((1, 2) if platform == "cpu" else (1, 8, 32)):
      results[f"batch {batch}"] = compared(sides, model, batch, arguments, results["peak_tflops"])
      print(json.dumps({batch: results[f"batch {batch}"]}, indent=2), flush=True)
  if arguments.json:
    Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n")


def parsed() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--batches", type=lambda text: [int(part) for part in text.split(",")])
  parser.add_argument("--steps", type=int, default=10)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--sides", type=lambda text: text.split(","), default=["ours", "torch"])
  parser.add_argument(
    "--torch-compile", default="max-autotune", help="mode of torch.compile, on a GPU"
  )
  parser.add_argument("--profile", action="store_true", help="of our loop: kernels by their time")
  parser.add_argument("--small", action="store_true", help="16 x 16 latents, narrow")
  parser.add_argument("--loop-only", action="store_true", help="without the whole sampler")
  parser.add_argument("--json", help="file for the results")
  return parser.parse_args()


def configurations(platform: str, small: bool) -> tuple[dict[str, Any], dict[str, Any]]:
  """Of UNet and autoencoder."""
  if platform != "cpu" and not small:
    published = json.loads(gzip.decompress(PUBLISHED.read_bytes()))
    unet, vae = (
      published[f"stable-diffusion-2.1-base/{part}"]["config"] for part in ("unet", "vae")
    )
    return unet, vae
  if not small:
    return REDUCED_UNET, REDUCED_VAE
  narrow = {"block_out_channels": [64] * 4, "attention_head_dim": [1] * 4, "sample_size": 16}
  return REDUCED_UNET | narrow, REDUCED_VAE | {"sample_size": 128}


def torch_modules(unet: dict[str, Any], vae: dict[str, Any]) -> tuple[Any, Any]:
  """PyTorch's modules with fixed random weights that keep activations near one."""
  with torch.device("meta"):
    modules = (
      diffusers.UNet2DConditionModel.from_config(unet),
      diffusers.AutoencoderKL.from_config(vae),
    )
  for module in modules:
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    weights = tiny.random_weights(shapes)
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    module.load_state_dict(tensors, assign=True)
    module.eval()
  return modules


def write_part(folder: Path, module: Any) -> None:
  folder.mkdir()
  (folder / "config.json").write_text(module.to_json_string())
  save_file(module.state_dict(), folder / "diffusion_pytorch_model.safetensors")


def flax_model(folder: Path, dtype: Any) -> StableDiffusion:
  """The same model in this package, without texts: they are given as hidden states."""
  from diffusers import FlaxAutoencoderKL, FlaxUNet2DConditionModel

  unet = _module(FlaxUNet2DConditionModel, folder / "unet" / "config.json", FIXED_UNET, dtype)
  vae = _module(FlaxAutoencoderKL, folder / "vae" / "config.json", FIXED_VAE, dtype)
  side, channels, width = unet.sample_size, unet.in_channels, unet.cross_attention_dim

  def shape(*sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, np.float32)

  unet_shapes = checkpoints.shapes_of(
    unet.init, shape(1, channels, side, side), shape(1), shape(1, TOKENS, width)
  )
  vae_shapes = checkpoints.shapes_of(vae.init, shape(1, 3, 32, 32))
  return StableDiffusion(
    unet=unet,
    vae=vae,
    text_encoder=None,
    params={
      "unet": checkpoints.load_params(folder / "unet", unet_shapes, dtype),
      "vae": checkpoints.load_params(folder / "vae", vae_shapes, dtype),
    },
    tokenizer=None,
    max_tokens=TOKENS,
    schedule=NoiseSchedule.from_config(tiny.SCHEDULER),
    latent_channels=channels,
    downsampling_factor=2 ** (len(vae.block_out_channels) - 1),
    scaling_factor=vae.scaling_factor,
    image_size=side * 8,
    fingerprint="benchmark",
  )


def our_side(model: StableDiffusion, steps: int) -> Side:
  mesh = data_mesh(jax.devices()[:1])
  platform = mesh.devices.flat[0].platform
  params = params_on(model, mesh)
  table, scale = sampler_steps(model.schedule, "dpmsolver++", steps)
  settings = jax.device_put((table, np.float32(scale), np.float32(GUIDANCE)))
  program = sampling_program(model, mesh)

  def loop(params: Any, text: jax.Array, latents: jax.Array, *settings: Any) -> jax.Array:
    table, scale, guidance = settings
    return denoise(model, params, text, scale * latents, table, guidance, platform)

  loop = jax.jit(loop, compiler_options=COMPILER_OPTIONS.get(platform))

  return Side(
    prepare=lambda inputs: (
      jax.device_put(inputs.text.astype(model.dtype)),
      jax.device_put(inputs.latents),
    ),
    loop=lambda inputs: loop(params["unet"], *inputs, *settings).block_until_ready(),
    images=lambda inputs: program(params, *inputs, *settings).images.block_until_ready(),
    fetch=np.asarray,
  )


def torch_side(unet: Any, vae: Any, steps: int, dtype: Any, mode: str) -> Side:
  config = tiny.SCHEDULER | {"timestep_spacing": "linspace"}
  scheduler = diffusers.DPMSolverMultistepScheduler.from_config(config)
  device = unet.device.type
  if device == "cuda":
    unet = torch.compile(unet, mode=mode, dynamic=False)
    vae.decode = torch.compile(vae.decode, mode=mode, dynamic=False)

  def prepare(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    text = torch.from_numpy(inputs.text).to(device, dtype)
    latents = torch.from_numpy(inputs.latents.transpose(0, 3, 1, 2).copy()).to(device)
    return torch.cat([text[:, 0], text[:, 1]]), latents

  def guided(text: torch.Tensor, latents: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    rows = torch.cat([latents, latents]).to(dtype, memory_format=torch.channels_last)
    negative, positive = unet(rows, time, encoder_hidden_states=text).sample.float().chunk(2)
    return negative + GUIDANCE * (positive - negative)

  def loop(inputs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return waited(denoised(*inputs))

  def denoised(text: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    scheduler.set_timesteps(steps, device=device)
    latents = latents * scheduler.init_noise_sigma
    for time_ in scheduler.timesteps:
      latents = scheduler.step(guided(text, latents, time_), time_, latents).prev_sample
    return latents

  def images(inputs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    latents = denoised(*inputs)
    decoded = vae.decode((latents / vae.config.scaling_factor).to(dtype)).sample.float()
    return waited(((decoded / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8))

  def waited(result: torch.Tensor) -> torch.Tensor:
    if device == "cuda":
      torch.cuda.synchronize()
    return result

  return Side(prepare, loop, images, lambda made: made.permute(0, 2, 3, 1).cpu().numpy())


def compared(
  sides: dict[str, Side],
  model: StableDiffusion,
  batch: int,
  arguments: argparse.Namespace,
  peak_tflops: float,
) -> dict[str, Any]:
  """Medians of both sides, taken in turn, and whether they made the same images."""
  draw = np.random.default_rng(batch)
  shape = (model.unet.sample_size, model.unet.sample_size, model.latent_channels)

  def inputs() -> Inputs:
    text = draw.standard_normal((batch, 2, TOKENS, model.unet.cross_attention_dim), np.float32)
    return Inputs(text, draw.standard_normal((batch, *shape), np.float32))

  found: dict[str, Any] = {}
  for what in ("loop",) if arguments.loop_only else ("loop", "images"):
    timings = alternately(sides, what, inputs, arguments.rounds)
    found[what] = {name: timing._asdict() for name, timing in timings.items()}
    if len(sides) == 2:
      ours, peer = timings["ours"], timings["torch"]
      found[what]["ratio"] = peer.seconds / ours.seconds
      found[what]["ratio_cpu"] = peer.cpu_seconds / ours.cpu_seconds
  step_flops = flops_of_image(model, 2, True, shape) - flops_of_image(model, 1, True, shape)
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
  """Medians of each side; the first round warms up."""
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
  """Milliseconds that a GPU spends in its kernels, by name, the longest first."""
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
  """FLOP/s of the best of a few large matrix products: what can be had on this device."""
  side = 1024 if small or jax.default_backend() == "cpu" else 8192
  matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)  # zeros would run faster
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
