"""Find images that are so similar to a test image that they may be one.

    genbench leaks my_images/ --dataset cifar10 --checkpoint openai/clip-vit-base-patch32
    genbench leaks demo/images/shapes/retrieval-seed0-* --dataset shapes
    genbench leaks features.npy --test test_features.npy --threshold 0.97

The input is a folder of images or tars, an image set of a run, an `.npy` matrix of features, or an
embedding set of a run (`.safetensors`). Flagged images are printed, the nearest first. Exit status:
0 for success, 1 for a failed run, 2 for a usage error.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from genbench_jax.benchmark.reader import SplitImages
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.cli.subcommand import subcommand
from genbench_jax.config import Encoder, Retrieval
from genbench_jax.embedding.input_pipeline import Images
from genbench_jax.embedding.preprocess import Resize
from genbench_jax.errors import UsageError
from genbench_jax.retrieval.collection import open_collection
from genbench_jax.retrieval.place import Entry
from genbench_jax.runtime.progress import show
from genbench_jax.runtime.stopping import leave


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("images", help="images or their features")
  test = parser.add_mutually_exclusive_group(required=True)
  test.add_argument("--dataset", help="dataset of the test images")
  test.add_argument("--test", help="features of the test images")
  parser.add_argument("--checkpoint", default=Encoder().checkpoint, help="CLIP that embeds images")
  parser.add_argument("--data-dir", default=None, help="TFDS's data folder")
  parser.add_argument("--threshold", type=float, default=Retrieval().leak_threshold)
  parser.add_argument("--show", type=int, default=20, help="number of flagged images to list")
  parser.add_argument("--json", action="store_true", help="print JSON instead of text")


@subcommand("leaks", _arguments, __doc__)
def main(options: argparse.Namespace) -> None:
  """Print the flagged images."""
  from genbench_jax.runtime.jax_start import start_jax

  start_jax()
  from genbench_jax.retrieval.leaks import audit

  external, names = _external(options)
  found = audit(external, _test(options), options.threshold)
  flagged = np.flatnonzero(found.flagged)
  nearest = flagged[np.argsort(-found.cosine[flagged], kind="stable")]
  pairs = [
    {"image": names[row], "test_row": int(found.test_row[row]), "cosine": float(found.cosine[row])}
    for row in nearest
  ]
  if options.json:
    about = {"images": len(names), "threshold": options.threshold, "flagged": pairs}
    show(json.dumps(about, indent=2, ensure_ascii=False))
    return
  show(
    f"{len(pairs)} of {len(names)} images have a cosine of {options.threshold:g} or more to a test image;"
    f" the maximum is {found.cosine.max():.4f}."
  )
  for pair in pairs[: options.show]:
    show(f"  {pair['cosine']:.4f}  {pair['image']!r} ~ test image {pair['test_row']}")


def _external(options: argparse.Namespace) -> tuple[Float[np.ndarray, "n d"], list[str]]:
  """Return the features of the audited images, and a name for each row."""
  from genbench_jax.store.image_set import ImageSet, StoredImages

  path = Path(options.images).expanduser()
  if path.is_file():
    features = _read_features(path)
    return features, [f"row {row}" for row in range(len(features))]
  resize: Resize = dataset_spec(options.dataset).resize if options.dataset else "crop"
  if ImageSet.exists(path):
    images = ImageSet(path)
    features, valid = _embedded(options, StoredImages(images), resize)
    names = [f"image {row}" for row in range(len(images))]
  else:
    parts = open_collection(path, per_part=sys.maxsize)
    entries = [entry for part in parts for entry in part.listing().entries]
    features, valid = _embedded(options, _Entries(entries), resize)
    names = [entry.name for entry in entries]
  kept = np.flatnonzero(valid)
  if not len(kept):
    raise UsageError(f"no image in {path} can be read.")
  return features[kept], [names[row] for row in kept]


def _test(options: argparse.Namespace) -> Float[np.ndarray, "m d"]:
  """Return the features of the test images."""
  if options.test:
    return _read_features(Path(options.test).expanduser())
  from genbench_jax.benchmark.reader import open_split

  spec = dataset_spec(options.dataset)
  features, valid = _embedded(
    options, SplitImages(open_split(spec, "test", options.data_dir)), spec.resize
  )
  return features[valid.astype(bool)]


class _Entries:
  def __init__(self, entries: Sequence[Entry]) -> None:
    self.entries = entries

  def __len__(self) -> int:
    return len(self.entries)

  def __getitem__(self, index: int) -> bytes:
    try:
      return self.entries[index].place.read()
    except OSError:  # gone, or replaced by a link
      return b""


def _read_features(path: Path) -> Float[np.ndarray, "n d"]:
  from genbench_jax.retrieval.pool import mapped
  from genbench_jax.store import embedding_set

  if path.suffix == ".npy":
    return np.asarray(mapped(path), np.float32)
  if path.suffix == ".safetensors" and path.is_file():
    return embedding_set.load(path).readable().features
  raise UsageError(f"{path} is not a file of features: expected .npy or .safetensors.")


def _embedded(
  options: argparse.Namespace, images: Images, resize: Resize
) -> tuple[Float[np.ndarray, "n d"], np.ndarray]:
  from genbench_jax.embedding.embedder import ImageEmbedder
  from genbench_jax.embedding.stored import embed_stored
  from genbench_jax.models.image_encoder import load_image_encoder
  from genbench_jax.runtime.progress import Progress

  embedder = ImageEmbedder(load_image_encoder(options.checkpoint))
  with Progress("embed", len(images), "images") as progress:
    return embed_stored(embedder, images, range(len(images)), resize, progress, "embed")


if __name__ == "__main__":
  leave(main())
