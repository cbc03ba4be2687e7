"""Write files in a background thread, in order, at most a bounded number behind."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from genbench_jax.runtime.stopping import look

# Most writes that may wait while another is running.
AHEAD = 1


class BackgroundWriter:
  """Run submitted functions one after another in its own thread.

  An error is raised by the next `submit` or at the end of the block; functions submitted after the failed
  one are not called. A block that ends without an error has written everything.
  """

  def __init__(self) -> None:
    self._thread = ThreadPoolExecutor(1, "write")
    self._waiting: deque[Future[Any]] = deque()
    self._failed = False

  def __enter__(self) -> Self:
    return self

  def submit(self, write: Callable[..., Any], *arguments: Any) -> None:
    """Queue a call of `write(*arguments)`; block while too many calls are waiting."""
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
