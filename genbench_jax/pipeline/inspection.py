"""State of a verification: the files that belong to artifacts, and the faults."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from genbench_jax.errors import RunError, UsageError

DAMAGED, MISSING, ORPHANED = "damaged", "missing", "orphaned"
RUN_AGAIN = "delete it and run the same command again"
NOT_NEEDED = "no run wrote or needs it: delete it if it is not yours"


@dataclasses.dataclass(frozen=True)
class Fault:
  """A file that differs from what was written.

  Attributes:
    path: path inside the work folder.
    kind: `damaged`, `missing` or `orphaned`.
    why: what was found.
    advice: what to do.
  """

  path: str
  kind: str
  why: str
  advice: str


@dataclasses.dataclass(frozen=True)
class VerificationResult:
  """Number of checked files of each kind, and the faults."""

  counts: dict[str, int]
  faults: tuple[Fault, ...]


class Inspection:
  """State of a verification: the files that belong to artifacts, and the faults.

  Args:
    workdir: the folder.
    advance: callback after each file.
  """

  def __init__(self, workdir: Path, advance: Callable[[int], None]) -> None:
    self.workdir, self._advance = workdir, advance
    self.known: set[Path] = set()
    self.counts: dict[str, int] = {}
    self.faults: list[Fault] = []

  def saw(self, kind: str, *paths: Path) -> None:
    """Record files that belong to the work folder."""
    self.known.update(paths)
    self.counts[kind] = self.counts.get(kind, 0) + 1
    self._advance(1)

  def fault(self, path: Path, kind: str, why: str, advice: str = RUN_AGAIN) -> None:
    """Record a fault.

    Args:
      path: path inside the work folder.
      kind: `damaged`, `missing` or `orphaned`.
      why: what was found.
      advice: what to do.
    """
    self.faults.append(Fault(self._name(path), kind, why, advice))

  @contextlib.contextmanager
  def noting(self, path: Path, advice: str = RUN_AGAIN) -> Iterator[None]:
    """Record any error raised while a file is read, and continue."""
    try:
      yield
    except (RunError, UsageError, OSError) as error:
      self.fault(path, DAMAGED, _short(error, self.workdir), advice)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
      self.fault(path, DAMAGED, f"unexpected content ({type(error).__name__})", advice)

  def _name(self, path: Path) -> str:
    return path.relative_to(self.workdir).as_posix()


def _short(error: Exception, workdir: Path) -> str:
  """Return an error's first sentence without the work folder's path."""
  message = " ".join(str(error).split()).replace(f"{workdir}/", "")
  return message[:300]
