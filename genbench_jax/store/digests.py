"""Digests of files, remembered for as long as a file is the one that was read.

A file counts as unchanged while its size, its times of modification and of change, and its inode are those of the time it
was read. The time of change can't be set by a program, so that a file put in place of another with its size and its time of
modification is noticed. A file that changed a moment before it was read is not remembered: within the resolution of the clock
it could change again unnoticed.
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
from genbench_jax.store.reading import opened_beneath

# Coarser than the clock of any file system in use, FAT's two seconds included.
_RESOLUTION_NS = 2_000_000_000
_STEP = 1 << 20


@dataclasses.dataclass(frozen=True)
class FileDigest:
  """The content of a file, and what its file system says of it."""

  sha256: str
  identity: tuple[int, ...]


class FileDigests:
  """SHA-256 of files by their place.

  Args:
    memory: the JSON file in which digests are remembered; None remembers nothing.
    writes: whether what is new may be written there.
  """

  def __init__(self, memory: Path | None, writes: bool = True) -> None:
    self._memory, self._writes = memory, writes

  def of(self, places: Sequence[tuple[Path, str]]) -> list[str]:
    """Return the SHA-256 of each file, in the order given; empty for one that can't be read.

    Args:
      places: a folder, and the path of a file below it; see `reading.read_beneath`.
    """
    keys = [_key(root, path) for root, path in places]
    known = self._known
    with ThreadPoolExecutor(os.cpu_count()) as pool:
      found = list(
        pool.map(lambda key, place: _digest(place[0], place[1], known.get(key)), keys, places)
      )
    self._remember(dict(zip(keys, found, strict=True)))
    return [one.sha256 for one in found]

  @functools.cached_property
  def _known(self) -> dict[str, FileDigest]:
    """What is remembered. A memory that can't be read is as good as none."""
    try:
      stored = json.loads(self._memory.read_bytes()) if self._memory else {}
      return {key: FileDigest(sha, tuple(identity)) for key, (sha, *identity) in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
      return {}

  def _remember(self, found: dict[str, FileDigest]) -> None:
    settled = {key: one for key, one in found.items() if _is_settled(one.identity)}
    new = {key: one for key, one in settled.items() if self._known.get(key) != one}
    if new and self._memory and self._writes:
      self._known.update(new)
      stored: dict[str, Any] = {k: [v.sha256, *v.identity] for k, v in self._known.items()}
      files.write_text(self._memory, json.dumps(stored, sort_keys=True))


def _key(root: Path, path: str) -> str:
  """What stands for a place: names of any bytes, and none of them told."""
  return hashlib.sha256(os.fsencode(root.absolute() / path)).hexdigest()[:24]


def _digest(root: Path, path: str, known: FileDigest | None) -> FileDigest:
  """Identity and content are taken of one descriptor, so that both are of the same file."""
  try:
    with opened_beneath(root, path) as descriptor:
      before = _identity(descriptor)
      if known and known.identity == before:
        return known
      state = hashlib.sha256()
      while piece := os.read(descriptor, _STEP):
        state.update(piece)
      # Of a file that is written to meanwhile nothing is remembered.
      same = _identity(descriptor) == before
      return FileDigest(state.hexdigest(), before if same else ())
  except OSError:
    return FileDigest("", ())


def _identity(descriptor: int) -> tuple[int, ...]:
  about = os.fstat(descriptor)
  return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


def _is_settled(identity: tuple[int, ...]) -> bool:
  return bool(identity) and time.time_ns() - max(identity[1:3]) > _RESOLUTION_NS
