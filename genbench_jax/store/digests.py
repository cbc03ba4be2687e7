"""Digests of files, remembered until the file changes.

A file counts as unchanged if its size, modification time, change time and inode are the same as when it was
read. Programs cannot set the change time, so that replacing a file by one with the same size and
modification time is noticed. Files that changed just before they were read are not remembered: they could
change again within the resolution of the clock.
"""

import dataclasses
import functools
import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from genbench_jax.store import files
from genbench_jax.store.reading import opened_beneath, regular

# Coarser than the clock of every common file system, including FAT with its two seconds.
_RESOLUTION_NS = 2_000_000_000
_STEP = 1 << 20


@dataclasses.dataclass(frozen=True)
class FileDigest:
  """SHA-256 of a file's content, and the metadata that shows whether it changed."""

  sha256: str
  identity: tuple[int, ...]


class FileDigests:
  """Compute the SHA-256 of files, and remember them.

  Args:
    memory: JSON file with remembered digests; None to remember nothing.
    writes: whether to write new digests to it.
  """

  def __init__(self, memory: Path | None, writes: bool = True) -> None:
    self._memory, self._writes = memory, writes

  def of(self, places: Sequence[tuple[Path, str]]) -> list[str]:
    """Return the SHA-256 of each file, in order; an empty string for a file that can't be read.

    Args:
      places: (folder, path of a file below it) pairs; see `reading.read_beneath`.
    """
    keys = [_key(root, path) for root, path in places]
    known = self._known
    with ThreadPoolExecutor(os.cpu_count()) as pool:
      found = list(
        pool.map(lambda key, place: _digest(place[0], place[1], known.get(key)), keys, places)
      )
    self._remember(dict(zip(keys, found, strict=True)))
    return [digest.sha256 for digest in found]

  @functools.cached_property
  def _known(self) -> dict[str, FileDigest]:
    """Return the remembered digests; none if the memory can't be read."""
    try:
      stored = json.loads(regular(self._memory).read_bytes()) if self._memory else {}
      return {key: FileDigest(sha, tuple(identity)) for key, (sha, *identity) in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
      return {}

  def _remember(self, found: dict[str, FileDigest]) -> None:
    settled = {key: digest for key, digest in found.items() if _is_settled(digest.identity)}
    new = {key: digest for key, digest in settled.items() if self._known.get(key) != digest}
    if new and self._memory and self._writes:
      self._known.update(new)
      stored: dict[str, Any] = {k: [v.sha256, *v.identity] for k, v in self._known.items()}
      files.write_text(self._memory, json.dumps(stored, sort_keys=True))


def _key(root: Path, path: str) -> str:
  """Return a key for a path. Hashed, because file names may be any bytes and should not be disclosed."""
  return hashlib.sha256(os.fsencode(root.absolute() / path)).hexdigest()[:24]


def _digest(root: Path, path: str, known: FileDigest | None) -> FileDigest:
  """Return a file's digest. Metadata and content come from one descriptor, so that they belong together."""
  try:
    with opened_beneath(root, path) as descriptor:
      before = identity(os.fstat(descriptor))
      if known and known.identity == before:
        return known
      state = hashlib.sha256()
      while piece := os.read(descriptor, _STEP):
        state.update(piece)
      # A file that changed in the meantime is not cached.
      same = identity(os.fstat(descriptor)) == before
      return FileDigest(state.hexdigest(), before if same else ())
  except OSError:
    return FileDigest("", ())


def identity(about: os.stat_result) -> tuple[int, ...]:
  """Return the metadata of a file that change with its content."""
  return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


def _is_settled(identity: tuple[int, ...]) -> bool:
  return bool(identity) and time.time_ns() - max(identity[1:3]) > _RESOLUTION_NS
