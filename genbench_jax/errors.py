"""The ways a run, or a cell of it, ends early through no fault of the code."""

import difflib
from collections.abc import Iterable


def _printable(message: object) -> str:
  """The message with what a terminal would act on as escapes: names from outside stand in it."""
  text = str(message)
  if text.isprintable():
    return text
  return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


class UsageError(ValueError):
  """What the user gave can't be used. The command ends with one line and exit status 2."""

  def __init__(self, message: object = "") -> None:
    super().__init__(_printable(message))


class RunError(RuntimeError):
  """The run could not go on: disk, data or model. The command ends with one line and status 1."""

  def __init__(self, message: object = "") -> None:
    super().__init__(_printable(message))


class NotPreparedError(RunError):
  """Something can't be opened or named yet, for what it rests on has not been prepared."""


class ModelError(RunError):
  """A model gave NaN or infinity: the cell fails, the others go on."""


# Names that are told back to the user: a longer one is no slip of the pen.
_LONGEST_NAME = 80


def unknown_name(kind: str, given: str, known: Iterable[str]) -> UsageError:
  """An error that says what was given, the nearest known name, and what is allowed."""
  known, given = list(known), given[:_LONGEST_NAME]
  nearest = difflib.get_close_matches(
    given.lower(), [name.lower() for name in known], n=1, cutoff=0.5
  )
  hint = ""
  if nearest:
    hint = f" Did you mean {next(name for name in known if name.lower() == nearest[0])!r}?"
  return UsageError(f"unknown {kind} {given!r}.{hint} Known: {', '.join(known)}.")
