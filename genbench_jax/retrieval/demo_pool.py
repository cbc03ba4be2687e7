"""A small pool for retrieval: images of the demo worlds with captions, similar to a web crawl.

One caption in eight belongs to another image, some images occur twice, and some are test images, so
that ranking, duplicate removal and the leak audit have something to do. All other images are in no
split.
"""

import io
import tarfile
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from genbench_jax.benchmark.captions import caption
from genbench_jax.benchmark.worlds import WorldExample, world_example, world_size, world_specs
from genbench_jax.models.image_encoder import TextEncoder
from genbench_jax.retrieval.build import build_pool
from genbench_jax.retrieval.collection import open_collection
from genbench_jax.retrieval.pool import MANIFEST
from genbench_jax.store import files
from genbench_jax.store.image_set import encode_png

NAME = "zoo/pool"
COLLECTION = "collection"
# Increase it when other images or captions are drawn.
VERSION = 1
IMAGES_PER_WORLD = 400
WRONG_CAPTION, COPY, LEAK = 0.125, 0.08, 0.03
# The zoo was trained on lower variants of these images, drawn under other conditions.
_VARIANT = 1000


def demo_pool(folder: Path, encoder: TextEncoder, mesh: Mesh) -> Path:
  """Return the folder of the pool; draw and embed it first if needed.

  Args:
    folder: folder that contains the pool.
    encoder: encoder of the features.
    mesh: devices.
  """
  pool = folder / "pool"
  tar = pool / COLLECTION / "images.tar"  # inside the pool, because a pool may name no other place
  if not _names_own_collection(pool / MANIFEST):
    if not tar.exists():
      draw(tar)
    build_pool(open_collection(tar.parent, per_part=1), pool, encoder, mesh)
  return pool


def _names_own_collection(manifest: Path) -> bool:
  """Return whether the pool exists; versions before 0.2 kept their images elsewhere."""
  return manifest.exists() and files.read_json(manifest).get("collection") == COLLECTION


def draw(path: Path, images_per_world: int = IMAGES_PER_WORLD) -> None:
  """Write the images and captions as a tar, deterministically."""
  with files.atomic_path(path) as temporary, tarfile.open(temporary, "w") as tar:
    for world in world_specs():
      rng = np.random.default_rng([images_per_world, len(world)])
      drawn: list[WorldExample] = []
      for index in range(images_per_world):
        drawn.append(_example(world, index, drawn, rng))
        about = drawn[rng.integers(len(drawn))] if rng.random() < WRONG_CAPTION else drawn[-1]
        name = f"{world}_{index:05d}"
        _add(tar, f"{name}.png", encode_png(drawn[-1].image))
        _add(tar, f"{name}.txt", caption(world, about, rng).encode())


def _example(
  world: str, index: int, drawn: list[WorldExample], rng: np.random.Generator
) -> WorldExample:
  chance = rng.random()
  if chance < COPY and drawn:
    return drawn[rng.integers(len(drawn))]
  if chance < COPY + LEAK:
    return world_example(world, "test", int(rng.integers(world_size(world, "test"))))
  return world_example(world, "zoo", index, _VARIANT)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
  info = tarfile.TarInfo(name)
  info.size = len(content)
  tar.addfile(info, io.BytesIO(content))
