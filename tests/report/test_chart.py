"""Scales, ticks and the figures built from them."""

import re
from xml.etree import ElementTree

import pytest

from genbench_jax.report import chart, palette
from genbench_jax.report.agreement import agreements
from genbench_jax.report.curves import curves_figure
from genbench_jax.report.gain_figures import gains_figure, strategies_figure
from genbench_jax.report.labels import series_label
from genbench_jax.report.legend import css_of, keys_of
from genbench_jax.report.render import figure_svg
from genbench_jax.report.results import Series, results_of, views
from genbench_jax.report.scatter import metric_figure, ranks_figure


@pytest.fixture
def results(rows):
  return results_of(rows, views(rows)[0])


def test_scale_maps_and_clips():
  scale = chart.Scale(0.0, 10.0, 100.0, 0.0)
  assert [scale(v) for v in (0, 5, 10, 20)] == [100, 50, 0, 0]


@pytest.mark.parametrize(
  ("low", "high", "expected"),
  [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (-0.03, 0.31, [0, 0.1, 0.2, 0.3]), (91, 99.2, [92, 94, 96, 98])],
)  # fmt: skip
def test_ticks_are_round_and_inside(low, high, expected):
  assert chart.ticks(low, high) == pytest.approx(expected)


def test_labels_that_would_touch_are_left_out():
  ticks = [chart.Tick(at, text) for at, text in ((0.0, "1"), (100.0, "1024"), (120.0, "2500"))]
  assert [tick.text for tick in chart.apart(ticks)] == ["1", "", "2500"]
  assert [tick.at for tick in chart.apart(ticks)] == [0, 100, 120]


def test_padded_never_has_zero_width():
  low, high = chart.padded([0.5, 0.5])
  assert high - low == pytest.approx(0.02)
  assert chart.padded([]) == pytest.approx((-0.01, 0.01))


def test_markers_of_the_strategies_differ():
  paths = {chart.marker(strategy, 0, 0) for strategy in chart.MARKERS}
  assert len(paths) == len(set(chart.MARKERS.values()))


def test_new_tokens_keep_color_and_marker_but_are_distinguishable():
  plain = Series("generative", "defined_template")
  learned = [
    Series("generative", f"defined_template+inversion_{name}") for name in ("original", "folder")
  ]
  assert [css_of(one) for one in learned] == [
    f"{css_of(plain)} tokens-{name}" for name in ("original", "folder")
  ]
  assert len({key.path for key in keys_of([plain, *learned], by_strategy=True)}) == 1
  assert series_label(learned[0].source, learned[0].strategy) == (
    "generated, defined template with tokens from original images"
  )
  hostile = Series("generative", "defined_template+inversion_x y")
  assert css_of(hostile) == css_of(plain)


def test_gains_figure_draws_the_numbers(results):
  figure = gains_figure(results, ("linear_probe", "cler"))
  assert figure.shown.choice == ("linear probe", "16")
  assert len(figure.variants) == 10
  wide, narrow = figure.shown.panels
  texts = [text.text for text in wide.texts]
  assert texts.count("all datasets") == 1
  assert "n = 3" in texts
  probe = results.estimate("digits", results.headline_series()[0], 16, "linear_probe").value
  assert f"{100 * (probe - 0.965):+.1f}".replace("-", "−") in texts
  assert wide.width > 2 * narrow.width
  # Only CLER has a shuffled control.
  controls = {v.choice[0] for v in figure.variants if any("control" in key.css for key in v.keys)}
  assert controls == {"CLER"}


def test_curves_mean_panel_says_how_many_datasets(rows):
  cut = [row for row in rows if not (row["dataset"] == "shapes" and row["source"] == "original")]
  figure = curves_figure(results_of(cut, views(cut)[0]), ("linear_probe",))
  assert figure.shown.panels[0].note == "n = 2 of 3"
  assert [panel.title for panel in figure.shown.panels[1:]] == ["digits", "digits_hard", "shapes"]


def test_one_strategy_makes_no_strategy_figure(rows):
  cut = [row for row in rows if row["strategy"] in ("", "simple_template")]
  assert strategies_figure(results_of(cut, views(cut)[0]), ("linear_probe",)) is None


def test_svg_file_is_well_formed_and_self_contained(results):
  svg = figure_svg(curves_figure(results, ("linear_probe", "cler")))
  root = ElementTree.fromstring(svg)
  assert root.tag == "{http://www.w3.org/2000/svg}svg"
  assert "var(" not in svg
  assert not re.search(r"(?:href|src|url)\s*[=(]", svg)


@pytest.mark.parametrize("colors", [palette.LIGHT, palette.DARK])
def test_colors_have_enough_contrast(colors):
  for name in set(colors) - {"paper", "raised", "hair"}:
    assert _contrast(colors[name], colors["paper"]) >= 4.5, name
    assert _contrast(colors[name], colors["raised"]) >= 4.5, name


def _contrast(one: str, other: str) -> float:
  """Return the WCAG 2 contrast ratio."""

  def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * r + 0.7152 * g + 0.0722 * b

  light, dark = sorted((luminance(one), luminance(other)), reverse=True)
  return (light + 0.05) / (dark + 0.05)


def test_a_figure_of_very_many_cells_is_thinned_and_says_so(results, monkeypatch):
  monkeypatch.setattr("genbench_jax.report.scatter.MOST_DOTS", 30)
  monkeypatch.setattr("genbench_jax.report.scatter.MOST_RANKS", 100)
  found = agreements(results, "linear_probe")
  figure = metric_figure(found[0])
  dots = sum(shape.css.endswith("dot") for panel in figure.shown.panels for shape in panel.shapes)
  assert 0 < dots <= 30
  assert "one in 3 cells is drawn" in figure.caption
  assert "cells is drawn" in ranks_figure(found).caption
