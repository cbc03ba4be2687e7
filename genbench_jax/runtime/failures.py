"""Failed parts of a run that continues."""

import contextlib
from collections.abc import Iterator, Sequence

from genbench_jax.errors import ModelError, RunError
from genbench_jax.runtime.progress import say


class Failures:
  """The failed parts of a run, such as `digits original-seed0`, with reasons.

  Args:
    keep_going: whether the run continues after any error of a part; otherwise only after errors of
      models.
  """

  def __init__(self, keep_going: bool = False) -> None:
    self.keep_going = keep_going
    self.reasons: dict[str, str] = {}

  def __contains__(self, name: str) -> bool:
    return name in self.reasons

  @contextlib.contextmanager
  def caught(self, names: str | Sequence[str]) -> Iterator[None]:
    """Record an error raised inside this context, and continue after it."""
    try:
      yield
    except RunError as error:
      if not (self.keep_going or isinstance(error, ModelError)):
        raise
      for name in [names] if isinstance(names, str) else names:
        self.reasons[name] = str(error)
        say(f"failed: {name}: {error}")

  def summary(self) -> str:
    """Return the failures, one per line."""
    lines = [f"  {name}: {reason}" for name, reason in self.reasons.items()]
    return "\n".join([f"{len(lines)} failed, the others are done:", *lines])
