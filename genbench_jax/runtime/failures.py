"""What has failed in a run that goes on."""

import contextlib
from collections.abc import Iterator, Sequence

from genbench_jax.errors import ModelError, RunError
from genbench_jax.runtime.progress import say


class Failures:
  """The failed parts of a run by name, such as `digits original-seed0`, each with its reason.

  Args:
    keep_going: whether any error of a part lets the others go on; else those of models alone do.
  """

  def __init__(self, keep_going: bool = False) -> None:
    self.keep_going = keep_going
    self.reasons: dict[str, str] = {}

  def __contains__(self, name: str) -> bool:
    return name in self.reasons

  @contextlib.contextmanager
  def caught(self, names: str | Sequence[str]) -> Iterator[None]:
    """Notes the error of what is done inside, and goes on after it."""
    try:
      yield
    except RunError as error:
      if not (self.keep_going or isinstance(error, ModelError)):
        raise
      for name in [names] if isinstance(names, str) else names:
        self.reasons[name] = str(error)
        say(f"failed: {name}: {error}")

  def summary(self) -> str:
    """The failures, a line each."""
    lines = [f"  {name}: {reason}" for name, reason in self.reasons.items()]
    return "\n".join([f"{len(lines)} failed, the rest is done:", *lines])
