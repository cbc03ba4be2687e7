"""Choose the learning rate of the demo's small network on held-out external images. No test image is read.

  genbench run demo --workdir demo --stages=images
  python tools/demo_recipe.py --workdir demo

Every image set of the demo is split: the network trains on the first three quarters of each class's images and is scored on the
rest. Prints the mean accuracy over the sets for every rate; `configs/demo.py` takes the best one.
"""

import argparse
import dataclasses
import io
import runpy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from genbench_jax.cells import ImageSetKey, image_sets
from genbench_jax.config import make_config
from genbench_jax.pipeline.artifacts import open_image_set
from genbench_jax.recognizers.from_scratch import from_scratch
from genbench_jax.run import Run

ROOT = Path(__file__).parents[1]
RATES = (0.003, 0.01, 0.03)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", type=Path, required=True, help="of the demo, with its images")
  parser.add_argument("--datasets", nargs="+", default=["digits", "shapes"])
  arguments = parser.parse_args()
  config = runpy.run_path(str(ROOT / "configs" / "demo.py"))["get_config"]()
  config.datasets = tuple(arguments.datasets)
  run = Run(make_config(config), arguments.workdir)
  found = np.array([accuracies(run, key) for key in image_sets(run.config)])
  for rate, values in zip(RATES, found.T, strict=True):
    print(f"learning rate {rate}: held-out accuracy {values.mean():.3f} over {len(values)} sets")


def accuracies(run: Run, key: ImageSetKey) -> list[float]:
  """Return the held-out accuracy of every rate on one image set."""
  classes = run.config.spec(key.dataset).num_classes
  images, labels = external_images(run, key)
  # The order is shot by shot, so the last quarter has as many images of every class.
  border = classes * (3 * len(images) // (4 * classes))
  settings = run.config.recognition.from_scratch
  return [
    from_scratch(
      images[:border], labels[:border], images[border:], labels[border:],
      settings=dataclasses.replace(settings, recipe=dataclasses.replace(settings.recipe, learning_rate=rate)),
      num_classes=classes,
    )["score"]
    for rate in RATES
  ]  # fmt: skip


def external_images(
  run: Run, key: ImageSetKey
) -> tuple[UInt8[np.ndarray, "n h w 3"], Int[np.ndarray, "n"]]:
  """Return the images and labels of a set."""
  records = list(_records(run, key))
  images = [np.asarray(Image.open(io.BytesIO(record.image)).convert("RGB")) for record in records]
  return np.stack(images), np.array([record.label for record in records])


def _records(run: Run, key: ImageSetKey) -> Iterator:
  found = open_image_set(run, key)
  return (found[index] for index in range(len(found)))


if __name__ == "__main__":
  main()
