"""Rows become cells, views and estimates."""

import math

import numpy as np
import pytest
from scipy import stats

from genbench_jax.report.results import (
  Estimate,
  Series,
  View,
  beside_their_encoder,
  fold_seeds,
  results_of,
  unreadable,
  views,
  with_control,
)

GENERATED = Series("generative", "defined_template")


def test_cells_contain_all_measurements(rows):
  results = results_of(rows, views(rows)[0])
  assert results.datasets == ("digits", "digits_hard", "shapes")
  assert results.shots == (1, 2, 4, 8, 16)
  # 4 strategies and the originals, each with a control, at 5 budgets on 3 datasets.
  assert len(results.cells) == 3 * 5 * 2 * (4 + 1)
  assert len(results.measured) == 3 * 5 * (4 + 1)
  cell = next(c for c in results.cells if c.series == GENERATED and c.shots == 8)
  row = next(
    r
    for r in rows
    if (r["dataset"], r["strategy"], r["shots"], r["quantity"], r["source"])
    == ("digits", "defined_template", 8, "linear_probe", "generative")
  )
  assert cell.estimates["linear_probe"].value == row["value"]
  assert cell.facts == {"n_external": 80, "n_test": 400, "missing_classes": 0, "seconds": 4.5}
  assert results.zero_shot["shapes"].value == 0.82


def test_headline_series_is_chosen_by_convention_not_by_result(rows):
  results = results_of(rows, views(rows)[0])
  assert results.headline_series() == (GENERATED, Series("original", ""))
  control = Series("control", "defined_template")
  assert with_control(results, (GENERATED,), "cler") == (GENERATED, control)
  assert with_control(results, (GENERATED,), "linear_probe") == (GENERATED,)


def test_views_separate_protocols_and_encoders(rows):
  other = [dict(row, protocol="reference", value=0.5) for row in rows[:40]]
  shared = [dict(rows[1], protocol="", encoder="", quantity="vendi", value=3.0)]
  found = views([*other, *rows, *shared])
  assert found == (View("strict", "zoo/clip"), View("reference", "zoo/clip"))
  strict = results_of([*other, *rows, *shared], found[0])
  assert len(strict.cells) == 150
  assert strict.estimate("digits", Series("generative", "simple_template"), 1, "vendi").value == 3.0


def test_rows_without_a_finite_value_are_counted_and_left_out(rows):
  broken = [dict(rows[1], value=value) for value in (None, math.nan, math.inf)]
  assert unreadable([*rows, *broken]) == 3
  assert results_of(broken, views(rows)[0]).cells == ()


def test_seeds_are_folded_into_two_intervals():
  """For these images the half-width is the mean; for the generator the spread of seeds is added."""
  values = [0.50, 0.54, 0.58]
  folded = fold_seeds([Estimate(v, v - 0.03, v + 0.03) for v in values])
  spread = stats.t.interval(0.95, 2, loc=0.54, scale=stats.sem(values))[1] - 0.54
  assert folded.value == pytest.approx(0.54)
  assert folded.interval == pytest.approx((0.51, 0.57))
  assert folded.wide_interval == pytest.approx(
    (0.54 - np.hypot(0.03, spread), 0.54 + np.hypot(0.03, spread))
  )
  assert fold_seeds([Estimate(0.5, 0.4, 0.6), Estimate(0.7)]) == Estimate(0.6)


def test_seeds_that_agree_by_chance_keep_the_rows_image_variance():
  rows = [Estimate(0.5, 0.47, 0.53, 0.45, 0.55)] * 2
  folded = fold_seeds(rows)
  images = np.sqrt(0.05**2 - 0.03**2) / np.sqrt(2)
  assert folded.wide_high == pytest.approx(0.5 + np.hypot(0.03, images))
  assert fold_seeds(rows[:1]).wide_low == 0.45


def test_generators_are_distinguished_and_colored(rows):
  other = [r | {"generator": "turbo"} for r in rows if r["source"] == "generative"]
  named = [r | {"generator": "sd"} if r["source"] == "generative" else r for r in rows]
  results = results_of([*named, *other], views(rows)[0])
  assert [one.generator for one in results.generators] == ["sd", "turbo"]
  assert [one.hue for one in results.generators] == [1, 2]
  assert results_of(named, views(named)[0]).generators == ()


def test_a_floor_becomes_an_excess(rows):
  floored = [
    r | {"floor": 0.1, "ci_low": 0.2, "ci_high": 0.3} if r["quantity"] == "fid" else r for r in rows
  ]
  results = results_of(floored, views(floored)[0])
  fid, excess = (results.estimate("shapes", GENERATED, 8, name) for name in ("fid", "fid_excess"))
  assert excess.value == pytest.approx(fid.value - 0.1)
  assert excess.interval == pytest.approx((0.1, 0.2))


def test_rows_of_an_encoder_without_accuracies_become_quantities_of_the_cell():
  cell = {"dataset": "digits", "source": "original", "strategy": "", "shots": 1, "seed": 0}
  clip = {**cell, "protocol": "strict", "encoder": "clip", "quantity": "cler", "value": 0.5}
  other = {**cell, "protocol": "strict", "encoder": "a/dinov2", "quantity": "fid", "value": 9.0}
  assert beside_their_encoder([clip, other])[1] == other | {
    "quantity": "fid [a/dinov2]",
    "encoder": "",
  }
  assert beside_their_encoder([other]) == [other]


def test_distances_name_their_features(rows):
  """The label says CLIP only if the encoder is a CLIP."""
  from genbench_jax.report.quantities import quantity_of

  other = [row | {"encoder": "google/siglip2-base"} for row in rows]
  results = results_of(other, views(other)[0])
  name = next(name for name in results.quantities if name.startswith("fid"))
  assert quantity_of(name).label == "FID (siglip2-base)"
  assert "fid" in results_of(rows, views(rows)[0]).quantities
  assert quantity_of("fid").label == "FID (CLIP)"
  assert quantity_of("fid_inception").label == "FID (Inception)"
