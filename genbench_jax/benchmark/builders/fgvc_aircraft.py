"""FGVC-Aircraft 2013b, with 100 variants as classes."""

from pathlib import Path, PurePosixPath

import tensorflow_datasets as tfds

from genbench_jax.benchmark.archives import Archive, members
from genbench_jax.benchmark.builders.base import ArchiveBuilder, Examples, fetch, named_images
from genbench_jax.errors import RunError

_LISTS = {
  "train": "images_variant_train.txt",
  "validation": "images_variant_val.txt",
  "test": "images_variant_test.txt",
}


class FgvcAircraft(ArchiveBuilder):
  """`data/variants.txt`, `data/images_variant_{train,val,test}.txt` and `data/images/<id>.jpg`.

  The copyright line at the bottom of each image, 20 pixels high, is kept, as in the reference.
  """

  HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/"
  DESCRIPTION = "Photographs of aircraft of 100 variants."
  CITATION = "Maji et al., Fine-Grained Visual Classification of Aircraft, arXiv:1306.5151, 2013"
  ARCHIVES = (
    Archive(
      "fgvc-aircraft-2013b.tar.gz",
      "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
      "d4acdd33327262359767eeaa97a4f732",
    ),
  )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
    path = fetch(dl_manager, self.ARCHIVES[0])
    texts = _annotations(path)
    variants = set(texts["variants.txt"].splitlines())
    known = set(self.info.features["label"].names)
    if variants != known:
      raise RunError(
        f"{path} lists variants that differ from the official ones: {sorted(variants ^ known)[:3]}."
      )
    return {
      split: named_images(path, "images", _labels(texts[name])) for split, name in _LISTS.items()
    }


def _annotations(path: Path) -> dict[str, str]:
  wanted = {"variants.txt", *_LISTS.values()}

  def is_annotation(name: PurePosixPath) -> bool:
    return name.parent.name == "data" and name.name in wanted

  texts = {name.name: content.decode() for name, content in members(path, is_annotation)}
  if missing := wanted - texts.keys():
    raise RunError(f"{path} lacks data/{min(missing)}. Delete it and download it again.")
  return texts


def _labels(text: str) -> dict[str, str]:
  """Return file name -> variant, from lines of "<id> <variant with spaces>"."""
  pairs = (line.split(" ", 1) for line in text.splitlines() if line)
  return {f"{image}.jpg": variant for image, variant in pairs}
