"""Compare memory and speed of the full-size Stable Diffusion 2.1-base on CPU with PyTorch's pipeline.

  python benchmarks/full_size.py --peer-python /path/to/env-with-torch/bin/python --json full_size.json

Random weights in the published shapes (float32, 5.2 GB) are written to a temporary folder, or to `--model` for
reuse. Each side is a separate process that loads the folder and makes an image of 512 x 512 in two guided steps,
twice: the first run compiles, the second is reported. Peak memory is the kernel's (`ru_maxrss`), including mapped
files. Both sides start from the same latents, and the images are compared.
"""

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "tests" / "data" / "state_dict_keys.json.gz"
PARTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}  # fmt: skip
CLASSES = {
  "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
  "text_encoder": ["transformers", "CLIPTextModel"],
  "tokenizer": ["transformers", "CLIPTokenizer"],
  "unet": ["diffusers", "UNet2DConditionModel"],
  "vae": ["diffusers", "AutoencoderKL"],
}
PROMPT, GUIDANCE = "a photo of a dog", 7.5


def main() -> None:
  options = parsed()
  if options.measure:
    print(json.dumps(measured(options)))
    return
  with tempfile.TemporaryDirectory() as temporary:
    folder = Path(options.model or temporary)
    if not (folder / "model_index.json").is_file():
      subprocess.run(command("write", folder, options, sys.executable), check=True)
    results: dict[str, Any] = {"load_before": os.getloadavg()[0], "cores": os.cpu_count()}
    pythons = {"ours": sys.executable, "torch": options.peer_python}
    for side in (side for side in options.sides.split(",") if pythons[side]):
      run = subprocess.run(
        command(side, folder, options, pythons[side]), check=True, stdout=subprocess.PIPE, text=True
      )
      results[side] = json.loads(run.stdout.splitlines()[-1])
      print(json.dumps({side: results[side]}), flush=True)
    if len({"ours", "torch"} & results.keys()) == 2:
      images = [np.load(folder / f"{side}.npy").astype(int) for side in ("ours", "torch")]
      results["ratio"] = results["torch"]["second_seconds"] / results["ours"]["second_seconds"]
      results["largest_difference_of_255"] = int(np.abs(images[0] - images[1]).max())
  print(json.dumps({key: value for key, value in results.items() if key not in pythons}))
  if options.json:
    Path(options.json).write_text(json.dumps(results, indent=2) + "\n")


def parsed() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--peer-python", default="", help="an interpreter with torch and diffusers")
  parser.add_argument("--sides", default="ours,torch")
  parser.add_argument("--model", default="", help="folder of the weights; written if it is empty")
  parser.add_argument("--steps", type=int, default=2)
  parser.add_argument("--json", help="file for the results")
  parser.add_argument("--measure", default="", help=argparse.SUPPRESS)
  return parser.parse_args()


def command(what: str, folder: Path, options: argparse.Namespace, python: str) -> list[str]:
  settings = ["--measure", what, "--model", str(folder), "--steps", str(options.steps)]
  return [python, __file__, *settings]


def measured(options: argparse.Namespace) -> dict[str, Any]:
  """Run one side's process; return its timings and peak memory in GB."""
  folder = Path(options.model)
  if options.measure == "write":
    write_model(folder)
    return {}
  draw = np.random.default_rng(0)
  latents = draw.standard_normal((1, 64, 64, 4), np.float32)
  began = time.perf_counter()
  make = {"ours": ours, "torch": torchs}[options.measure](folder, options.steps)
  found = stage("load", began)
  for name in ("first", "second"):
    began = time.perf_counter()
    image = make(latents)
    found |= stage(name, began)
    np.save(folder / f"{options.measure}.npy", image)
  return found


def stage(name: str, began: float) -> dict[str, float]:
  """Return the time and peak memory of a stage. Also print them: on a busy machine, all stages may take an hour."""
  found = {f"{name}_seconds": time.perf_counter() - began, f"peak_gb_after_{name}": peak()}
  print(found, file=sys.stderr, flush=True)
  return found


def peak() -> float:
  """Return the peak resident memory of this process, in units of 10^9 bytes."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def write_model(folder: Path) -> None:
  """Write the pipeline's folder part by part; `model_index.json` comes last."""
  from safetensors.numpy import save_file

  sys.path.insert(0, str(ROOT))
  from genbench_jax.zoo import tiny

  record = json.loads(gzip.decompress(PUBLISHED.read_bytes()))
  for part, name in PARTS.items():
    published = record[f"stable-diffusion-2.1-base/{part}"]
    (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / part / "config.json").write_text(json.dumps(published["config"]))
    shapes = {name: tuple(shape) for name, shape in published["shapes"].items()}
    save_file(tiny.random_weights(shapes), folder / part / f"{name}.safetensors")
  tiny.write_tokenizer(folder / "tokenizer")
  settings = json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())
  (folder / "tokenizer" / "tokenizer_config.json").write_text(
    json.dumps(settings | {"model_max_length": 77})
  )
  (folder / "scheduler").mkdir(exist_ok=True)
  (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(tiny.SCHEDULER))
  index = {"_class_name": "StableDiffusionPipeline", **CLASSES}
  index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
  (folder / "model_index.json").write_text(json.dumps(index))


def ours(folder: Path, steps: int) -> Callable[[np.ndarray], np.ndarray]:
  sys.path.insert(0, str(ROOT))
  import jax

  from genbench_jax.diffusion.generate import keys_of
  from genbench_jax.diffusion.sampler import Sampler
  from genbench_jax.models.stable_diffusion import load_stable_diffusion
  from genbench_jax.runtime.mesh import data_mesh

  model = load_stable_diffusion(folder)
  sampler = Sampler(model, data_mesh(jax.local_devices()), 1, steps, GUIDANCE, "dpmsolver++")
  return lambda latents: np.asarray(sampler([PROMPT], [""], keys_of([0]), latents, None))


def torchs(folder: Path, steps: int) -> Callable[[np.ndarray], np.ndarray]:
  import diffusers
  import torch

  diffusers.utils.logging.disable_progress_bar()
  pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
  pipeline.set_progress_bar_config(disable=True)
  kind = diffusers.DPMSolverMultistepScheduler
  pipeline.scheduler = kind.from_config(pipeline.scheduler.config)

  def make(latents: np.ndarray) -> np.ndarray:
    first = torch.from_numpy(latents.transpose(0, 3, 1, 2).copy())
    made = pipeline(
      PROMPT,
      latents=first,
      num_inference_steps=steps,
      guidance_scale=GUIDANCE,
      output_type="np",
    )
    return np.round(255 * made.images).astype(np.uint8)

  return make


if __name__ == "__main__":
  main()
