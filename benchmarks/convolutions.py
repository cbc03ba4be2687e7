"""Time the 3 x 3 convolutions of a ResNet-18 on small images, forward and both gradients, ours beside PyTorch's.

  python benchmarks/convolutions.py --peer-python /path/to/env-with-torch/bin/python

Milliseconds for a batch, wall time / CPU time, medians; float32, channels last. They explain what
`benchmarks/training.py` measures on a CPU.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

# Side of the image, channels in, channels out, stride, and how often a ResNet-18 for 64 pixels has it.
LAYERS = (
  (64, 3, 64, 1, 1), (64, 64, 64, 1, 4), (64, 64, 128, 2, 1), (32, 128, 128, 1, 3), (32, 128, 256, 2, 1),
  (16, 256, 256, 1, 3), (16, 256, 512, 2, 1), (8, 512, 512, 1, 3),
)  # fmt: skip
WAYS = ("forward", "gradient of the image", "gradient of the kernel")


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--batch", type=int, default=32)
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--peer-python", help="a Python with torch; omit to time ours only")
  parser.add_argument("--measure", choices=SIDES, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.measure:
    print(json.dumps(list(map(SIDES[options.measure](options), LAYERS))))
    return
  pythons = {"ours": sys.executable, "peer": options.peer_python}
  for side, python in pythons.items():
    if python:
      command = [python, __file__, f"--measure={side}", f"--batch={options.batch}", f"--repeats={options.repeats}"]  # fmt: skip
      done = subprocess.run(command, capture_output=True, text=True, check=True)
      show(side, json.loads(done.stdout.splitlines()[-1]))


def show(side: str, found: list[list[list[float]]]) -> None:
  """Print a table, and the wall time of all layers of a network."""
  print(f"{side}: {', '.join(WAYS)}")
  for (size, inputs, outputs, stride, times), ways in zip(LAYERS, found, strict=True):
    cells = "   ".join(f"{wall:7.1f} / {cpu:7.1f}" for wall, cpu in ways)
    print(f"{times} x {size:3} px, {inputs:3} -> {outputs:3}, stride {stride}   {cells}")
  total = sum(layer[-1] * wall for layer, ways in zip(LAYERS, found, strict=True) for wall, _ in ways)  # fmt: skip
  print(f"all of them: {total:.0f} ms")


def timed(work: Callable[[], object], repeats: int) -> list[float]:
  """Return the median wall and CPU milliseconds of a call, after one that compiles."""
  work()
  found = []
  for _ in range(repeats):
    began, began_cpu = time.perf_counter(), time.process_time()
    work()
    found.append((time.perf_counter() - began, time.process_time() - began_cpu))
  return [1000 * statistics.median(each) for each in zip(*found, strict=True)]


def drawn(layer: tuple[int, ...], batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Return images [b, h, w, c], a kernel [3, 3, c, d] and a gradient of the output."""
  size, inputs, outputs, stride, _ = layer
  shapes = ((batch, size, size, inputs), (3, 3, inputs, outputs), (batch, size // stride, size // stride, outputs))  # fmt: skip
  random = np.random.default_rng(0)
  images, kernel, gradient = (random.standard_normal(shape, np.float32) for shape in shapes)
  return images, kernel, gradient


def ours(options: argparse.Namespace) -> Callable[[tuple[int, ...]], list[list[float]]]:
  import jax

  from genbench_jax.models.layers import convolve

  def measured(layer: tuple[int, ...]) -> list[list[float]]:
    arrays = jax.device_put(drawn(layer, options.batch))

    def forward(images, kernel, gradient):  # type: ignore[no-untyped-def]
      return convolve(images, kernel, layer[3], 1)

    def by_image(images, kernel, gradient):  # type: ignore[no-untyped-def]
      return jax.vjp(lambda x: convolve(x, kernel, layer[3], 1), images)[1](gradient)[0]

    def by_kernel(images, kernel, gradient):  # type: ignore[no-untyped-def]
      return jax.vjp(lambda w: convolve(images, w, layer[3], 1), kernel)[1](gradient)[0]

    programs = map(jax.jit, (forward, by_image, by_kernel))
    return [
      timed(lambda program=program: jax.block_until_ready(program(*arrays)), options.repeats)
      for program in programs
    ]

  return measured


def peer(options: argparse.Namespace) -> Callable[[tuple[int, ...]], list[list[float]]]:
  import torch

  def measured(layer: tuple[int, ...]) -> list[list[float]]:
    images, kernel, gradient = map(torch.from_numpy, drawn(layer, options.batch))
    # Channels last in memory, [b, c, h, w] in name.
    images, gradient = (array.permute(0, 3, 1, 2) for array in (images, gradient))
    kernel = kernel.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    way = {"stride": layer[3], "padding": 1}
    calls = (
      lambda: torch.nn.functional.conv2d(images, kernel, **way),
      lambda: torch.nn.grad.conv2d_input(images.shape, kernel, gradient, **way),
      lambda: torch.nn.grad.conv2d_weight(images, kernel.shape, gradient, **way),
    )
    return [timed(call, options.repeats) for call in calls]

  return measured


SIDES = {"ours": ours, "peer": peer}

if __name__ == "__main__":
  main()
