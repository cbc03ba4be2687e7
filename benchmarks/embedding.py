"""Compare image encoders with PyTorch: same CPU, shapes and precision, random weights, alternating rounds.

  python benchmarks/embedding.py --peer TORCH_PYTHON --json embedding.json    # minutes on 2 cores
  python benchmarks/embedding.py --peer TORCH_PYTHON --models clip-b32 --batch 8 --rounds 3

TORCH_PYTHON is the Python of an environment with torch, transformers and torch-fidelity, none of which ours needs.
Each side is a separate process that computes a batch on request and otherwise waits, so that both see the same
machine. Computed in float32. Reported are medians, and the ratio of PyTorch's seconds to ours: above 1, ours is
faster.

  clip-b32    CLIP ViT-B/32's vision tower with projection, 224 x 224.
  siglip-b16  SigLIP B/16's vision tower with attention pooling, 224 x 224.
  inception   Inception-v3 of FID from uint8 images of 299 x 299: torch-fidelity's forward pass versus our
              preprocessing and network.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np

MODELS = ("clip-b32", "siglip-b16", "inception")
SIDES = ("ours", "torch")
SIZES = {"clip-b32": 224, "siglip-b16": 224, "inception": 299}
Run = Callable[[np.ndarray], Any]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--peer", default=sys.executable, help="a Python with torch")
  parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
  parser.add_argument("--batch", type=int, default=32)
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--json", type=Path)
  parser.add_argument("--serve", nargs=2, metavar=("SIDE", "MODEL"), help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.serve:
    serve(*options.serve, options.batch)
    return
  results = {}
  for model in options.models:
    results[model] = compared(model, options)
    print(f"{model}: {results[model]}", flush=True)
  if options.json:
    options.json.write_text(json.dumps(results, indent=2) + "\n")


def compared(model: str, options: argparse.Namespace) -> dict[str, float]:
  """Return the median seconds per image of both sides, and their ratio."""
  pythons = {"ours": sys.executable, "torch": options.peer}
  workers = {side: started(pythons[side], side, model, options.batch) for side in SIDES}
  seconds: dict[str, list[float]] = {side: [] for side in SIDES}
  try:
    for worker in workers.values():
      assert worker.stdout is not None and worker.stdout.readline().strip() == "ready"
    for _ in range(options.rounds + 1):
      for side, worker in workers.items():
        seconds[side].append(one_batch(worker))
  finally:
    for worker in workers.values():
      worker.kill()
      worker.wait()
  medians = {side: statistics.median(taken[1:]) / options.batch for side, taken in seconds.items()}
  return medians | {"ratio": medians["torch"] / medians["ours"]}


def started(python: str, side: str, model: str, batch: int) -> subprocess.Popen[str]:
  """Start a process that computes a batch for each line that it reads."""
  command = [python, __file__, "--serve", side, model, "--batch", str(batch)]
  root = str(Path(__file__).parent.parent)
  environment = os.environ | {"PYTHONPATH": root, "JAX_PLATFORMS": "cpu"}
  return subprocess.Popen(
    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
  )


def one_batch(worker: subprocess.Popen[str]) -> float:
  """Return the seconds of one batch."""
  assert worker.stdin is not None and worker.stdout is not None
  worker.stdin.write("go\n")
  worker.stdin.flush()
  return float(worker.stdout.readline())


def serve(side: str, model: str, batch: int) -> None:
  """Run a worker's loop; images are new each time and made before the clock starts."""
  out, sys.stdout = sys.stdout, sys.stderr
  run = (ours if side == "ours" else torchs)(model)
  rng = np.random.default_rng(0)
  size = SIZES[model]

  def images() -> np.ndarray:
    if model == "inception":
      return rng.integers(0, 256, (batch, size, size, 3), np.uint8)
    return rng.standard_normal((batch, size, size, 3), np.float32)

  run(images())  # compiles
  print("ready", file=out, flush=True)
  for _ in sys.stdin:
    given = images()
    begin = time.perf_counter()
    run(given)
    print(time.perf_counter() - begin, file=out, flush=True)


def ours(model: str) -> Run:
  """Return our network as a function, with its parameters on the device."""
  import jax

  from genbench_jax.models import weights

  network, method = network_of(model)
  size = SIZES[model]
  given = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
  shapes = weights.parameter_shapes(network.init, given, method=method)
  rng = np.random.default_rng(0)
  params = jax.device_put(
    jax.tree.map(lambda leaf: 0.02 * rng.standard_normal(leaf.shape, np.float32), shapes)
  )
  if model == "inception":  # variances are positive
    params = jax.tree.map(lambda leaf: abs(leaf) + 0.01 if leaf.ndim == 1 else leaf, params)
  if model == "inception":
    from genbench_jax.models.inception import Inception

    embed = jax.jit(Inception(network, params, "").embed_pixels)
    return lambda images: np.asarray(embed(params, prepared(images)))
  program = jax.jit(lambda params, x: network.apply({"params": params}, x, method=method))
  return lambda images: np.asarray(program(params, images))


def network_of(model: str) -> tuple[Any, str | None]:
  """Return the network, and the name of its method that embeds images."""
  from genbench_jax.models.clip_network import (
    TEXT_DEFAULTS,
    VISION_DEFAULTS,
    ClipNetwork,
    TextSizes,
    VisionSizes,
  )
  from genbench_jax.models.inception_network import InceptionNetwork
  from genbench_jax.models.siglip_network import DEFAULTS, SiglipVision

  if model == "inception":
    return InceptionNetwork(), None
  if model == "siglip-b16":
    return SiglipVision(VisionSizes(DEFAULTS, 224, 16)), None
  text = TextSizes(TEXT_DEFAULTS, 49408, 77)
  return ClipNetwork(text, VisionSizes(VISION_DEFAULTS, 224, 32), 512), "image_features"


def prepared(images: np.ndarray) -> np.ndarray:
  """Prepare images as `gb.embed_images(images, "inception")` does."""
  from PIL import Image

  from genbench_jax.embedding.preprocess import pixels_of
  from genbench_jax.models.inception import INPUT

  with ThreadPoolExecutor() as pool:
    return np.stack(
      list(pool.map(lambda image: pixels_of(Image.fromarray(image), INPUT, "clean"), images))
    )


def torchs(model: str) -> Run:
  """Return PyTorch's network as a function, as its library runs it."""
  import torch

  torch.set_num_threads(os.cpu_count() or 1)
  network = torch_network(model).eval()

  def run(images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
      return network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))[0].numpy()

  return run


def torch_network(model: str) -> Any:
  """Return a PyTorch module with random weights."""
  import transformers

  if model == "clip-b32":
    config = transformers.CLIPVisionConfig(projection_dim=512)
    return transformers.CLIPVisionModelWithProjection(config)
  if model == "siglip-b16":
    return transformers.SiglipVisionModel(transformers.SiglipVisionConfig())
  # torch-fidelity imports torchvision for other networks.
  for part in ("", ".datasets", ".transforms", ".transforms.functional", ".models", ".ops"):
    sys.modules.setdefault(f"torchvision{part}", MagicMock())
  from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

  FeatureExtractorInceptionV3.load_state_dict = lambda *_: None  # random weights
  # The file must exist, but its content is ignored.
  blank = Path(__file__).parent.parent / "tests" / "data" / "torch_archive_zip.pth"
  return FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(blank))


if __name__ == "__main__":
  main()
