"""Errors that end a run or one of its cells and are not bugs."""

import difflib
from collections.abc import Iterable


def _printable(message: object) -> str:
  """Escape characters that a terminal may interpret, since messages contain outside names."""
  text = str(message)
  if text.isprintable():
    return text
  return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


class UsageError(ValueError):
  """The user's input is invalid. The command ends with one line and exit status 2."""

  def __init__(self, message: object = "") -> None:
    super().__init__(_printable(message))


class RunError(RuntimeError):
  """The run cannot continue: disk, data or model. The command ends with one line and status 1."""

  def __init__(self, message: object = "") -> None:
    super().__init__(_printable(message))


class NotPreparedError(RunError):
  """Something cannot be opened or named yet, because its input has not been prepared."""


class ModelError(RunError):
  """A model returned NaN or infinity: the cell fails, the others continue."""


# Longer names are not misspellings, and the error does not repeat them.
_LONGEST_NAME = 80


def unknown_name(kind: str, given: str, known: Iterable[str]) -> UsageError:
  """Return an error with the given name, the nearest known name and all known names.

  Args:
    kind: what the name refers to.
    given: the unknown name.
    known: the known names.
  """
  known, given = list(known), given[:_LONGEST_NAME]
  nearest = difflib.get_close_matches(
    given.lower(), [name.lower() for name in known], n=1, cutoff=0.5
  )
  hint = ""
  if nearest:
    hint = f" Did you mean {next(name for name in known if name.lower() == nearest[0])!r}?"
  return UsageError(f"unknown {kind} {given!r}.{hint} Known: {', '.join(known)}.")
