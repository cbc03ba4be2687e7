"""Lock a work folder, so that only one run uses it at a time, with any number of processes."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.hosts import Hosts
from genbench_jax.runtime.printable import is_text, printable
from genbench_jax.store import files

ALONE = Hosts()


@contextlib.contextmanager
def locked(workdir: Path, hosts: Hosts = ALONE) -> Iterator[None]:
  """Hold the folder's lock for all processes of a run. The operating system releases it if a process dies.

  The first process holds it. The others check that they see the same folder.

  Raises:
    UsageError: the folder can't be created or written to, or another run holds the lock.
    RunError: the processes see different folders.
  """
  if not is_text(str(workdir)):
    raise UsageError(
      f"the path of the work folder {str(workdir)!r} is not UTF-8, which the libraries of image sets require. Rename it."
    )
  with _held(workdir) if hosts.is_first else contextlib.nullcontext():
    hosts.wait("the lock of the work folder")
    if hosts.count > 1:
      _refuse_different_folders(workdir, hosts)
    yield
    hosts.wait("the end")


def make_workdir(workdir: Path) -> None:
  """Create a work folder if it does not exist.

  Raises:
    UsageError: it can't be created.
  """
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise _unwritable(workdir, error) from error


def _unwritable(workdir: Path, error: OSError) -> UsageError:
  return UsageError(f"workdir {str(workdir)!r} can't be written to: {error.strerror or error}.")


@contextlib.contextmanager
def _held(workdir: Path) -> Iterator[None]:
  from filelock import FileLock, Timeout

  holder = workdir / ".holder"
  make_workdir(workdir)
  try:
    if (workdir / ".lock").is_symlink():
      raise UsageError(f"{workdir / '.lock'} is a link, which is not followed. Delete it.")
    lock = FileLock(workdir / ".lock", timeout=0)
    lock.acquire()
    files.write_text(holder, f"process {os.getpid()} on {socket.gethostname()}")
    files.remove_parts(workdir)
  except Timeout as error:
    who = (
      printable(holder.read_text(encoding="utf-8", errors="replace")[:100])
      if holder.is_file()
      else "another process"
    )
    raise UsageError(
      f"workdir {str(workdir)!r} is in use by another run ({who}). Wait for it, or give another --workdir."
    ) from error
  except RunError as error:  # raised when writing the holder's file
    raise UsageError(f"workdir {str(workdir)!r} can't be written to: {error}") from error
  except OSError as error:
    raise _unwritable(workdir, error) from error
  try:
    yield
  finally:
    lock.release()


def _refuse_different_folders(workdir: Path, hosts: Hosts) -> None:
  holder = workdir / ".holder"
  seen = hosts.gathered(
    [files.read_text(holder) if holder.exists() else ""], "a look at the work folder"
  )
  for number, text in enumerate(seen):
    if text != seen[0]:
      raise RunError(
        f"process {number} sees another folder at {str(workdir)!r} than process 0:"
        " --workdir must be on a file system that all hosts share."
      )
