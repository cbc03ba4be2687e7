"""The files in an archive, and those that are skipped."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from genbench_jax.runtime.printable import listed

# Reason -> names of members that are skipped.
PassedOver: TypeAlias = dict[str, list[str]]


class Member(NamedTuple):
  """A file in an archive.

  Attributes:
    name: path inside the archive.
    archive: path of the archive.
    size: size in bytes.
    read: returns the content.
  """

  name: str
  archive: Path
  size: int
  read: Callable[[], bytes]


def notes_on(passed: Mapping[str, Sequence[str]]) -> Iterator[str]:
  """Yield a sentence for each reason for skipping members."""
  for why, names in passed.items():
    yield f"{len(names)} left out, {why}: {listed(names)}."
