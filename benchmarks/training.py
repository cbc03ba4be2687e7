"""Compare the training engine with a PyTorch loop, in images per second: same network, batch, precision, augmentation.

  python benchmarks/training.py --peer-python /path/to/env-with-torch/bin/python --json training.json      # CPU: ResNet-18 at 64 pixels
  python benchmarks/training.py --network resnet50 --size 224 --batch 256 --classes 100                    # GPU, bfloat16

Both sides train on the same uint8 images in memory, with random resized crop, mirroring, normalization, and SGD with
momentum. PyTorch's loop uses channels-last tensors, on GPUs bfloat16 autocast and cuDNN's search, a DataLoader with a
worker per core (`--workers`) and PIL transforms like torchvision's, and torchvision's network (`--torch-compile`
compiles it). Ours crops on the device. Each measurement is a separate process; rounds alternate; warm-up and
compilation are excluded and reported separately. Ratios are ours / peer in images per second: above 1, ours is faster.

  train      everything: input, augmentation, forward, backward, update
  step       the same on one batch that stays on the device, without augmentation
  input      only the input pipeline: augmented, normalized batches on the device
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

WARM = 3


def main() -> int:
  options = parse()
  if options.measure:
    side, what = options.measure.split(":")
    print(json.dumps(SIDES[side](what, options)))
    return 0
  result = {"load_before": os.getloadavg()[0], "cores": os.cpu_count(), "settings": vars(options)}
  for what in options.only.split(","):
    found: dict[str, list[dict]] = {side: [] for side in options.sides.split(",")}
    for _ in range(options.rounds):
      for side, measured in found.items():
        measured.append(measure(side, what, options))
    rates = {side: statistics.median(run["images_a_second"] for run in measured) for side, measured in found.items()}  # fmt: skip
    result[what] = {"images_a_second": rates, "measured": found}
    if len(rates) == 2:
      result[what]["ratio"] = rates["ours"] / rates["peer"]
    print(json.dumps({what: {key: value for key, value in result[what].items() if key != "measured"}}), flush=True)  # fmt: skip
  if options.json:
    with open(options.json, "w", encoding="utf-8") as file:  # noqa: PTH123
      json.dump(result, file, indent=1)
  return 0


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--network", default="resnet18", choices=("resnet18", "resnet50"))
  parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
  parser.add_argument("--batch", type=int, default=64)
  parser.add_argument("--classes", type=int, default=10)
  parser.add_argument("--images", type=int, default=512, help="images in memory")
  parser.add_argument("--steps", type=int, default=10, help="timed steps")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--only", default="train,step,input")
  parser.add_argument("--sides", default="ours,peer")
  parser.add_argument(
    "--workers", type=int, default=os.cpu_count(), help="workers of PyTorch's DataLoader"
  )
  parser.add_argument("--peer-python", default=sys.executable, help="a Python with torch")
  parser.add_argument("--torch-compile", action="store_true")
  parser.add_argument("--json", help="file for the result")
  parser.add_argument("--measure", help=argparse.SUPPRESS)
  return parser.parse_args()


def measure(side: str, what: str, options: argparse.Namespace) -> dict:
  """Run one measurement in its own process."""
  python = sys.executable if side == "ours" else options.peer_python
  given = {**vars(options), "measure": f"{side}:{what}", "json": None}
  arguments = []
  for name, value in given.items():
    if value is True:
      arguments.append(f"--{name.replace('_', '-')}")
    elif value not in (None, False):
      arguments.append(f"--{name.replace('_', '-')}={value}")
  command = [python, __file__, *arguments]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.returncode:
    raise RuntimeError(f"{side} {what}: {done.stderr[-2000:]}")
  return json.loads(done.stdout.strip().splitlines()[-1])


def stored(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
  """Return the images in memory; large ones are an eighth larger than the network's input."""
  side = options.size if options.size <= 64 else 8 * round(options.size / 7)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (options.images, side, side, 3), dtype=np.uint8)
  return images, rng.integers(0, options.classes, options.images)


def timed(step, steps: int, batch: int, wait) -> dict:  # type: ignore[no-untyped-def]
  """Return the images per second of `steps` steps after a warm-up."""
  began = time.perf_counter()
  for _ in range(WARM):
    step()
  wait()
  first = time.perf_counter() - began
  began, began_cpu = time.perf_counter(), time.process_time()
  for _ in range(steps):
    step()
  wait()
  seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
  return {
    "images_a_second": steps * batch / seconds,
    "cpu_seconds_an_image": cpu_seconds / (steps * batch),
    "warm_up_seconds": first,
  }


# ---- ours -------------------------------------------------------------------------------------


def ours(what: str, options: argparse.Namespace) -> dict:
  import dataclasses

  import jax

  from genbench_jax.models.classifier_cost import network_flops
  from genbench_jax.recognizers import from_scratch, settings, train_step
  from genbench_jax.recognizers.batches import batches_from
  from genbench_jax.recognizers.training_set import make_training_set
  from genbench_jax.runtime.mesh import data_mesh, replicated

  recipe = settings.Recipe(
    batch_size=options.batch, min_steps=10**6, epochs=0.0, min_crop=0.08, label_smoothing=0.0
  )
  if what == "step":
    recipe = dataclasses.replace(recipe, min_crop=1.0, flip=False)
  scratch = settings.FromScratchSettings(options.network, options.size, recipe=recipe)
  method = from_scratch.method(scratch, options.classes, False)
  images, labels = stored(options)
  data = make_training_set(images, np.eye(options.classes)[labels])
  mesh, curriculum = data_mesh(), data.curriculum(recipe)
  batches = batches_from([data], [curriculum], 0, mesh)
  if what == "input":
    augment = jax.jit(lambda batch: train_step.augmented(method.problem, recipe, batch).pixels)
    last = [None]

    def step() -> None:
      last[0] = augment(next(batches))

    return timed(step, options.steps, options.batch, lambda: jax.block_until_ready(last[0]))
  state = train_step.initial_state(method.start(0), recipe)
  state, frozen = jax.device_put((state, {}), replicated(mesh))
  program = train_step.step_program(method.problem, train_step.program_recipe(recipe), mesh, 0)
  fixed, held = next(batches), [state, None]

  def step() -> None:
    held[0], held[1] = program(held[0], frozen, fixed if what == "step" else next(batches))

  found = timed(step, options.steps, options.batch, lambda: jax.block_until_ready(held[1]))
  flops = 3 * network_flops(options.network, options.size, options.classes)
  return found | {
    "loss": float(held[1].loss),
    "device": jax.devices()[0].device_kind,
    "tflops": found["images_a_second"] * flops / 1e12,
  }


# ---- PyTorch's --------------------------------------------------------------------------------


def peer(what: str, options: argparse.Namespace) -> dict:
  import torch

  device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
  torch.backends.cudnn.benchmark = True
  images, labels = stored(options)
  batches = endless(loader(images, labels, options, plain=what == "step"))
  mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
  std = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)

  def placed() -> tuple:
    pixels, target = next(batches)
    pixels = pixels.to(device, non_blocking=True).to(memory_format=torch.channels_last)
    return (pixels.float() / 255 - mean) / std, target.to(device, non_blocking=True)

  wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
  if what == "input":
    return timed(placed, options.steps, options.batch, wait)
  network = residual(options.network, options.classes, options.size <= 64).to(device)
  network = network.to(memory_format=torch.channels_last)
  run = torch.compile(network) if options.torch_compile else network
  optimizer = torch.optim.SGD(
    network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, fused=device.type == "cuda" or None
  )
  fixed, losses = placed(), []

  def step() -> None:
    pixels, target = fixed if what == "step" else placed()
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
      loss = torch.nn.functional.cross_entropy(run(pixels), target)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    losses.append(loss.detach())

  return timed(step, options.steps, options.batch, wait) | {"loss": float(losses[-1])}


def loader(images: np.ndarray, labels: np.ndarray, options: argparse.Namespace, plain: bool):  # type: ignore[no-untyped-def]
  """Return a DataLoader with PIL transforms: random resized crop and mirroring, as in torchvision."""
  import math
  import random

  import torch
  from PIL import Image

  size = options.size

  class Crops(torch.utils.data.Dataset):
    def __len__(self) -> int:
      return options.batch * 10**5

    def __getitem__(self, index: int):  # type: ignore[no-untyped-def]
      array = images[index % len(images)]
      if plain:
        start = (array.shape[0] - size) // 2
        array = array[start : start + size, start : start + size]
        return torch.from_numpy(array.transpose(2, 0, 1).copy()), int(labels[index % len(labels)])
      image = Image.fromarray(array)
      box = crop_box(image.size[0])
      image = image.resize((size, size), Image.Resampling.BILINEAR, box)
      if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
      pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())
      return pixels, int(labels[index % len(labels)])

  def crop_box(side: int) -> tuple[int, int, int, int]:
    for _ in range(10):
      area = side * side * random.uniform(0.08, 1.0)
      ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
      width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
      if 0 < width <= side and 0 < height <= side:
        left, top = random.randint(0, side - width), random.randint(0, side - height)
        return left, top, left + width, top + height
    return 0, 0, side, side

  return torch.utils.data.DataLoader(
    Crops(), options.batch, num_workers=options.workers, pin_memory=torch.cuda.is_available(),
    prefetch_factor=2 if options.workers else None,
  )  # fmt: skip


def endless(batches):  # type: ignore[no-untyped-def]
  while True:
    yield from batches


def residual(name: str, classes: int, small: bool):  # type: ignore[no-untyped-def]
  """Return ResNet-18 or -50 as torchvision defines them, optionally with the small-image stem."""
  from torch import nn

  bottleneck = name == "resnet50"

  class Block(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
      super().__init__()
      outputs = 4 * width if bottleneck else width
      shapes = (
        ((inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1))
        if bottleneck
        else ((inputs, width, 3, stride), (width, width, 3, 1))
      )
      layers: list[nn.Module] = []
      for a, b, size, step in shapes:
        layers += [nn.Conv2d(a, b, size, step, size // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU(True)]  # fmt: skip
      self.body = nn.Sequential(*layers[:-1])
      self.shortcut = nn.Identity()
      if stride != 1 or inputs != outputs:
        convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, x):  # type: ignore[no-untyped-def]
      return nn.functional.relu(self.body(x) + self.shortcut(x))

  stem: list[nn.Module] = [nn.Conv2d(3, 64, 3 if small else 7, 1 if small else 2, 1 if small else 3, bias=False)]  # fmt: skip
  stem += [nn.BatchNorm2d(64), nn.ReLU(True)]
  if not small:
    stem.append(nn.MaxPool2d(3, 2, 1))
  blocks, inputs = [], 64
  for stage, depth in enumerate((3, 4, 6, 3) if bottleneck else (2, 2, 2, 2)):
    for place in range(depth):
      width = 64 * 2**stage
      blocks.append(Block(inputs, width, 2 if stage and not place else 1))
      inputs = 4 * width if bottleneck else width
  head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
  return nn.Sequential(*stem, *blocks, *head)


SIDES = {"ours": ours, "peer": peer}

if __name__ == "__main__":
  sys.exit(main())
