"""Typed settings: frozen dataclasses whose fields carry their own constraints.

  steps: Annotated[int, AtLeast(1)] = 50
  scheduler: Annotated[str, OneOf("scheduler", SCHEDULERS)] = "ddim"
  shots: Annotated[tuple[int, ...], Distinct(), AtLeast(1)] = (1, 16)

`read_section` turns plain values (a ConfigDict, JSON) into such a dataclass and names every mistake by its path.
"""

import dataclasses
import math
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

from genbench_jax.errors import UsageError, unknown_name

Section = TypeVar("Section")
# An entry's name becomes part of file names.
_ENTRY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")


@runtime_checkable
class Constraint(Protocol):
  """What values of a setting must satisfy; of a tuple, each of its items."""

  def check(self, value: Any, path: str) -> None:
    """Raises UsageError where the value is not allowed."""


@dataclasses.dataclass(frozen=True)
class AtLeast:
  """Numbers from `low` on."""

  low: float

  def check(self, value: float, path: str) -> None:
    if value < self.low:
      raise UsageError(f"{path} is {value}, wanted at least {self.low:g}.")


@dataclasses.dataclass(frozen=True)
class AtMost:
  """Numbers up to `high`."""

  high: float

  def check(self, value: float, path: str) -> None:
    if value > self.high:
      high = int(self.high) if float(self.high).is_integer() else self.high
      raise UsageError(f"{path} is {value}, wanted at most {high}.")


@dataclasses.dataclass(frozen=True)
class Above:
  """Numbers above `low`."""

  low: float

  def check(self, value: float, path: str) -> None:
    if value <= self.low:
      raise UsageError(f"{path} is {value}, wanted above {self.low:g}.")


@dataclasses.dataclass(frozen=True)
class OneOf:
  """Known names of one `kind`; an unknown one gets the nearest as a hint."""

  kind: str
  names: Iterable[str]

  def check(self, value: str, path: str) -> None:
    if value not in self.names:
      raise unknown_name(self.kind, value, [name or "''" for name in self.names])


@dataclasses.dataclass(frozen=True)
class LocalPath:
  """A folder, file or hub id, but no URL: every host must be able to open it."""

  def check(self, value: str, path: str) -> None:
    if "://" in value:
      raise UsageError(
        f"{path} is {value!r}, wanted a folder of this machine: copy or mount it. --workdir may be a URL."
      )


@dataclasses.dataclass(frozen=True)
class Distinct:
  """A tuple that names at least one thing, and nothing twice."""

  def check(self, value: tuple[Any, ...], path: str) -> None:
    if not value:
      raise UsageError(f"{path} is empty, wanted at least one.")
    if len(set(value)) != len(value):
      raise UsageError(f"{path} names something twice: {value}.")


def read_section(section: type[Section], values: Any, path: str) -> Section:
  """Returns the section with the given values; settings that are not given keep their defaults.

  Args:
    section: a frozen dataclass.
    values: a mapping of its settings; sections within it are mappings themselves.
    path: of the section, for messages, such as `config.generation`.

  Raises:
    UsageError: an unknown setting, a wrong type, or a value that its constraint refuses.
  """
  if not isinstance(values, Mapping) and not hasattr(values, "items"):
    raise UsageError(f"{path} is {values!r}, wanted a section of settings.")
  hints = typing.get_type_hints(section, include_extras=True)
  for key in values:
    if key not in hints:
      raise unknown_name("setting", f"{path}.{key}", [f"{path}.{name}" for name in hints])
  return section(**{key: _read_setting(values[key], hints[key], f"{path}.{key}") for key in values})


def read_table(base: Section, table: Any, path: str) -> dict[str, Section]:
  """Return name -> section, sorted by name.

  Args:
    base: a frozen dataclass with the settings that an entry does not give.
    table: a mapping of names to mappings of settings. An entry that gives its own `checkpoint` does not inherit the
      `revision` and `sha256` of the base, which pin another checkpoint.
    path: of the table, for messages, such as `config.generators`.

  Raises:
    UsageError: a name that cannot be part of a file name, or a wrong setting.
  """
  if not hasattr(table, "items"):
    raise UsageError(f"{path} is {table!r}, wanted a table: name -> settings.")
  sections = {}
  for name, entry in sorted(table.items()):  # ConfigDict sorts its keys, too
    if not _ENTRY_NAME.fullmatch(name):
      raise UsageError(f"{path}.{name}: a name may have letters, digits, '_' and '-', 80 at most.")
    given = read_section(type(base), entry, f"{path}.{name}")
    unpinned = {"revision": "", "sha256": ""} if "checkpoint" in entry else {}
    changes = unpinned | {key: getattr(given, key) for key in entry}
    sections[name] = dataclasses.replace(base, **changes)  # type: ignore[type-var]
  return sections


def plain_type(hint: Any) -> Any:
  """The type of a setting without its constraints."""
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
  """The value as the type it should have; an integer passes for a float, a single value for a tuple."""
  if dataclasses.is_dataclass(wanted):
    return read_section(typing.cast(type, wanted), value, path)
  if typing.get_origin(wanted) is tuple:
    item = typing.get_args(wanted)[0]
    values = value if isinstance(value, list | tuple) else (value,)
    return tuple(_typed(one, item, path) for one in values)
  if wanted is float and isinstance(value, int) and not isinstance(value, bool):
    value = float(value)
  if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
    kind = type(value).__name__
    raise UsageError(f"{path} is {value!r} ({kind}), wanted {wanted.__name__}.")
  # Comparisons with NaN are false, so it would pass every range.
  if wanted is float and not math.isfinite(value):
    raise UsageError(f"{path} is {value}, wanted a finite number.")
  return value
