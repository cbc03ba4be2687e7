"""A parent process that reports how a run's process ended.

When one of several processes dies, JAX aborts the others from inside. A machine that runs out of
memory kills them with SIGKILL. In both cases Python cannot print a message.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from genbench_jax.runtime.progress import say

DIED = "another process of this run has died or cannot be reached"
GOES_ON = "Complete files are kept: run the same command on all hosts to resume."
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def supervised(run: Callable[[], int]) -> int:
  """Run the function in a child process; return its exit status, or 1 if it was killed.

  Call this before any thread is started. Signals that request the end are forwarded. If the parent
  is killed, the child ends too.
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
  """Run the function in the child, and end the child without unwinding the parent's stack."""
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
  os.read(reading, 1)  # returns when the parent has ended
  os._exit(1)


def _explained(signal_: signal.Signals) -> int:
  why = {
    signal.SIGABRT: DIED,
    signal.SIGKILL: "it was killed, possibly because of low memory",
  }.get(signal_, "it crashed")
  say(f"error: this process was ended by {signal_.name}: {why}. {GOES_ON}")
  return 1
