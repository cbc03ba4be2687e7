"""A parent that outlives a run's process, so that however it ends there is a last line that says what to do.

When one of several processes dies, JAX ends the others from inside, by abort; a machine that runs out of memory
ends them by SIGKILL. Neither leaves Python the time for a word.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from genbench_jax.runtime.progress import say

DIED = "another process of this run has died or can't be reached"
GOES_ON = "What is complete is kept: the same command on all hosts goes on from there."
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def supervised(run: Callable[[], int]) -> int:
  """Runs the function in a child process; returns its exit status, and 1 if it was killed.

  To be called before any thread is started. Signals that ask to stop are passed on. A parent that is killed takes its
  child with it.
  """
  sys.stdout.flush()
  sys.stderr.flush()
  reading, writing = os.pipe()
  child = os.fork()
  if child == 0:
    os.close(writing)
    threading.Thread(target=_end_with_parent, args=(reading,), daemon=True).start()
    _leave(run)
  os.close(reading)

  def forward(number: int, frame: FrameType | None) -> None:
    os.kill(child, number)

  previous = {number: signal.signal(number, forward) for number in FORWARDED}
  try:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
    os.close(writing)
  return status if status >= 0 else _explained(signal.Signals(-status))


def _leave(run: Callable[[], int]) -> None:
  """Runs the function in the child, and ends the child without unwinding what belongs to the parent."""
  status = 1
  try:
    status = run()
  except SystemExit as end:
    status = end.code if isinstance(end.code, int) else 1
  except BaseException:
    sys.excepthook(*sys.exc_info())
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _end_with_parent(reading: int) -> None:
  os.read(reading, 1)  # returns when the parent is gone
  os._exit(1)


def _explained(signal_: signal.Signals) -> int:
  why = {
    signal.SIGABRT: DIED,
    signal.SIGKILL: "it was killed, perhaps for lack of memory",
  }.get(signal_, "it crashed")
  say(f"error: this process was ended by {signal_.name}: {why}. {GOES_ON}")
  return 1
