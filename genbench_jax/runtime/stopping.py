"""SIGTERM and Ctrl-C: the work ends in time, by itself, and says so.

A handler that raises is not enough. Python can't pass on what is raised inside a callback of the garbage collector (JAX
has one) or a destructor: it prints "Exception ignored" and goes on, and the signal is lost. So the handler only notes the
signal, and the work looks at the note (`look`) between two pieces: images of a batch, shards, cells, stages. Work that
does not look in time, such as a long compilation, is ended from a thread. Files are whole or absent whenever that is.
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

# What shells call a process that ended by SIGTERM; Slurm, Kubernetes and the launch scripts know it as `preempted`.
STATUS = 143
STATUSES: dict[int, int] = {signal.SIGTERM: STATUS, signal.SIGINT: 130}
# A machine that is taken away has 30 seconds. From the signal to the end of the process no more than 25 pass, on a busy
# machine too; what is half written by then is dropped.
GRACE_SECONDS = 18.0
# A terminal and a parent may both pass on the same Ctrl-C; later than this it is a second one, and ends at once.
SAME_SECONDS = 0.5


class StopSignal(BaseException):
  """A signal has asked for the end. Not an error: nothing that handles errors may swallow it."""

  def __init__(self, number: int = signal.SIGTERM) -> None:
    super().__init__(words(number))
    self.number = number

  @property
  def status(self) -> int:
    """The exit status of the process."""
    return STATUSES.get(self.number, 1)


class _Note:
  """Which signal has come, if any; 0 before. Handlers write it, the work reads it."""

  number = 0
  wanted = False  # whether somebody is there to catch `StopSignal`
  error: Exception | None = None  # what a thread has found that ends the work


def words(number: int) -> str:
  """What is said at the end of a process that a signal has stopped."""
  name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
  kept = "What is complete is kept: the same command goes on from there."
  return f"stopped by {name}. {kept} Status {STATUSES.get(number, 1)}."


def look() -> None:
  """End the work here if a signal has asked for it. To be called between two pieces of work.

  Raises:
    StopSignal: a signal has come. In the main thread alone, and again at each look until the block is left.
    Exception: what `fail_at_next_look` was given.
  """
  if threading.current_thread() is not threading.main_thread():
    return
  if _Note.number and _Note.wanted:
    raise StopSignal(_Note.number)
  if _Note.error:
    error, _Note.error = _Note.error, None
    raise error


def fail_at_next_look(error: Exception) -> None:
  """Have the work end by an error that a thread has found, at the main thread's next look."""
  _Note.error = error


def is_asked_to_stop() -> bool:
  """Whether a signal has come: for loops in threads, which `look` leaves alone."""
  return bool(_Note.number)


@contextlib.contextmanager
def stops_on_signals(grace: float = GRACE_SECONDS) -> Iterator[None]:
  """Have SIGTERM and Ctrl-C end the block by `StopSignal`, and the process where that can't be had within the grace.

  A thread reads the signals as they come and ends the process when the time is over, or at a second Ctrl-C. Once a
  signal has come it goes on counting after the block, until the process has ended: cleaning up is part of the bound.

  Args:
    grace: seconds from the first signal to the end of the process.

  Raises:
    StopSignal: a signal has come while the block ran, even if nothing in it has looked.
  """
  if threading.current_thread() is not threading.main_thread() or _Note.wanted:
    yield  # signals are the business of the main thread, and of the outermost block
    return
  told, telling = socket.socketpair()
  telling.setblocking(False)
  # The thread keeps both ends: one that nobody holds is closed, which would end the process before its cleaning up.
  watch = threading.Thread(target=_watch, args=(told, telling, grace), name="signals", daemon=True)
  watch.start()
  # Whoever started the process in the background has said that Ctrl-C is not meant for it.
  obeyed = [n for n in STATUSES if n != signal.SIGINT or signal.getsignal(n) != signal.SIG_IGN]
  handlers = {number: signal.signal(number, _note) for number in obeyed}
  wakeup = signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
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
      telling.close()
      watch.join()
      told.close()


def _note(number: int, frame: FrameType | None) -> None:
  _Note.number = _Note.number or number


def _watch(told: socket.socket, telling: socket.socket, grace: float) -> None:
  """Read the numbers of signals until the other end is closed; after the first, no longer than the grace."""
  first, began = 0, 0.0
  try:
    while number := told.recv(1):
      if number[0] not in STATUSES:
        continue
      now = time.monotonic()
      if not first:
        first, began = number[0], now
        # Python runs handlers between two of its instructions: the note must not wait for a compilation to end.
        _Note.number = _Note.number or first
      elif number[0] == signal.SIGINT and now - began > SAME_SECONDS:
        break
      told.settimeout(max(0.001, began + grace - now))
    if not first:
      return
  except TimeoutError:
    pass
  _write_words(first)
  end_process(STATUSES[signal.Signals(first)])


def _write_words(number: int) -> None:
  """Say how it ends, past Python's buffers and locks, which the main thread may hold; and not at all rather than wait."""
  try:
    if select.select([], [2], [], 1.0)[1]:
      os.write(2, f"{words(number)}\n".encode())
  except OSError:
    pass  # nobody listens


def end_process(status: int) -> NoReturn:
  """End the process now, and the worker processes that it has started: they would wait for it for ever."""
  if "multiprocessing.process" in sys.modules:
    from multiprocessing import active_children

    for child in active_children():
      child.kill()
  os._exit(status)


def leave(status: int) -> NoReturn:
  """End the process with a status. After a signal nothing at exit may hold it up."""
  if not _Note.number:
    sys.exit(status)
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):  # nobody listens
      stream.flush()
  end_process(status)
