"""Writing in the background, in order, a bounded number of pieces behind."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from genbench_jax.runtime.stopping import look

# Pieces that wait for the disk, at most, besides the one that is being written.
AHEAD = 1


class BackgroundWriter:
  """Calls one function after another in a thread of its own.

  An error surfaces at the next `submit` or at the end; what had been submitted after it is not called. When the block
  ends without an error, everything has been written.
  """

  def __init__(self) -> None:
    self._thread = ThreadPoolExecutor(1, "write")
    self._waiting: deque[Future[Any]] = deque()
    self._failed = False

  def __enter__(self) -> Self:
    return self

  def submit(self, write: Callable[..., Any], *arguments: Any) -> None:
    """Have `write(*arguments)` called in its turn; waits while too many are waiting."""
    look()
    self._waiting.append(self._thread.submit(self._unless_failed, write, *arguments))
    while len(self._waiting) > AHEAD + 1:
      self._waiting.popleft().result()

  def _unless_failed(self, write: Callable[..., Any], *arguments: Any) -> None:
    if self._failed:
      return
    try:
      write(*arguments)
    except BaseException:
      self._failed = True
      raise

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    self._thread.shutdown(wait=True, cancel_futures=kind is not None)
    if kind is None:
      for written in self._waiting:
        written.result()
