"""Constraints on the fields of settings, and how sections and tables of them are read."""

import dataclasses
from typing import Annotated

import pytest

from genbench_jax.errors import UsageError
from genbench_jax.runtime.settings import (
  Above,
  AtLeast,
  AtMost,
  Below,
  Distinct,
  OneOf,
  checked_section,
  read_section,
  read_table,
)


@dataclasses.dataclass(frozen=True)
class Inner:
  rate: Annotated[float, Above(0), AtMost(1)] = 0.5
  share: Annotated[float, Below(1)] = 0.5


@dataclasses.dataclass(frozen=True)
class Section:
  steps: Annotated[int, AtLeast(1)] = 5
  kind: Annotated[str, OneOf("kind", ("fast", "slow"))] = "fast"
  shots: Annotated[tuple[int, ...], Distinct(), AtLeast(1)] = (1,)
  on: bool = False
  checkpoint: str = "base"
  revision: str = "abc"
  sha256: str = "def"
  inner: Inner = dataclasses.field(default_factory=Inner)


def test_other_settings_keep_their_defaults():
  assert read_section(Section, {}, "config") == Section()
  given = {"steps": 7, "inner": {"rate": 1}, "shots": [1, 2]}
  assert read_section(Section, given, "config") == Section(7, inner=Inner(1.0), shots=(1, 2))
  assert read_section(Section, {"shots": 3}, "config").shots == (3,)


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"steps": 0}, "config.steps is 0, expected at least 1."),
    ({"steps": True}, r"config.steps is True \(bool\), expected int."),
    ({"steps": 1.5}, r"config.steps is 1.5 \(float\), expected int."),
    ({"on": 1}, r"config.on is 1 \(int\), expected bool."),
    ({"stps": 1}, "unknown setting 'config.stps'. Did you mean 'config.steps'"),
    ({"kind": "fats"}, "unknown kind 'fats'. Did you mean 'fast'"),
    ({"shots": ()}, "config.shots is empty, expected at least one item."),
    ({"shots": (1, 1)}, r"config.shots contains duplicates: \(1, 1\)."),
    ({"shots": (1, 0)}, "config.shots is 0, expected at least 1."),
    ({"inner": {"rate": 0}}, "config.inner.rate is 0.0, expected more than 0."),
    ({"inner": {"rate": 2}}, "config.inner.rate is 2.0, expected at most 1."),
    ({"inner": {"share": 1}}, "config.inner.share is 1.0, expected less than 1."),
    ({"inner": {"rate": float("nan")}}, "config.inner.rate is nan, expected a finite number."),
    ({"inner": {"rate": 10**400}}, "config.inner.rate is inf, expected a finite number."),
    ({"inner": 3}, "config.inner is 3, expected a section of settings."),
  ],
)
def test_errors_name_the_path(given, message):
  with pytest.raises(UsageError, match=message):
    read_section(Section, given, "config")


def test_an_entry_with_its_own_checkpoint_does_not_inherit_pins():
  table = read_table(Section(steps=9), {"b": {"checkpoint": "own"}, "a": {"on": True}}, "config.t")
  assert list(table) == ["a", "b"]
  assert table["a"] == Section(steps=9, on=True)
  assert table["b"] == Section(steps=9, checkpoint="own", revision="", sha256="")


@pytest.mark.parametrize("name", ["", "a b", "../x", "-a", "a" * 81])
def test_a_name_that_cannot_be_part_of_a_file_name_is_rejected(name):
  with pytest.raises(UsageError, match="a name may have at most"):
    read_table(Section(), {name: {}}, "config.t")


def test_sections_built_in_python_are_checked_too():
  given = Section(steps=3, inner=Inner(0.2))
  assert checked_section(given, "settings") == given
  with pytest.raises(UsageError, match=r"settings\.inner\.rate is 2\.0, expected at most 1"):
    checked_section(Section(inner=Inner(2.0)), "settings")
  with pytest.raises(UsageError, match=r"settings\.steps is '5' \(str\), expected int"):
    checked_section(Section(steps="5"), "settings")
