"""Compile the sampler with the real TPU compiler, without a TPU: FLOPs, bytes, memory and collectives.

  pip install "jax[tpu]"                                   # libtpu; no TPU is needed
  python benchmarks/tpu_compile.py --json=tpu.json         # 512 x 512, bf16, 8 images per chip; many minutes on 2 cores
  python benchmarks/tpu_compile.py --model=sdxl-base-1.0 --batch=2 --no-step
  python benchmarks/tpu_compile.py --small                 # smoke test with a tiny model

For each slice, the whole sampler is compiled (memory, collectives, time). For a single chip, a guided step is compared
with diffusers' stock Flax U-Net on the same inputs, if diffusers below 0.40 is installed; ratios are ours / stock, of
bytes moved per image and step. The last lines give the roofline (time per step by arithmetic and by bandwidth), and
chip-hours for the whole benchmark.

libtpu allows one process at a time. A killed process leaves its lock file, which the error names.
"""

import argparse
import dataclasses
import gzip
import json
import os
import re
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from genbench_jax.diffusion.program import ProgramShape, lower_program
from genbench_jax.errors import UsageError
from genbench_jax.models.configuration import Settings
from genbench_jax.models.diffusion_model import StableDiffusion, apply_unet, described_conditions
from genbench_jax.models.stable_diffusion import describe
from genbench_jax.models.stock_diffusion import stock_networks, stock_params
from genbench_jax.runtime.mesh import DATA_AXIS, data_mesh
from genbench_jax.zoo import tiny

PUBLISHED = Path(__file__).parent.parent / "tests" / "data" / "state_dict_keys.json.gz"
COLLECTIVES = r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
# A v5e chip: bf16 FLOP/s and bytes/s.
PEAK_FLOPS, PEAK_BYTES = 197e12, 819e9
BENCHMARK_IMAGES, BENCHMARK_STEPS = 2548 * 500 * 5, 50


def main() -> None:
  arguments = parsed()
  name = "tiny" if arguments.small else arguments.model
  model = described_model(name)
  results: dict[str, Any] = {"steps": arguments.steps, "batch_per_chip": arguments.batch}
  for topology in () if arguments.no_sampler else arguments.topologies:
    results[topology] = sampler_on(model, topology, arguments.batch, arguments.steps)
    print(topology, results[topology], flush=True)
  if not arguments.no_step:
    results["step"] = step_costs(model, name, arguments.topologies[0], arguments.batch)
    report(results["step"])
  if arguments.json:
    Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n")


def parsed() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "--topologies", type=lambda text: text.split(","), default=["v5e:2x2", "v5e:4x4"]
  )
  parser.add_argument(
    "--model",
    default="stable-diffusion-2.1-base",
    help="stable-diffusion-1.5, stable-diffusion-2.1-base, stable-diffusion-2.1 or sdxl-base-1.0",
  )
  parser.add_argument("--batch", type=int, default=8, help="images per chip")
  parser.add_argument("--steps", type=int, default=BENCHMARK_STEPS)
  parser.add_argument("--small", action="store_true", help="a tiny model")
  parser.add_argument("--no-step", action="store_true", help="only the whole sampler")
  parser.add_argument("--no-sampler", action="store_true", help="only the step")
  parser.add_argument("--json", help="file for the results")
  return parser.parse_args()


def described_model(name: str) -> StableDiffusion:
  """Return a model with shapes as parameters, from its published configuration."""
  configs = {
    part: Settings(config, Path(name) / part) for part, config in configurations(name).items()
  }
  return describe(configs, jnp.bfloat16)


def configurations(name: str) -> dict[str, Any]:
  """Return the configuration of each part."""
  if name == "tiny":
    return {"unet": tiny.UNET, "vae": tiny.VAE, "text_encoder": tiny.text_config()}
  published = json.loads(gzip.decompress(PUBLISHED.read_bytes()))
  parts = ("unet", "vae", "text_encoder", "text_encoder_2")
  found = {part: published.get(f"{name}/{part}", {}).get("config") for part in parts}
  return {part: config for part, config in found.items() if config}


def described_mesh(topology: str, chips: int | None = None) -> Mesh:
  """Return a mesh of TPU chips that do not have to exist."""
  description = topologies.get_topology_desc(platform="tpu", topology_name=topology)
  return data_mesh(description.devices[:chips])


def latent_shape(model: StableDiffusion) -> tuple[int, int, int]:
  side = model.unet.config.sample_size
  return side, side, model.latent_channels


def sampler_on(model: StableDiffusion, topology: str, batch: int, steps: int) -> dict[str, Any]:
  """Return memory, collectives and compile time of the whole sampler on a slice."""
  mesh = described_mesh(topology)
  lowered = lower_program(model, mesh, ProgramShape(batch, steps, True, latent_shape(model)))
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
  model: StableDiffusion, name: str, topology: str, batch: int
) -> dict[str, dict[str, float]]:
  """Return FLOPs and bytes per image of a guided step on one chip, for ours and, if installed, the stock U-Net."""
  mesh = described_mesh(topology)
  peers = {"ours": model} | stock_model(model, name)
  rows = 2 * batch * mesh.size
  latents = jax.ShapeDtypeStruct((rows, *latent_shape(model)), jnp.bfloat16)
  inputs = split(mesh, (latents, described_conditions(model, rows)))
  everywhere, by_rows = PartitionSpec(), PartitionSpec(DATA_AXIS)
  costs = {}
  for side, peer in peers.items():

    def step(params: Any, inputs: Any, unet: Any = peer.unet) -> jax.Array:
      return apply_unet(unet, params, inputs[0], jnp.float32(1), inputs[1], "tpu")

    specs = (everywhere, by_rows)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=by_rows, check_vma=False)
    params = split(mesh, peer.params["unet"], everywhere)
    compiled = jax.jit(mapped).lower(params, inputs).compile()
    cost = compiled.cost_analysis()
    costs[side] = {
      "tflop_per_image": cost["flops"] / batch / 1e12,
      "gb_per_image": cost["bytes accessed"] / batch / 1e9,
      "temporary_gb": compiled.memory_analysis().temp_size_in_bytes / 1e9,
    }
    print(side, costs[side], flush=True)  # the other side takes minutes
  return costs


def stock_model(model: StableDiffusion, name: str) -> dict[str, StableDiffusion]:
  """Return the model with diffusers' own U-Net; without it, print why and return nothing."""
  configs = {
    part: Settings(config, Path(name) / part) for part, config in configurations(name).items()
  }
  try:
    unet, vae = stock_networks(configs, model.dtype, model.vae_dtype)
  except UsageError as error:
    print(f"no comparison with the stock U-Net: {error}")
    return {}
  params = stock_params(unet, vae, model.params)
  return {"stock": dataclasses.replace(model, unet=unet, vae=vae, params=params)}


def split(mesh: Mesh, tree: Any, spec: PartitionSpec | None = None) -> Any:
  """Return the shapes of a tree sharded over the mesh, by default along the first axis."""
  sharding = NamedSharding(mesh, PartitionSpec(DATA_AXIS) if spec is None else spec)
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
  )


def report(costs: dict[str, dict[str, float]]) -> None:
  """Print the roofline of a step."""
  for name, cost in costs.items():
    arithmetic = cost["tflop_per_image"] * 1e12 / PEAK_FLOPS
    bandwidth = cost["gb_per_image"] * 1e9 / PEAK_BYTES
    hours = max(arithmetic, bandwidth) * BENCHMARK_STEPS * BENCHMARK_IMAGES / 3600
    print(
      f"{name:6} {cost['tflop_per_image']:.2f} TFLOP and {cost['gb_per_image']:.2f} GB per image and step:"
      f" {1e3 * arithmetic:.1f} ms of arithmetic, {1e3 * bandwidth:.1f} ms of memory,"
      f" {cost['temporary_gb']:.2f} GB temporary; {hours:,.0f} v5e chip-hours for the benchmark"
    )
  if len(costs) < 2:
    return
  ratio = costs["ours"]["gb_per_image"] / costs["stock"]["gb_per_image"]
  print(f"bytes moved, ours / stock: {ratio:.2f} (goal: at most 0.55)")


if __name__ == "__main__":
  main()
