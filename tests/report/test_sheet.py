"""Figures as single files: panels in a grid below the legend."""

import dataclasses

import pytest

from genbench_jax.report.sheet import GAP, LETTER, MARGIN, sheet_of


@dataclasses.dataclass(frozen=True)
class Panel:
  width: float = 300.0
  height: float = 200.0


@dataclasses.dataclass(frozen=True)
class Key:
  text: str


@dataclasses.dataclass(frozen=True)
class Variant:
  panels: tuple
  keys: tuple = ()
  layout: str = "grid"


@dataclasses.dataclass(frozen=True)
class Figure:
  shown: Variant


def drawn(panels, keys=(), layout="grid"):
  return sheet_of(Figure(Variant(tuple(panels), tuple(keys), layout)))


def places(made):
  return [(place.x, place.y) for place in made.placed]


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (7, 3, 3)])
def test_three_panels_stand_in_a_row(count, columns, rows):
  made = drawn([Panel()] * count)
  top = 38 + 32
  assert made.width == 2 * MARGIN + columns * 300 + (columns - 1) * GAP
  assert made.height == top + rows * 200 + (rows - 1) * GAP + MARGIN
  expected = [(MARGIN + i % 3 * 318, top + i // 3 * 218) for i in range(count)]
  assert places(made) == expected


def test_the_largest_panel_decides_the_grid():
  made = drawn([Panel(100, 300), Panel(250, 50)])
  assert places(made) == [(MARGIN, 70), (MARGIN + 250 + GAP, 70)]
  assert made.height == 70 + 300 + MARGIN


def test_no_panel_overlaps_another_or_the_edge():
  made = drawn([Panel()] * 5, [Key("a" * 30)] * 9)
  for place in made.placed:
    assert MARGIN <= place.x <= made.width - MARGIN - 300
    assert place.y + 200 <= made.height - MARGIN
  assert len(set(places(made))) == 5


def test_a_forest_shows_its_wide_layout_only():
  assert len(drawn([Panel(), Panel()], layout="forest").placed) == 1


def test_a_figure_without_panels_has_room_for_its_title():
  made = drawn([])
  assert made.width == 2 * MARGIN + 300 and made.placed == ()
  assert made.height >= 60


def test_keys_follow_each_other_and_wrap_within_the_width():
  made = drawn([Panel()], [Key("short"), Key("x" * 20), Key("also short")])
  first, second, third = ((key.x, key.y) for key in made.keys)
  assert first == (MARGIN, 38)
  assert second == (MARGIN + 40 + 5 * LETTER, 38)
  assert third == (MARGIN, 58)
  for key in made.keys:
    assert key.x + 40 + LETTER * len(key.key.text) <= made.width - MARGIN
  assert places(made) == [(MARGIN, 58 + 32)]


def test_a_key_wider_than_the_figure_has_its_own_line():
  made = drawn([Panel()], [Key("y" * 200), Key("z")])
  assert [(key.x, key.y) for key in made.keys] == [(MARGIN, 38), (MARGIN, 58)]


def test_sizes_are_those_of_the_module():
  assert (MARGIN, GAP, LETTER) == (16, 18, 7)
