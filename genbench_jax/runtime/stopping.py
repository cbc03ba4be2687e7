"""Ordered end of the work on SIGTERM and Ctrl-C, with a message.

A handler that raises is not enough. Python cannot propagate an exception raised inside a callback
of the garbage collector (JAX has one) or a destructor: it prints "Exception ignored" and continues,
and the signal is lost. The handler therefore only sets a flag, and the work checks the flag
(`look`) between two units of work: images of a batch, shards, cells, stages. A thread ends the
process if the work does not check in time, as during a long compilation. Files are complete or
absent at any time.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

# Exit status of a process that ended by SIGTERM; Slurm, Kubernetes and the launch scripts interpret
# it as `preempted`.
STATUS = 143
STATUSES: dict[int, int] = {signal.SIGTERM: STATUS, signal.SIGINT: 130}
# A preempted machine has 30 seconds. At most 25 pass from the signal to the end of the process,
# also on a busy machine. Incomplete files are dropped.
GRACE_SECONDS = 18.0
# A terminal and a parent may both send the same Ctrl-C. A signal after this time is a second one
# and ends the process at once.
SAME_SECONDS = 0.5


class StopSignal(BaseException):
  """A signal has requested the end. It is not an error, so error handlers must not catch it."""

  def __init__(self, number: int = signal.SIGTERM) -> None:
    super().__init__(words(number))
    self.number = number

  @property
  def status(self) -> int:
    """The exit status of the process."""
    return STATUSES.get(self.number, 1)


class _Note:
  """The signal that has arrived, or 0. Handlers write it, the work reads it."""

  number = 0
  wanted = False  # whether `StopSignal` will be caught
  error: Exception | None = None  # error found by a thread that ends the work


def words(number: int) -> str:
  """Return the last message of a process that a signal has stopped."""
  name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
  kept = "Complete files are kept: run the same command to resume."
  return f"stopped by {name}. {kept} Status {STATUSES.get(number, 1)}."


def look() -> None:
  """Raise if a signal has requested the end. Call this between two units of work.

  Raises:
    StopSignal: a signal has arrived. Raised only in the main thread, at each call until the block
      is left.
    Exception: the error given to `fail_at_next_look`.
  """
  if threading.current_thread() is not threading.main_thread():
    return
  if _Note.number and _Note.wanted:
    raise StopSignal(_Note.number)
  if _Note.error:
    error, _Note.error = _Note.error, None
    raise error


def fail_at_next_look(error: Exception) -> None:
  """End the work with an error that a thread has found, when the main thread next calls `look`."""
  _Note.error = error


@contextlib.contextmanager
def stops_on_signals(grace: float = GRACE_SECONDS) -> Iterator[None]:
  """End the block with `StopSignal` on SIGTERM and Ctrl-C, or the process after the grace period.

  A thread reads the signals. It ends the process when the grace period is over, or at a second
  Ctrl-C. The period continues after the block until the process has ended, so it includes cleanup.

  Args:
    grace: seconds from the first signal to the end of the process.

  Raises:
    StopSignal: a signal has arrived during the block, even if no code in it called `look`.
  """
  if threading.current_thread() is not threading.main_thread() or _Note.wanted:
    yield  # only the main thread's outermost block handles signals
    return
  reader, writer = socket.socketpair()
  writer.setblocking(False)
  # The thread keeps both ends: an unreferenced end would be closed, which would end the process
  # before its cleanup.
  watch = threading.Thread(target=_watch, args=(reader, writer, grace), name="signals", daemon=True)
  watch.start()
  # A process started in the background must ignore Ctrl-C.
  obeyed = [n for n in STATUSES if n != signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]
  handlers = {number: signal.signal(number, _note) for number in obeyed}
  wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
  _Note.wanted = True
  try:
    yield
    look()
  finally:
    _Note.wanted = False
    if not _Note.number:
      signal.set_wakeup_fd(wakeup)
      for number, handler in handlers.items():
        signal.signal(number, handler)
      writer.close()
      watch.join()
      reader.close()


def _note(number: int, frame: FrameType | None) -> None:
  _Note.number = _Note.number or number


def _watch(reader: socket.socket, writer: socket.socket, grace: float) -> None:
  """Read signal numbers until the other end is closed; after the first, only for the grace period."""
  first, began = 0, 0.0
  try:
    while number := reader.recv(1):
      if number[0] not in STATUSES:
        continue
      now = time.monotonic()
      if not first:
        first, began = number[0], now
        # Python runs handlers between two instructions; the flag must not wait for a compilation to
        # end.
        _Note.number = _Note.number or first
      elif number[0] == signal.SIGINT and now - began > SAME_SECONDS:
        break
      reader.settimeout(max(0.001, began + grace - now))
    if not first:
      return
  except TimeoutError:
    pass
  _write_words(first)
  end_process(STATUSES[signal.Signals(first)])


def _write_words(number: int) -> None:
  """Print the last message without Python's buffers and locks; never block.

  The main thread may hold the locks.
  """
  try:
    if select.select([], [2], [], 1.0)[1]:
      os.write(2, f"{words(number)}\n".encode())
  except OSError:
    pass  # the reader is gone


def end_process(status: int) -> NoReturn:
  """End the process now, with the worker processes that it started, which would wait forever."""
  if "multiprocessing.process" in sys.modules:
    from multiprocessing import active_children

    for child in active_children():
      child.kill()
  os._exit(status)


def leave(status: int) -> NoReturn:
  """Exit with a status. After a signal, nothing at exit may delay the end."""
  if not _Note.number:
    sys.exit(status)
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):  # the reader is gone
      stream.flush()
  end_process(status)
