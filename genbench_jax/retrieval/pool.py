"""Pools of embeddings on disk: shards of features with metadata, in the layout of clip-retrieval.

  pool/img_emb/img_emb_0.npy     image features, one row per image
  pool/text_emb/text_emb_0.npy   features of the captions, in the same rows
  pool/metadata/metadata_0.parquet

The folder names of LAION-400M, `images/` and `texts/`, also work; a folder with only `.npy` files
is a pool without metadata. Rows are numbered over the shards in name order. Features and metadata
are paired by the numbers in their file names. Data are read on demand.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Int

from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.npz import NPY_DAMAGE
from genbench_jax.runtime.printable import listed
from genbench_jax.store import files
from genbench_jax.store.image_files import visible

Modality = Literal["image", "text"]
FOLDERS: dict[Modality, tuple[str, ...]] = {
  "image": ("img_emb", "images"),
  "text": ("text_emb", "texts"),
}
METADATA = "metadata"
MANIFEST = "pool.json"


@dataclasses.dataclass(frozen=True)
class Shard:
  """One file of features; it holds the pool's rows from `start` on."""

  path: Path
  start: int
  rows: int
  width: int

  def read(self, begin: int, end: int) -> Float[np.ndarray, "n d"]:
    """Return rows `begin` to `end` of the shard. The file is mapped only during the call."""
    return np.array(mapped(self.path)[begin:end])


@dataclasses.dataclass(frozen=True)
class Pool:
  """Embedding shards on disk.

  Attributes:
    folder: folder of the pool.
    shards: shards of each modality, in name order; all modalities have the same rows.
    tables: metadata files, one per shard; empty if there is no metadata.
  """

  folder: Path
  shards: dict[Modality, tuple[Shard, ...]]
  tables: tuple[Path, ...]

  def __len__(self) -> int:
    last = next(iter(self.shards.values()))[-1]
    return last.start + last.rows

  @property
  def width(self) -> int:
    return next(iter(self.shards.values()))[0].width

  @functools.cached_property
  def manifest(self) -> dict[str, Any]:
    """What `genbench embed` wrote about the pool; empty for pools made elsewhere.

    Raises:
      RunError: it is damaged.
    """
    path = self.folder / MANIFEST
    if path.is_symlink() and not path.exists():
      raise RunError(f"{path} is a broken link: copy the pool again.")
    found = files.read_json(path) if path.exists() else {}
    if not isinstance(found, dict):
      raise RunError(f"{path} is damaged: it is not a JSON object.")
    return found

  def content_files(self) -> list[Path]:
    """Return all files that determine retrieval results: features, metadata and manifest."""
    shards = [shard.path for shards in self.shards.values() for shard in shards]
    manifest = self.folder / MANIFEST
    return [*shards, *self.tables, *([manifest] if manifest.exists() else [])]

  def of(self, modality: Modality) -> tuple[Shard, ...]:
    """Return the shards of a modality.

    Raises:
      UsageError: the pool does not have the modality.
    """
    if modality not in self.shards:
      raise UsageError(
        f"{self.folder} has no {modality} features, expected {self.folder / FOLDERS[modality][0]}."
      )
    return self.shards[modality]

  def blocks(self, modality: Modality, rows: int) -> Iterator[Float[np.ndarray, "n d"]]:
    """Yield all rows in order, in blocks of `rows` that may span shards; the last may be small."""
    # Blocks span shards, so that their size, and with it the compiled program, is always the same.
    parts: list[Float[np.ndarray, "n d"]] = []
    missing = rows
    for shard in self.of(modality):
      begin = 0
      while begin < shard.rows:
        parts.append(shard.read(begin, min(begin + missing, shard.rows)))
        begin += len(parts[-1])
        missing -= len(parts[-1])
        if not missing:
          yield np.concatenate(parts) if len(parts) > 1 else parts[0]
          parts, missing = [], rows
    if parts:
      yield np.concatenate(parts)

  def features(self, modality: Modality, rows: Int[np.ndarray, "m"]) -> Float32[np.ndarray, "m d"]:
    """Return the features of the given rows."""
    found = np.empty((len(rows), self.width), np.float32)
    for shard in self.of(modality):
      inside = np.flatnonzero((rows >= shard.start) & (rows < shard.start + shard.rows))
      if len(inside):
        # Fancy indexing of a memory map reads only these rows.
        found[inside] = mapped(shard.path)[rows[inside] - shard.start]
    return found

  def metadata(self, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return the metadata of the given rows, by row.

    Raises:
      UsageError: the pool has no metadata.
      RunError: a table cannot be read, or does not have one line per row of its shard.
    """
    if not self.tables:
      raise UsageError(
        f"{self.folder} has no metadata, expected {self.folder / METADATA}/*.parquet."
      )
    shards = next(iter(self.shards.values()))
    found: dict[int, dict[str, Any]] = {}
    for shard, path in zip(shards, self.tables, strict=True):
      if inside := sorted({row for row in rows if 0 <= row - shard.start < shard.rows}):
        lines = _table_lines(path, [row - shard.start for row in inside], shard.rows)
        found.update(zip(inside, lines, strict=True))
    return found


def open_pool(folder: str | Path) -> Pool:
  """Open a pool and check that its files fit together.

  Raises:
    UsageError: there is no pool, a file is not a float16 or float32 matrix, or the shards do not
      match.
  """
  root = Path(folder).expanduser()
  if not root.is_dir():
    raise UsageError(f"there is no pool {str(folder)!r}: expected a folder of .npy shards.")
  shards: dict[Modality, tuple[Shard, ...]] = {}
  for modality, names in FOLDERS.items():
    paths = next((found for name in names if (found := visible(root / name, "*.npy"))), [])
    if paths:
      shards[modality] = _shards(paths)
  if not shards and (paths := visible(root, "*.npy")):
    shards["image"] = _shards(paths)
  if not shards:
    raise UsageError(
      f"{root} holds no .npy shards, nor do {root / 'img_emb'} or {root / 'text_emb'}."
    )
  tables = visible(root / METADATA, "*.parquet")
  paths = [shard.path for shard in next(iter(shards.values()))]
  for modality in list(shards)[1:]:
    shards[modality] = _shards(_paired(root, paths, [shard.path for shard in shards[modality]]))
  _check_alike(root, shards)
  return Pool(root, shards, tuple(_paired(root, paths, tables)) if tables else ())


def _paired(root: Path, shards: Sequence[Path], others: Sequence[Path]) -> list[Path]:
  """Return the other files in the order of the shards, paired by the numbers in their names.

  Raises:
    UsageError: the numbers do not match, or are missing or repeated.
  """
  # A single pair without numbers, such as `images.npy` and `texts.npy`, cannot be mixed up.
  if len(shards) == len(others) == 1 and None in map(_number, (*shards, *others)):
    return list(others)
  ours, theirs = ({_number(path): path for path in paths} for paths in (shards, others))
  odd = sorted(set(ours) ^ set(theirs), key=str)
  if odd or len(ours) < len(shards) or len(theirs) < len(others):
    names = listed([str((ours.get(n) or theirs[n]).relative_to(root)) for n in odd]) or "several"
    raise UsageError(
      f"{root} has {len(shards)} files in {shards[0].parent.name} and {len(others)} in {others[0].parent.name}, which"
      f" can't be paired by the numbers in their names: {names} have no partner or share a number."
    )
  return [theirs[number] for number in ours]


def _number(path: Path) -> int | None:
  """Return the last number in a file's name; None if there is none."""
  numbers = re.findall(r"[0-9]+", path.stem)
  return int(numbers[-1]) if numbers else None


def _shards(paths: Sequence[Path]) -> tuple[Shard, ...]:
  shards: list[Shard] = []
  for path in paths:
    rows, width = mapped(path).shape
    if shards and width != shards[0].width:
      raise UsageError(f"{path} is {width} wide, but {shards[0].path.name} is {shards[0].width}.")
    shards.append(Shard(path, shards[-1].start + shards[-1].rows if shards else 0, rows, width))
  return tuple(shards)


def _check_alike(root: Path, shards: dict[Modality, tuple[Shard, ...]]) -> None:
  rows = {modality: [shard.rows for shard in found] for modality, found in shards.items()}
  widths = {found[0].width for found in shards.values()}
  if len(rows) == 2 and (rows["image"] != rows["text"] or len(widths) > 1):
    raise UsageError(
      f"the image and text shards of {root} don't match: {_counted(rows['image'])} and {_counted(rows['text'])}."
    )


def _counted(rows: Sequence[int]) -> str:
  return f"{len(rows)} shards of {sum(rows)} rows"


def mapped(path: Path) -> Float[np.ndarray, "n d"]:
  """Open a shard as a memory map, without pickle.

  Raises:
    UsageError: it is not a matrix of float16 or float32 rows, or is truncated.
  """
  try:
    if not path.is_file():  # opening a pipe would block forever
      raise OSError("not a regular file")
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
      raise ValueError("an archive of arrays")
  except NPY_DAMAGE as error:
    reason = " ".join(str(error).split())
    raise UsageError(f"{path} can't be read as an array of numbers: {reason}.") from error
  if array.ndim != 2 or array.dtype not in (np.float16, np.float32) or array.shape[1] == 0:
    raise UsageError(
      f"{path} is {array.dtype} {list(array.shape)}, expected float16 or float32 [rows, width]."
    )
  return array


def _table_lines(path: Path, lines: Sequence[int], total: int) -> list[dict[str, Any]]:
  """Return some lines of a metadata file, reading one row group at a time."""
  import pyarrow as pa
  from pyarrow import parquet

  found: list[dict[str, Any]] = []
  try:
    if not path.is_file():
      raise OSError("not a regular file")
    with parquet.ParquetFile(path) as table:
      if table.metadata.num_rows != total:
        raise RunError(f"{path} has {table.metadata.num_rows} lines for a shard of {total} rows.")
      start = 0
      for group in range(table.num_row_groups):
        size = table.metadata.row_group(group).num_rows
        if inside := [line - start for line in lines if 0 <= line - start < size]:
          found += table.read_row_group(group).take(inside).to_pylist()
        start += size
  except (pa.ArrowException, OSError, ValueError) as error:
    raise RunError(f"{path} can't be read as Parquet: {' '.join(str(error).split())}.") from error
  return found
