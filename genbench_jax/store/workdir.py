"""One run at a time on a work folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from genbench_jax.errors import UsageError


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
  """Holds the folder's lock; the operating system frees it however the process ends.

  Raises:
    UsageError: the folder can't be made or written to, or another run holds it.
  """
  from filelock import FileLock, Timeout

  holder = workdir / ".holder"
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(workdir / ".lock", timeout=0)
    lock.acquire()
    holder.write_text(f"process {os.getpid()}", encoding="utf-8")
  except Timeout as error:
    who = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
    raise UsageError(
      f"workdir {str(workdir)!r} is in use by another run ({who}). Wait for it, or give another --workdir."
    ) from error
  except OSError as error:
    raise UsageError(f"workdir {str(workdir)!r} can't be written to: {error.strerror}.") from error
  try:
    yield
  finally:
    lock.release()
