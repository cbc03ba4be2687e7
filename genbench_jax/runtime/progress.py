"""Progress of long work: a bar on a terminal, occasional lines elsewhere."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Self, TypeAlias

from genbench_jax.runtime.printable import printable
from genbench_jax.runtime.stopping import look

QUIET_SECONDS = 10.0
# Progress callbacks: name of the work, number done, unit, rate a second.
Watcher: TypeAlias = Callable[[str, int, str, float], None]
_WATCHERS: ContextVar[tuple[Watcher, ...]] = ContextVar("watchers", default=())


@contextlib.contextmanager
def watched_by(*watchers: Watcher) -> Iterator[None]:
  """Report progress to these callbacks inside this context."""
  token = _WATCHERS.set((*_WATCHERS.get(), *watchers))
  try:
    yield
  finally:
    _WATCHERS.reset(token)


# Curve callbacks: name of the curve, value, step.
CurveWatcher: TypeAlias = Callable[[str, float, int], None]
_CURVES: ContextVar[tuple[CurveWatcher, ...]] = ContextVar("curves", default=())


@contextlib.contextmanager
def curves_drawn_by(*watchers: CurveWatcher) -> Iterator[None]:
  """Report curves to these callbacks inside this context."""
  token = _CURVES.set((*_CURVES.get(), *watchers))
  try:
    yield
  finally:
    _CURVES.reset(token)


def tell_curve(name: str, value: float, step: int) -> None:
  """Report a value of a curve.

  Args:
    name: name of the curve.
    value: the value.
    step: the training step.
  """
  for watcher in _CURVES.get():
    watcher(name, value, step)


def say(line: str) -> None:
  """Print a line to standard error, or several if it contains a list whose items are indented.

  Control characters are escaped, other line feeds too, so that outside names cannot imitate our
  output.
  """
  look()
  sys.stderr.write("\n  ".join(map(printable, line.split("\n  "))) + "\n")
  sys.stderr.flush()


def show(text: str = "", end: str = "\n") -> None:
  """Print a result to standard output. Control characters but line feeds and tabs are escaped."""
  sys.stdout.write(printable(text, keep="\n\t") + end)


def pace(rate: float) -> str:
  """Return a readable rate: `35.8/s`, and below one per second `4.2 s each`."""
  return f"{rate:.1f}/s" if rate >= 1 else f"{1 / max(rate, 1e-9):.1f} s each"


class Progress:
  """Counter of `total` items that prints name, count, rate, remaining time and a note."""

  def __init__(
    self, what: str, total: int, unit: str, note: Callable[[], object] = lambda: ""
  ) -> None:
    self.what, self.total, self.unit, self.note = printable(what), total, unit, note
    self.done = 0
    self._began = self._said = time.monotonic()
    self._over = threading.Event()

  def __enter__(self) -> Self:
    look()
    threading.Thread(target=self._say_that_it_goes_on, name="progress", daemon=True).start()
    from tqdm import tqdm

    self._bar = tqdm(
      total=self.total, desc=self.what, unit=f" {self.unit}", disable=not sys.stderr.isatty()
    )
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    self._bar.close()
    self._over.set()
    if kind is None and self.done:
      seconds = time.monotonic() - self._began
      rate = self.done / max(seconds, 1e-9)
      self._say(f"{self.what}: {self.done} {self.unit} in {seconds:.1f} s ({pace(rate)})")
      self._tell(rate)

  def advance(self, count: int) -> None:
    """Count more items. Raise here if a signal has requested the end."""
    look()
    self.done += count
    self._bar.update(count)
    self._bar.set_postfix_str(str(self.note()), refresh=False)
    now = time.monotonic()
    if now - self._said >= QUIET_SECONDS and self.done < self.total:
      self._said = now
      rate = self.done / (now - self._began)
      left = (self.total - self.done) / rate
      self._tell(rate)
      if self._bar.disable:
        done = f"{self.what}: {self.done}/{self.total} {self.unit}"
        self._say(f"{done}, {pace(rate)}, {left:.0f} s left")

  def _say_that_it_goes_on(self) -> None:
    """Report the elapsed time of a long step, so that it is not silent."""
    while not self._over.wait(QUIET_SECONDS):
      now = time.monotonic()
      if now - self._said >= QUIET_SECONDS and self.done < self.total and self._bar.disable:
        self._said = now
        passed = f"{now - self._began:.0f} s so far"
        say(f"{self.what}: {self.done}/{self.total} {self.unit}, {passed}")

  def reach(self, done: int) -> None:
    """Count up to at least `done`, for work that may have been counted in smaller steps."""
    if done > self.done:
      self.advance(done - self.done)

  def _say(self, line: str) -> None:
    say(", ".join(filter(None, (line, str(self.note())))))

  def _tell(self, rate: float) -> None:
    for watcher in _WATCHERS.get():
      watcher(self.what, self.done, self.unit, rate)
