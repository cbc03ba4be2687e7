"""The sampler in the real TPU compiler, without a TPU: FLOPs, bytes, memory and collectives of Stable Diffusion 2.1-base.

  pip install "jax[tpu]"                                   # libtpu; no TPU is needed
  python benchmarks/tpu_compile.py --json=tpu.json         # 512 x 512, bf16, 8 images a chip; many minutes on 2 cores
  python benchmarks/tpu_compile.py --small                 # a smoke run with a tiny model

For each slice the whole sampler is compiled (memory, collectives, time), and for one chip a guided step and its peer: the
stock diffusers Flax UNet on the same inputs. Ratios are ours / stock, of bytes moved an image and step. The last
lines are the roofline: time a step by arithmetic and by bandwidth, and chip-hours for the whole benchmark.

One process at a time uses libtpu; a killed one leaves its lock file behind, and the error names it.
"""

import argparse
import gzip
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from genbench_jax.diffusion.program import lower_program
from genbench_jax.models import stable_diffusion as models, upstream
from genbench_jax.models.corrections import apply_unet
from genbench_jax.models.noise_schedule import NoiseSchedule
from genbench_jax.runtime.mesh import DATA_AXIS, data_mesh
from genbench_jax.zoo import tiny

PUBLISHED = Path(__file__).parent.parent / "tests" / "data" / "state_dict_keys.json.gz"
COLLECTIVES = r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
# A v5e chip: bf16 FLOP/s and bytes/s.
PEAK_FLOPS, PEAK_BYTES = 197e12, 819e9
BENCHMARK_IMAGES, BENCHMARK_STEPS = 2548 * 500 * 5, 50


def main() -> None:
  arguments = parsed()
  model = described_model("tiny" if arguments.small else "stable-diffusion-2.1-base")
  results: dict[str, Any] = {"steps": arguments.steps, "batch_per_chip": arguments.batch}
  for name in arguments.topologies:
    results[name] = sampler_on(model, name, arguments.batch, arguments.steps)
    print(name, results[name])
  if not arguments.no_step:
    results["step"] = step_costs(model, arguments.topologies[0], arguments.batch)
    report(results["step"])
  if arguments.json:
    Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n")


def parsed() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "--topologies", type=lambda text: text.split(","), default=["v5e:2x2", "v5e:4x4"]
  )
  parser.add_argument("--batch", type=int, default=8, help="images a chip")
  parser.add_argument("--steps", type=int, default=BENCHMARK_STEPS)
  parser.add_argument("--small", action="store_true", help="a tiny model")
  parser.add_argument("--no-step", action="store_true", help="only the whole sampler")
  parser.add_argument("--json", help="where to write the results")
  return parser.parse_args()


def described_model(name: str) -> models.StableDiffusion:
  """A model whose parameters are shapes, from its published configuration."""
  with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    for part, config in configurations(name).items():
      (folder / part).mkdir()
      (folder / part / "config.json").write_text(json.dumps(config))
    upstream.silence()
    unet, vae, text_encoder = models._modules(folder, jnp.bfloat16)
    shapes = models.parameter_shapes(folder)
  brief = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), shapes)
  factor = 2 ** (len(vae.block_out_channels) - 1)
  return models.StableDiffusion(
    unet=unet,
    vae=vae,
    text_encoder=text_encoder,
    params=brief,
    tokenizer=None,
    max_tokens=text_encoder.config.max_position_embeddings,
    schedule=NoiseSchedule.from_config(tiny.SCHEDULER),
    latent_channels=vae.latent_channels,
    downsampling_factor=factor,
    scaling_factor=vae.scaling_factor,
    image_size=unet.sample_size * factor,
    fingerprint=name,
  )


def configurations(name: str) -> dict[str, Any]:
  """Configuration of each part."""
  if name == "tiny":
    return {"unet": tiny.UNET, "vae": tiny.VAE, "text_encoder": tiny.text_config()}
  published = json.loads(gzip.decompress(PUBLISHED.read_bytes()))
  return {part: published[f"{name}/{part}"]["config"] for part in ("unet", "vae", "text_encoder")}


def described_mesh(topology: str, chips: int | None = None) -> Mesh:
  """A mesh of TPU chips that need not be there."""
  description = topologies.get_topology_desc(platform="tpu", topology_name=topology)
  return data_mesh(description.devices[:chips])


def latent_shape(model: models.StableDiffusion) -> tuple[int, int, int]:
  return model.unet.sample_size, model.unet.sample_size, model.latent_channels


def sampler_on(
  model: models.StableDiffusion, topology: str, batch: int, steps: int
) -> dict[str, Any]:
  """Memory, collectives and compile time of the whole sampler on a slice."""
  mesh = described_mesh(topology)
  lowered = lower_program(model, mesh, batch, steps, True, latent_shape(model))
  start = time.perf_counter()
  compiled = lowered.compile()
  seconds = time.perf_counter() - start
  memory = compiled.memory_analysis()
  return {
    "chips": mesh.size,
    "compile_seconds": round(seconds, 1),
    "argument_gb": memory.argument_size_in_bytes / 1e9,
    "temporary_gb": memory.temp_size_in_bytes / 1e9,
    "output_gb": memory.output_size_in_bytes / 1e9,
    "collectives": len(re.findall(COLLECTIVES, compiled.as_text())),
  }


def step_costs(
  model: models.StableDiffusion, topology: str, batch: int
) -> dict[str, dict[str, float]]:
  """FLOPs and bytes an image of one guided step on one chip, ours and the stock UNet's."""
  mesh = described_mesh(topology)
  everywhere, rows = PartitionSpec(), PartitionSpec(DATA_AXIS)

  def ours(params: Any, latents: jax.Array, text: jax.Array) -> jax.Array:
    return apply_unet(model.unet, params, latents, jnp.float32(1), text, "tpu")

  def stock(params: Any, latents: jax.Array, text: jax.Array) -> jax.Array:
    return model.unet.apply(
      {"params": params}, latents.transpose(0, 3, 1, 2), jnp.ones(1), text
    ).sample

  def struct(spec: PartitionSpec, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(mesh, spec))

  doubled = 2 * batch * mesh.size
  text = struct(rows, (doubled, model.max_tokens, model.unet.cross_attention_dim))
  params = jax.tree.map(lambda leaf: struct(everywhere, leaf.shape), model.params["unet"])
  arguments = (params, struct(rows, (doubled, *latent_shape(model))), text)
  costs = {}
  for name, function in (("ours", ours), ("stock", stock)):
    mapped = jax.shard_map(
      function, mesh=mesh, in_specs=(everywhere, rows, rows), out_specs=rows, check_vma=False
    )
    compiled = jax.jit(mapped).lower(*arguments).compile()
    cost = compiled.cost_analysis()
    costs[name] = {
      "tflop_per_image": cost["flops"] / batch / 1e12,
      "gb_per_image": cost["bytes accessed"] / batch / 1e9,
      "temporary_gb": compiled.memory_analysis().temp_size_in_bytes / 1e9,
    }
  return costs


def report(costs: dict[str, dict[str, float]]) -> None:
  """The roofline of a step."""
  for name, cost in costs.items():
    arithmetic = cost["tflop_per_image"] * 1e12 / PEAK_FLOPS
    bandwidth = cost["gb_per_image"] * 1e9 / PEAK_BYTES
    hours = max(arithmetic, bandwidth) * BENCHMARK_STEPS * BENCHMARK_IMAGES / 3600
    print(
      f"{name:6} {cost['tflop_per_image']:.2f} TFLOP and {cost['gb_per_image']:.2f} GB an image and step:"
      f" {1e3 * arithmetic:.1f} ms of arithmetic, {1e3 * bandwidth:.1f} ms of memory,"
      f" {cost['temporary_gb']:.2f} GB temporary; {hours:,.0f} v5e chip-hours for the benchmark"
    )
  ratio = costs["ours"]["gb_per_image"] / costs["stock"]["gb_per_image"]
  print(f"bytes moved, ours / stock: {ratio:.2f} (aim: at most 0.6)")


if __name__ == "__main__":
  main()
