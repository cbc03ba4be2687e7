"""Builds a pool from a collection of images: each part becomes a shard of features and metadata.

A finished shard is sealed by a small file. A stopped build resumes at the first part without a
seal. The manifest is written last.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32
from PIL import Image

from genbench_jax.embedding.embedder import ImageEmbedder, TextEmbedder
from genbench_jax.embedding.stored import embed_stored
from genbench_jax.errors import RunError, UsageError
from genbench_jax.models.image_encoder import TextEncoder
from genbench_jax.retrieval.collection import IMAGE_FEATURES, TEXT_FEATURES, Part
from genbench_jax.retrieval.images import remember_collection
from genbench_jax.retrieval.place import Entry
from genbench_jax.retrieval.pool import MANIFEST
from genbench_jax.retrieval.records import RecordFile, text_of
from genbench_jax.runtime.printable import is_text
from genbench_jax.runtime.progress import Progress, say
from genbench_jax.store import files
from genbench_jax.store.versions import VERSIONS

# Records that are parsed at once, to bound the memory.
_RECORDS = 1024
NAMES = (("img_emb", "npy"), ("text_emb", "npy"), ("metadata", "parquet"))


class _Shard(NamedTuple):
  """Content of a shard, and how many images are not in it.

  Attributes:
    image_features, text_features: not normalized; zero where there is no caption.
    lines: metadata.
    left_out, unreadable: numbers of images that are not in the shard.
  """

  image_features: Float32[np.ndarray, "n d"]
  text_features: Float32[np.ndarray, "n d"]
  lines: list[dict[str, Any]]
  left_out: int = 0
  unreadable: int = 0


def build_pool(
  parts: Sequence[Part],
  out: Path,
  encoder: TextEncoder | None,
  mesh: Mesh,
  batch_per_device: int = 64,
) -> int:
  """Build the missing shards of a pool and write its manifest.

  Args:
    parts: parts of the collection.
    out: folder of the pool.
    encoder: embeds images and captions; None for parts that hold features.
    mesh: devices to compute on.
    batch_per_device: images per device and batch.

  Returns:
    The number of images that were processed.

  Raises:
    UsageError: the folder holds shards of a larger collection, or no image is readable.
    RunError: a file cannot be read, or the disk is full.
  """
  if not is_text(str(out)):
    raise UsageError(f"the path of the pool {str(out)!r} is not UTF-8, which Parquet requires.")
  if (out / shard_file("img_emb", len(parts), "npy")).exists():
    raise UsageError(f"{out} holds shards of a larger collection: give another --out.")
  make: Callable[[Part, str], _Shard] = _copied
  if encoder is not None:
    embedders = ImageEmbedder(encoder, mesh, batch_per_device), TextEmbedder(encoder, mesh)
    make = functools.partial(_embedded, *embedders)
  done = 0
  for number, part in enumerate(parts):
    made_from = files.digest(
      [part.fingerprint(), *([encoder.fingerprint, VERSIONS["embed"]] if encoder else [""])]
    )
    if _is_sealed(out, number, made_from):
      continue
    shard = make(part, f"{'embed' if encoder else 'copy'} {number + 1}/{len(parts)} {part.name}")
    _write_shard(out, number, made_from, shard)
    done += len(shard.lines) + shard.unreadable
  _close(out, parts, encoder)
  return done


class _HashingReader:
  """Reads the images of entries and keeps the checksum of each."""

  def __init__(self, entries: Sequence[Entry]) -> None:
    self.entries = entries
    self.sha256 = [""] * len(entries)

  def __len__(self) -> int:
    return len(self.entries)

  def __getitem__(self, index: int) -> bytes | Image.Image:
    content = self.entries[index].place.read()
    self.sha256[index] = hashlib.sha256(content).hexdigest()
    return content


def _embedded(images: ImageEmbedder, texts: TextEmbedder, part: Part, what: str) -> _Shard:
  """Return a shard with embedded images and captions."""
  entries, left_out = part.listing()
  hashed = _HashingReader(entries)
  features, valid = np.zeros((0, 0), np.float32), np.zeros(0, np.uint8)
  if entries:
    with Progress(what, len(entries), "images") as progress:
      features, valid = embed_stored(images, hashed, range(len(entries)), "crop", progress, what)
  kept = np.flatnonzero(valid).tolist()
  # Unreadable images get no row, so that features and metadata stay aligned.
  lines = [_line(part, entries[row], hashed.sha256[row]) for row in kept]
  captions = _caption_features(texts, [line["caption"] for line in lines])
  return _Shard(features[kept], captions, lines, left_out, len(entries) - len(kept))


def _copied(part: Part, what: str) -> _Shard:
  """Return a shard with the features that a dataset provides."""
  file = RecordFile(part.files[0])
  image_rows: list[np.ndarray] = []
  text_rows: list[np.ndarray] = []
  lines = []
  with Progress(what, len(file), "images") as progress:
    for start in range(0, len(file), _RECORDS):
      records = file.read(range(start, min(start + _RECORDS, len(file))))
      image_rows += [np.asarray(record[IMAGE_FEATURES], np.float16) for record in records]
      text_rows += [np.asarray(record[TEXT_FEATURES], np.float16) for record in records]
      lines += [{name: text_of(record, name) for name in ("caption", "url")} for record in records]
      progress.advance(len(records))
  image, text = (np.asarray(rows, np.float32) for rows in (image_rows, text_rows))
  return _Shard(image, text, lines)


def _write_shard(out: Path, number: int, made_from: str, shard: _Shard) -> None:
  """Write the files of a shard, then its seal; an empty shard has only a seal."""
  captions = sum(bool(line["caption"]) for line in shard.lines)
  seal: dict[str, Any] = {"made_from": made_from, "rows": len(shard.lines), "captions": captions}
  seal |= {"left_out": shard.left_out, "unreadable": shard.unreadable}
  if shard.lines:
    _save(out / shard_file("img_emb", number, "npy"), _unit_rows(shard.image_features))
    _save(out / shard_file("text_emb", number, "npy"), _unit_rows(shard.text_features))
    _write_table(out / shard_file("metadata", number, "parquet"), shard.lines)
    seal["sha256"] = {
      name: files.sha256(out / shard_file(name, number, suffix)) for name, suffix in NAMES
    }
  files.write_json(_seal_path(out, number), seal)


def _line(part: Part, entry: Entry, sha256: str) -> dict[str, Any]:
  """Return the metadata of a row."""
  place = entry.place
  return {
    "image_path": entry.name,
    "caption": entry.caption,
    "url": entry.url,
    "sha256": sha256,
    "tar": "" if part.kind == "images" else part.name,
    "offset": place.offset,
    "size": place.size,
  }


def _caption_features(
  embedder: TextEmbedder, captions: Sequence[str]
) -> Float32[np.ndarray, "n d"]:
  """Return the features of the captions; zero where there is none."""
  if not captions:
    return np.zeros((0, 0), np.float32)
  # The tokenizer needs a text; the features of these placeholders are replaced by zeros.
  features = np.array(embedder([caption or " " for caption in captions]))
  features[[not caption for caption in captions]] = 0
  return features


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
  """Return whether a shard is complete and was made from the same images by the same encoder."""
  paths = {name: out / shard_file(name, number, suffix) for name, suffix in NAMES}
  try:
    seal = files.read_json(_seal_path(out, number))
    return seal["made_from"] == made_from and all(
      files.sha256(paths[name]) == found for name, found in seal.get("sha256", {}).items()
    )
  except (OSError, RunError, LookupError, TypeError, AttributeError):
    return False  # none, damaged, or of files that are gone: the shard is made again


def _close(out: Path, parts: Sequence[Part], encoder: TextEncoder | None) -> None:
  """Write the manifest."""
  seals = [files.read_json(_seal_path(out, number)) for number in range(len(parts))]
  total = {
    key: sum(seal[key] for seal in seals) for key in ("rows", "captions", "left_out", "unreadable")
  }
  if not total["rows"]:
    raise UsageError(f"none of the images of {parts[0].root} can be read: the pool is empty.")
  made_by = (
    {
      "clip": encoder.fingerprint,
      "version": VERSIONS["embed"],
      "collection": _place_of(parts[0].root, out),
    }
    if encoder
    else {}
  )
  manifest = made_by | total
  files.write_json(out / MANIFEST, manifest)
  if encoder:
    remember_collection(out, parts[0].root)
  say(
    f"{out}: {total['rows']} images, {total['captions']} with a caption; {total['unreadable']} could not"
    f" be read, {total['left_out']} were left out (links, names that climb out, duplicates, too large)"
  )


def _place_of(collection: Path, out: Path) -> str:
  """Return where the images are, as the manifest records it; relative if inside the pool."""
  root, pool = collection.resolve(), out.resolve()
  return root.relative_to(pool).as_posix() if root.is_relative_to(pool) else str(root)


def shard_file(name: str, number: int, suffix: str) -> str:
  """Return the path of a shard's file inside the pool.

  Args:
    name: what the file contains.
    number: number of the shard.
    suffix: suffix of the file.
  """
  return f"{name}/{name}_{number:05d}.{suffix}"


def _seal_path(out: Path, number: int) -> Path:
  return out / "seals" / f"{number:05d}.json"
