"""Text from outside, such as the name of a file, made safe to print: no escape sequence, no second line."""

import os
from collections.abc import Sequence

_SHOWN = 5
_FIRST_BYTE, _LAST_BYTE = 0xDC80, 0xDCFF  # surrogates that stand for bytes which are no UTF-8


def printable(text: str, keep: str = "") -> str:
  """Return the text with every letter that a terminal may act on written as an escape.

  Args:
    text: of any letters, lone surrogates included.
    keep: letters that stay as they are although they are not printable, such as a line feed.
  """
  if text.isprintable():
    return text
  return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(letter: str) -> str:
  code = ord(letter)
  if _FIRST_BYTE <= code <= _LAST_BYTE:
    return f"\\x{code - 0xDC00:02x}"
  if 0x7F < code <= 0xFFFF:
    return f"\\u{code:04x}"  # as JSON has it
  return letter.encode("unicode_escape", "backslashreplace").decode("ascii")


def storable(name: str) -> str:
  """Return a file's name as text that UTF-8 can hold: bytes that are no UTF-8 are written as escapes."""
  return os.fsencode(name).decode("utf-8", "backslashreplace")


def listed(names: Sequence[str]) -> str:
  """Return the first few names, quoted, and how many more there are."""
  shown = ", ".join(_quoted(name) for name in names[:_SHOWN])
  return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _quoted(name: str) -> str:
  # `repr` escapes what is not printable, and keeps a long name from filling the screen only if it is cut.
  return repr(
    name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}…{name[-_LONGEST // 4 :]}"
  )


_LONGEST = 200
