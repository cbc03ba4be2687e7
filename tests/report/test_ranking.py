"""The ranking of generators: places, comparisons, costs, sweeps and the front."""

import json

import numpy as np
import pytest

from genbench_jax.report.duels import duels, paired_estimate
from genbench_jax.report.exchange import (
  exchange_of,
  exchange_sentence,
  exchange_words,
)
from genbench_jax.report.generators import Cost, costs_of, settings_of
from genbench_jax.report.ranking import duels_table, ranking_table, ranks
from genbench_jax.report.results import Estimate, Series, results_of, views
from genbench_jax.report.scaling import (
  POINTS,
  scaling_curves,
  scaling_figure,
  scaling_table,
)
from genbench_jax.report.sweeps import curves_of, front_figure, front_of, sweeps_figure
from genbench_jax.store.hits import PerImage


@pytest.fixture(scope="module")
def results(many):
  rows = many.many_rows(encoders=many.ENCODERS[:1])
  return results_of(rows, views(rows)[0])


@pytest.fixture(scope="module")
def compared(results):
  series = results.headline_series()
  found = duels(results, series, 64, "linear_probe")
  return found, ranks(results, series, 64, "linear_probe", found)


def test_sources_that_cannot_be_told_apart_share_a_place(compared):
  found, ranked = compared
  assert ranked[0].series.source == "original"
  values = [rank.accuracy.value for rank in ranked]
  assert values == sorted(values, reverse=True)
  places = [rank.place for rank in ranked]
  assert places == sorted(places) and places[0] == 1
  lost = {
    (duel.winner, loser) for duel in found for loser in (duel.first, duel.second) if duel.winner
  }
  for index, rank in enumerate(ranked):
    first = next(other for other in ranked if other.place == rank.place)
    assert rank is first or (first.series, rank.series) not in lost
    assert rank.place <= index + 1


def test_false_winners_are_as_rare_as_promised():
  """With ten equal sources and 45 comparisons, 95 % of the runs have no winner (Holm)."""
  random = np.random.default_rng(0)
  runs, wrong = 200, 0
  for _ in range(runs):
    series = [Series("generative", "", f"g{i}") for i in range(10)]
    hits = {
      ("d", one, 1, 0, "linear_probe"): PerImage((random.random(300) < 0.7).astype(float))
      for one in series
    }
    rows = [
      {"dataset": "d", "source": "generative", "generator": one.generator, "strategy": "", "shots": 1, "seed": 0,
       "quantity": "linear_probe", "value": float(hits["d", one, 1, 0, "linear_probe"].values.mean())}
      for one in series
    ]  # fmt: skip
    results = results_of(rows, views(rows)[0])
    wrong += any(duel.winner for duel in duels(results, series, 1, "linear_probe", hits))
  assert wrong / runs < 0.09


def test_pairing_removes_the_shared_variance_of_the_test_images():
  """The interval equals the formula for a mean of differences, not for two independent means."""
  random = np.random.default_rng(1)
  shared = random.random(500) < 0.6
  one = PerImage(np.where(random.random(500) < 0.05, 1, shared).astype(float), "t")
  other = PerImage(shared.astype(float), "t")
  found = paired_estimate([(one, other)], (None, None))
  each = one.values - other.values
  assert found.value == pytest.approx(each.mean())
  # Agresti and Min add an image to each side, which is slightly wider than the plain formula.
  half = 1.959964 * each.std(ddof=1) / np.sqrt(500)
  assert half < (found.high - found.low) / 2 < 1.25 * half
  assert paired_estimate([(one, PerImage(other.values, "u"))], (None, None)) is None
  assert paired_estimate([(one, None)], (None, None)) is None


def test_variance_of_other_images_of_the_generator_is_added():
  hits = [(PerImage(np.ones(100)), PerImage(np.zeros(100)))]
  wide = Estimate(1.0, 0.97, 1.03, 0.95, 1.05)
  found = paired_estimate(hits, (wide, wide))
  images = 2 * (0.1**2 - 0.06**2) / 4
  near = (found.high - found.low) / 2
  assert (found.wide_high - found.wide_low) / 2 == pytest.approx(np.sqrt(near**2 + images))
  assert paired_estimate(hits, (None, None)).wide_interval is None


def test_ranking_shows_quality_cost_and_money(results, compared, many):
  ranked = compared[1]
  run = many.many_run()
  table = ranking_table(
    results, ranked, 64, "linear_probe", gain_quantity="linear_probe",
    costs=costs_of(run, results), settings=settings_of(run), price=1.2,
  )  # fmt: skip
  assert table.columns[:2] == ("place", "images")
  for name in (
    "CLER, %",
    "FID (CLIP) above floor",
    "Vendi",
    "steps",
    "guidance",
    "chip-hours",
    "USD",
  ):
    assert name in table.columns
  assert "FID (CLIP)" not in table.columns
  line = next(
    dict(zip(table.columns, row, strict=True)) for row in table.rows if row[1] == "sd-turbo"
  )
  assert (line["steps"], line["guidance"]) == ("1", "0")
  assert line["images per second and chip"] == f"{1 / 0.12:.2f}"
  # 4 datasets of 1280 images of 0.12 s each, and a minute of compilation on 4 chips.
  hours = 4 * (1280 * 0.12 + 60 * 4) / 3600
  assert float(line["chip-hours"]) == pytest.approx(hours, rel=0.01)
  assert float(line["USD"]) == pytest.approx(1.2 * hours, rel=0.01)
  original = next(
    dict(zip(table.columns, row, strict=True)) for row in table.rows if row[1] == "original"
  )
  assert original["steps"] is None and original["USD"] is None


def test_pairwise_comparisons_are_antisymmetric(compared):
  found, ranked = compared
  table = duels_table(found, ranked)
  grid = [row[1:] for row in table.rows]
  opposite = {"better": "worse", "worse": "better", "=": "="}
  for i, row in enumerate(grid):
    assert row[i] == ""
    for j, cell in enumerate(row):
      if i != j:
        assert opposite[cell.split()[1]] == grid[j][i].split()[1]


def test_costs_belong_to_the_longest_matching_generator_name(results, many):
  run = many.many_run()
  costs = costs_of(run, results)
  assert set(costs) == set(many.GENERATORS)
  assert costs["sd21-g7.5-s10"].rate == pytest.approx(1.0)
  assert costs["sd21-g7.5"].rate == pytest.approx(1 / 2.4)
  assert costs_of({"costs": {"pets original-seed0": {"images": 1}}}, results) == {}


def test_costs_of_generators_without_rows_and_of_twins(results, many):
  """A longer name without rows is not its prefix; equal settings share images, and their cost."""
  cost = {"images": 10, "seconds": 10.0, "warm_images": 8, "warm_seconds": 4.0}
  table = {"sd21-g7.5": {"steps": 5}, "sd21-g7.5-more": {"steps": 9}, "twin": {"steps": 5}}
  run = {
    "config": json.dumps({"generation": {"steps": 7}, "generators": table}),
    "costs": {
      f"pets generative-{name}-simple_template-seed0": cost
      for name in ("sd21-g7.5", "sd21-g7.5-more")
    },
  }
  costs = costs_of(run, results)
  assert {name: each.images for name, each in costs.items()} == dict.fromkeys(table, 10)
  assert costs["twin"] == costs["sd21-g7.5"] and costs["twin"].rate == 2


@pytest.mark.parametrize("config", ["", "no JSON", "[]", '{"generators": 3}', '{"generation": 4}'])
def test_a_config_without_generators_has_no_settings(config):
  assert settings_of({"config": config}) == {}


def test_generator_settings_override_the_shared_ones():
  base = {"generation": {"steps": 50, "scheduler": "ddim"}}
  table = {**base, "generators": {"a": {"steps": 4}}}
  listed = {**base, "generators": [{"name": "a", "steps": 4}]}
  for config in (table, listed):
    assert settings_of({"config": json.dumps(config)}) == {"a": {"steps": 4, "scheduler": "ddim"}}
  assert settings_of({"config": json.dumps(base)}) == {"": base["generation"]}


def test_a_sweep_joins_generators_that_differ_in_one_setting(compared, many):
  ranked, settings = compared[1], settings_of(many.many_run())
  (guidance,) = curves_of(ranked, settings, "guidance_scale")
  assert [(x, one.generator) for x, one, _ in guidance] == [
    (1.5, "sd21-g1.5"), (3.0, "sd21-g3"), (7.5, "sd21-g7.5")
  ]  # fmt: skip
  (steps,) = curves_of(ranked, settings, "steps")
  assert [x for x, _, _ in steps] == [10.0, 25.0]
  figure = sweeps_figure(ranked, settings, "linear_probe")
  assert [panel.title for panel in figure.shown.panels] == [
    "against guidance scale",
    "against steps",
  ]
  assert sweeps_figure(ranked, {}, "linear_probe") is None


def test_the_front_contains_points_that_no_cheaper_one_beats():
  points = [
    (cost, Series("generative", "", str(cost)), Estimate(value))
    for cost, value in ((3, 0.5), (1, 0.3), (2, 0.6), (4, 0.7))
  ]
  assert [cost for cost, _, _ in front_of(points)] == [1, 2, 4]


def test_the_front_needs_two_costs(compared, many):
  ranked = compared[1]
  costs = {name: Cost(100, 50.0, 2.0 + i) for i, name in enumerate(many.GENERATORS)}
  assert "sdxl" in front_figure(ranked, costs, "linear_probe").shown.panels[0].description
  assert front_figure(ranked, {"sdxl": Cost(100, 50.0, 2.0)}, "linear_probe") is None


def test_exchange_rate_is_the_number_of_originals_with_equal_accuracy(results, many):
  found = exchange_of(results, results.headline_series(), 64, "linear_probe")
  assert {one.generator for one in found} == set(many.GENERATORS)
  sdxl = next(rate for one, rate in found.items() if one.generator == "sdxl")
  turbo = next(rate for one, rate in found.items() if one.generator == "sd-turbo")
  assert 4 < sdxl.value < 64 and sdxl.low < sdxl.value
  assert turbo.value < sdxl.value
  assert exchange_sentence(sdxl).startswith("They are worth ")
  assert "original images per class (" in exchange_sentence(sdxl)
  assert "real images" not in exchange_words(sdxl)


def test_one_budget_of_originals_gives_no_exchange_rate(results, many):
  rows = [
    r
    for r in many.many_rows(encoders=many.ENCODERS[:1])
    if r["source"] != "original" or r["shots"] == 64
  ]
  some = results_of(rows, views(rows)[0])
  rate = exchange_of(some, some.headline_series()[:1], 64, "linear_probe")[
    some.headline_series()[0]
  ]
  assert rate.value is None
  assert "is unknown: real images were tested at a single number" in exchange_sentence(rate)
  without = [r for r in rows if r["source"] != "original"]
  assert (
    exchange_of(
      results_of(without, views(without)[0]), results.headline_series(), 64, "linear_probe"
    )
    == {}
  )


def test_power_laws_are_in_a_table(results):
  curves = scaling_curves(results, results.headline_series(), "linear_probe")
  table = scaling_table(curves, "linear_probe")
  assert table.columns == ("images", "exponent", "limit of the accuracy, %")
  assert "sdxl" in [row[0] for row in table.rows]


def test_power_laws_are_drawn_through_their_points(results):
  curves = scaling_curves(results, results.headline_series(), "linear_probe")
  assert {one.series.source for one in curves} >= {"generative"}
  (wide, narrow) = scaling_figure(curves, "linear_probe").shown.panels
  lines = [shape for shape in wide.shapes if shape.css.endswith(" line")]
  assert len(lines) == len(curves)
  assert all(len(line.path.split("L")) == POINTS for line in lines)
  first = curves[0]
  assert f"{100 * first.law.accuracy(2 * first.points[-1].images):.1f}" in wide.description
  assert narrow.width < wide.width
  assert scaling_figure([], "linear_probe") is None and scaling_table([], "linear_probe") is None
