"""Escaping of outside text, such as file names, for the terminal: one line, no escape sequences."""

from collections.abc import Sequence

_SHOWN = 5
_FIRST_SURROGATE, _LAST_SURROGATE = 0xD800, 0xDFFF
_FIRST_BYTE, _LAST_BYTE = 0xDC80, 0xDCFF  # surrogates that represent bytes that are not UTF-8


def printable(text: str, keep: str = "") -> str:
  """Return the text with every character that a terminal may interpret escaped.

  Args:
    text: any text, including lone surrogates.
    keep: nonprintable characters that stay, such as a line feed.
  """
  if text.isprintable():
    return text
  return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(letter: str) -> str:
  code = ord(letter)
  if _FIRST_BYTE <= code <= _LAST_BYTE:
    return f"\\x{code - 0xDC00:02x}"
  if 0x7F < code <= 0xFFFF:
    return f"\\u{code:04x}"  # as in JSON
  return letter.encode("unicode_escape", "backslashreplace").decode("ascii")


def storable(name: str) -> str:
  """Return a name as text that UTF-8 can encode: bytes that are not UTF-8, and surrogates, are escaped."""
  if name.isprintable():  # surrogates are not
    return name
  return "".join(_escaped(c) if _FIRST_SURROGATE <= ord(c) <= _LAST_SURROGATE else c for c in name)


def is_text(name: str) -> bool:
  """Return whether UTF-8 can encode a name; names of files may be any bytes."""
  return storable(name) == name


def listed(names: Sequence[str]) -> str:
  """Return the first few names, quoted, and the number of others."""
  shown = ", ".join(_quoted(name) for name in names[:_SHOWN])
  return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _quoted(name: str) -> str:
  # `repr` escapes nonprintable characters; long names are shortened to fit the screen.
  return repr(
    name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2]}…{name[-_LONGEST // 4 :]}"
  )


_LONGEST = 200
