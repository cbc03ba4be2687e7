"""The Hateful Memes Challenge, phase 1, images only."""

import json
from pathlib import Path

import tensorflow_datasets as tfds

from genbench_jax.benchmark.archives import Archive, members
from genbench_jax.benchmark.builders.base import (
  ArchiveBuilder,
  Examples,
  manual_folder,
  manual_path,
  named_images,
)
from genbench_jax.errors import RunError

# Test labels were never published, so the reference tests on dev_seen.
_LISTS = {"train": "train.jsonl", "test": "dev_seen.jsonl"}
_LABELS = {0: "not_hateful", 1: "hateful"}


class HatefulMemes(ArchiveBuilder):
  """`img/*.png`, `train.jsonl` and `dev_seen.jsonl`, as an archive or as a folder."""

  HOMEPAGE = "https://ai.meta.com/tools/hatefulmemes/"
  DESCRIPTION = "Memes, hateful or not. Their text is used only as part of the image."
  CITATION = "Kiela et al., The Hateful Memes Challenge, arXiv:2005.04790, 2020"
  ARCHIVES = (Archive("hateful_memes.zip"),)

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
    path = manual_path(dl_manager, "hateful_memes.zip") or manual_path(dl_manager, "hateful_memes")
    if path is None:
      raise RunError(
        f"'hateful_memes.zip' (or the folder 'hateful_memes') is missing in {manual_folder(dl_manager)}"
        f". Accept the license at {self.HOMEPAGE} and put it there."
      )
    wanted = set(_LISTS.values())
    found = members(path, lambda name: name.name in wanted)
    texts = {name.name: content.decode() for name, content in found}
    if missing := wanted - texts.keys():
      raise RunError(f"{path} lacks {', '.join(sorted(missing))}.")
    return {
      split: named_images(path, "img", _labels(texts[name], path)) for split, name in _LISTS.items()
    }


def _labels(text: str, path: Path) -> dict[str, str]:
  """Return file name -> label, from one JSON object per line with `img` and `label`."""
  labels = {}
  for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
    try:
      record = json.loads(line)
      labels[record["img"].removeprefix("img/")] = _LABELS[record["label"]]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
      raise RunError(
        f"line {number} of a list in {path} differs from the published file: {line[:80]!r}."
      ) from error
  return labels
