"""Typed settings: frozen dataclasses whose fields carry constraints.

    steps: Annotated[int, AtLeast(1)] = 50
    scheduler: Annotated[str, OneOf("scheduler", SCHEDULERS)] = "ddim"
    shots: Annotated[tuple[int, ...], Distinct(), AtLeast(1)] = (1, 16)

`read_section` turns plain values (a ConfigDict, JSON) into such a dataclass. Errors name the path
of the setting.
"""

import dataclasses
import math
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from genbench_jax.errors import UsageError, unknown_name

Section = TypeVar("Section")
_LARGEST_WHOLE = 1 << 1000  # larger ones are no floats
# The name of an entry becomes part of file names.
_ENTRY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
# Settings that name files, and those that pin these files.
PINS = {
  "checkpoint": ("revision", "sha256"),
  "loras": ("lora_sha256",),
  "autoencoder": ("autoencoder_revision", "autoencoder_sha256"),
}


@runtime_checkable
class Constraint(Protocol):
  """A condition on the values of a setting; on each item of a tuple."""

  def check(self, value: Any, path: str) -> None:
    """Check a value.

    Raises:
      UsageError: the value is not allowed.
    """


@dataclasses.dataclass(frozen=True)
class AtLeast:
  """Numbers that are at least `low`."""

  low: float

  def check(self, value: float, path: str) -> None:
    if value < self.low:
      raise UsageError(f"{path} is {value}, expected at least {self.low:g}.")


@dataclasses.dataclass(frozen=True)
class AtMost:
  """Numbers that are at most `high`."""

  high: float

  def check(self, value: float, path: str) -> None:
    if value > self.high:
      high = int(self.high) if float(self.high).is_integer() else self.high
      raise UsageError(f"{path} is {value}, expected at most {high}.")


@dataclasses.dataclass(frozen=True)
class Above:
  """Numbers above `low`."""

  low: float

  def check(self, value: float, path: str) -> None:
    if value <= self.low:
      raise UsageError(f"{path} is {value}, expected more than {self.low:g}.")


@dataclasses.dataclass(frozen=True)
class Below:
  """Numbers below `high`."""

  high: float

  def check(self, value: float, path: str) -> None:
    if value >= self.high:
      raise UsageError(f"{path} is {value}, expected less than {self.high:g}.")


@dataclasses.dataclass(frozen=True)
class OneOf:
  """Known names of one `kind`; the error for an unknown name suggests the nearest."""

  kind: str
  names: Iterable[str]

  def check(self, value: str, path: str) -> None:
    if value not in self.names:
      raise unknown_name(self.kind, value, [name or "''" for name in self.names])


@dataclasses.dataclass(frozen=True)
class LocalPath:
  """A folder, file or hub id, but not a URL, because every host must be able to open it."""

  def check(self, value: str, path: str) -> None:
    if "://" in value:
      raise UsageError(
        f"{path} is {value!r}, expected a local folder: copy or mount it. Only --workdir may be a URL."
      )


@dataclasses.dataclass(frozen=True)
class Distinct:
  """A nonempty tuple without duplicates."""

  def check(self, value: tuple[Any, ...], path: str) -> None:
    if not value:
      raise UsageError(f"{path} is empty, expected at least one item.")
    if len(set(value)) != len(value):
      raise UsageError(f"{path} contains duplicates: {value}.")


def read_section(section: type[Section], values: Any, path: str) -> Section:
  """Return the section with the given values; other settings keep their defaults.

  Args:
    section: a frozen dataclass.
    values: mapping of its settings; nested sections are mappings.
    path: path of the section for messages, such as `config.generation`.

  Raises:
    UsageError: an unknown setting, a wrong type, or a value that violates its constraint.
  """
  if not isinstance(values, Mapping) and not hasattr(values, "items"):
    raise UsageError(f"{path} is {values!r}, expected a section of settings.")
  hints = typing.get_type_hints(section, include_extras=True)
  for key in values:
    if key not in hints:
      raise unknown_name("setting", f"{path}.{key}", [f"{path}.{name}" for name in hints])
  return section(**{key: _read_setting(values[key], hints[key], f"{path}.{key}") for key in values})


def checked_section(section: Section, path: str) -> Section:
  """Return a section that was built in Python, once its values satisfy their constraints.

  Args:
    section: a frozen dataclass.
    path: name of the section for messages.

  Raises:
    UsageError: a wrong type, or a value that violates its constraint.
  """
  return read_section(type(section), dataclasses.asdict(section), path)  # type: ignore[call-overload]


def read_table(base: Section, table: Any, path: str) -> dict[str, Section]:
  """Return name -> section, sorted by name.

  Args:
    base: a frozen dataclass with the defaults of an entry.
    table: mapping of names to mappings of settings. An entry with its own `checkpoint` does not
      inherit `revision` and `sha256`, which pin another one; see `PINS`.
    path: path of the table for messages, such as `config.generators`.

  Raises:
    UsageError: a name that cannot be part of a file name, or an invalid setting.
  """
  if not hasattr(table, "items"):
    raise UsageError(f"{path} is {table!r}, expected a table: name -> settings.")
  sections = {}
  for name, entry in sorted(table.items()):  # ConfigDict also sorts its keys
    if not _ENTRY_NAME.fullmatch(name):
      raise UsageError(f"{path}.{name}: a name may have at most 80 letters, digits, '_' and '-'.")
    given = read_section(type(base), entry, f"{path}.{name}")
    changes = _unpinned(base, entry) | {key: getattr(given, key) for key in entry}
    sections[name] = dataclasses.replace(base, **changes)  # type: ignore[type-var]
  return sections


def _unpinned(base: Section, entry: Any) -> dict[str, Any]:
  """Return the empty value of each pin of files that an entry replaces."""
  hints = typing.get_type_hints(type(base))
  pins = [pin for file, pins in PINS.items() if file in entry for pin in pins if pin in hints]
  return {pin: () if typing.get_origin(hints[pin]) is tuple else "" for pin in pins}


def plain_type(hint: Any) -> Any:
  """Return the type of a setting without its constraints."""
  return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _read_setting(value: Any, hint: Any, path: str) -> Any:
  constraints: tuple[Constraint, ...] = getattr(hint, "__metadata__", ())
  typed = _typed(value, plain_type(hint), path)
  for constraint in constraints:
    is_tuple = isinstance(typed, tuple) and not isinstance(constraint, Distinct)
    for item in typed if is_tuple else (typed,):
      constraint.check(item, path)
  return typed


def _typed(value: Any, wanted: Any, path: str) -> Any:
  """Convert the value to its type; an integer may be a float, a single value a tuple."""
  if dataclasses.is_dataclass(wanted):
    return read_section(typing.cast(type, wanted), value, path)
  if typing.get_origin(wanted) is tuple:
    item = typing.get_args(wanted)[0]
    values = value if isinstance(value, list | tuple) else (value,)
    return tuple(_typed(entry, item, path) for entry in values)
  if wanted is float and isinstance(value, int) and not isinstance(value, bool):
    value = float(value) if abs(value) < _LARGEST_WHOLE else math.inf
  if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
    kind = type(value).__name__
    raise UsageError(f"{path} is {value!r} ({kind}), expected {wanted.__name__}.")
  # Comparisons with NaN are false, so NaN would satisfy every range.
  if wanted is float and not math.isfinite(value):
    raise UsageError(f"{path} is {value}, expected a finite number.")
  return value
