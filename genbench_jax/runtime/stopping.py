"""SIGTERM, which machines that are taken away send first: the run ends in time, by itself, and says so."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from genbench_jax.runtime.progress import say

# What shells call a process that ended by SIGTERM; Slurm, Kubernetes and the launch scripts know it as `preempted`.
STATUS = 143
# A machine that is taken away has 30 seconds. What is half written by then is dropped.
GRACE_SECONDS = 20.0
WORDS = (
  "stopped by SIGTERM. What is complete is kept: the same command goes on from there. Status 143."
)


class Stopped(BaseException):
  """SIGTERM has come. No error: nothing that handles errors may swallow it."""


@contextmanager
def stops_on_sigterm(grace: float = GRACE_SECONDS) -> Iterator[None]:
  """Turns SIGTERM into `Stopped` in the main thread; ends the process where that can't be had within the grace.

  Python raises between two of its own instructions only; a compilation or a batch may take minutes. A thread is told of
  the signal at once and ends the process when the time is over. Files are whole or absent whenever that is.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  told, telling = socket.socketpair()
  telling.setblocking(False)
  watch = threading.Thread(target=_watch, args=(told, grace), daemon=True)
  watch.start()
  handler = signal.signal(signal.SIGTERM, _raise)
  wakeup = signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
  try:
    yield
  finally:
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGTERM, handler)
    telling.close()
    watch.join()
    told.close()


def _raise(number: int, frame: FrameType | None) -> None:
  signal.signal(
    signal.SIGTERM, signal.SIG_IGN
  )  # once is enough: the second must not disturb the first
  raise Stopped


def _watch(told: socket.socket, grace: float) -> None:
  """Reads the numbers of signals until the other end is closed; after SIGTERM, no longer than the grace."""
  try:
    while number := told.recv(1):
      if number[0] == signal.SIGTERM:
        told.settimeout(grace)
  except TimeoutError:
    say(WORDS)
    os._exit(STATUS)
