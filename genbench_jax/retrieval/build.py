"""A pool from a collection of images: each part becomes a shard of image features, caption features and metadata.

A shard is sealed by a small file when it is whole; a build that was stopped goes on with the first part without its
seal. The manifest is written last.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32
from PIL import Image

from genbench_jax.clip.features import ImageEmbedder, TextEmbedder
from genbench_jax.clip.model import Clip
from genbench_jax.embedding import embed_stored
from genbench_jax.errors import UsageError
from genbench_jax.progress import Progress, say
from genbench_jax.retrieval.collection import Entry, Part
from genbench_jax.retrieval.pool import MANIFEST
from genbench_jax.store import files

NAMES = (("img_emb", "npy"), ("text_emb", "npy"), ("metadata", "parquet"))


def build_pool(
  parts: Sequence[Part], out: Path, clip: Clip, mesh: Mesh, batch_per_device: int = 64
) -> int:
  """Embeds the parts that are not yet in the pool and closes it; returns how many images were embedded.

  Raises:
    UsageError: the folder holds shards of a larger collection.
    RunError: a tar can't be read, or the disk is full.
  """
  if (out / _file("img_emb", len(parts), "npy")).exists():
    raise UsageError(f"{out} holds shards of a larger collection. Give another --out.")
  embedder = ImageEmbedder(clip, mesh, batch_per_device)
  done = 0
  for number, part in enumerate(parts):
    made_from = files.digest([part.fingerprint(), clip.fingerprint])
    if _is_sealed(out, number, made_from):
      continue
    what = f"embed {number + 1}/{len(parts)} {part.name}"
    done += _embed_part(out, number, part, made_from, embedder, TextEmbedder(clip, mesh), what)
  _close(out, parts, clip)
  return done


class _Hashed:
  """The images of entries; the checksum of each is kept when it is read."""

  def __init__(self, entries: Sequence[Entry]) -> None:
    self.entries = entries
    self.sha256 = [""] * len(entries)

  def __len__(self) -> int:
    return len(self.entries)

  def __getitem__(self, index: int) -> bytes | Image.Image:
    content = self.entries[index].place.read()
    self.sha256[index] = hashlib.sha256(content).hexdigest()
    return content


def _embed_part(
  out: Path,
  number: int,
  part: Part,
  made_from: str,
  embedder: ImageEmbedder,
  texts: TextEmbedder,
  what: str,
) -> int:
  """Writes a shard and its seal; returns how many images were tried."""
  entries, left_out = part.listing()
  images = _Hashed(entries)
  seal: dict[str, Any] = {"made_from": made_from, "left_out": left_out, "rows": 0, "captions": 0}
  valid = np.zeros(0, np.uint8)
  if entries:
    with Progress(what, len(entries), "images") as progress:
      features, valid = embed_stored(embedder, images, range(len(entries)), "crop", progress, what)
  if kept := np.flatnonzero(valid).tolist():
    lines = [_line(part, entries[row], images.sha256[row]) for row in kept]
    captions = [line["caption"] for line in lines]
    seal |= {"rows": len(kept), "captions": sum(map(bool, captions))}
    _save(out / _file("img_emb", number, "npy"), _unit_rows(features[kept]))
    _save(out / _file("text_emb", number, "npy"), _caption_features(texts, captions))
    _write_table(out / _file("metadata", number, "parquet"), lines)
    seal["sha256"] = {
      name: files.sha256(out / _file(name, number, suffix)) for name, suffix in NAMES
    }
  seal["unreadable"] = len(entries) - len(kept)
  files.write_json(_seal_path(out, number), seal)
  return len(entries)


def _line(part: Part, entry: Entry, sha256: str) -> dict[str, Any]:
  """The metadata of a row."""
  place = entry.place
  return {
    "image_path": entry.name,
    "caption": entry.caption,
    "url": entry.url,
    "sha256": sha256,
    "tar": part.name if part.is_tar else "",
    "offset": place.offset,
    "size": place.size,
  }


def _caption_features(
  embedder: TextEmbedder, captions: Sequence[str]
) -> Float32[np.ndarray, "n d"]:
  """Unit-norm features, zero where there is no caption."""
  features = np.array(embedder([caption or " " for caption in captions]))
  features[[not caption for caption in captions]] = 0
  return _unit_rows(features)


def _unit_rows(features: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
  length = np.linalg.norm(features, axis=1, keepdims=True)
  return features / np.where(length > 0, length, 1)


def _save(path: Path, features: Float32[np.ndarray, "n d"]) -> None:
  with files.atomic_path(path) as temporary, temporary.open("wb") as file:
    np.save(file, features.astype(np.float16), allow_pickle=False)


def _write_table(path: Path, lines: Sequence[dict[str, Any]]) -> None:
  import pyarrow as pa
  from pyarrow import parquet

  with files.atomic_path(path) as temporary:
    parquet.write_table(pa.Table.from_pylist(list(lines)), temporary)


def _is_sealed(out: Path, number: int, made_from: str) -> bool:
  """Whether a shard is whole and made from the same images by the same encoder."""
  path = _seal_path(out, number)
  if not path.exists():
    return False
  seal = files.read_json(path)
  paths = {name: out / _file(name, number, suffix) for name, suffix in NAMES}
  return seal["made_from"] == made_from and all(
    paths[name].exists() and files.sha256(paths[name]) == found
    for name, found in seal.get("sha256", {}).items()
  )


def _close(out: Path, parts: Sequence[Part], clip: Clip) -> None:
  """Writes the manifest."""
  seals = [files.read_json(_seal_path(out, number)) for number in range(len(parts))]
  total = {
    key: sum(seal[key] for seal in seals) for key in ("rows", "captions", "left_out", "unreadable")
  }
  if not total["rows"]:
    raise UsageError(f"none of the images of {parts[0].root} can be read: the pool is empty.")
  manifest = {"collection": str(parts[0].root.resolve()), "clip": clip.fingerprint, **total}
  files.write_json(out / MANIFEST, manifest)
  say(
    f"{out}: {total['rows']} images, {total['captions']} with a caption; {total['unreadable']} could not"
    f" be read, {total['left_out']} were left out (links, names that climb out, doubles, too large)"
  )


def _file(name: str, number: int, suffix: str) -> str:
  return f"{name}/{name}_{number:05d}.{suffix}"


def _seal_path(out: Path, number: int) -> Path:
  return out / "seals" / f"{number:05d}.json"
