"""Hits on disk reach duels and comparisons under the keys of the rows they belong to, weighted as the metric weighs."""

import numpy as np
import pytest

from genbench_jax.report.duels import paired_estimate
from genbench_jax.report.hits import hits_of
from genbench_jax.report.results import Series, View
from genbench_jax.store import hits
from genbench_jax.store.hits import PerImage
from genbench_jax.store.rows import write_rows

VIEW = View("strict", "clip")
LABELS = np.repeat([0, 1], [30, 10])


def row(quantity, values, classes=LABELS, **more):
  found = PerImage(np.asarray(values, float), "t", classes)
  about = {"dataset": "pets", "source": "generative", "generator": "", "strategy": "s", "shots": 4, "seed": 0,
           "protocol": "strict", "encoder": "clip", "quantity": quantity, "value": found.score, **more}  # fmt: skip
  return about, found


def write(workdir, name, *pairs):
  lines = [hits.of_row(about, found) for about, found in pairs]
  hits.write(workdir / "hits" / "pets" / f"{name}.jsonl", lines)
  write_rows(workdir / "rows" / "pets" / f"{name}.jsonl", [about for about, _ in pairs])


def test_hits_are_found_by_cell_and_the_gain_is_their_difference(tmp_path):
  random = np.random.default_rng(0)
  cler, zero = row("cler", random.random(40) < 0.8), row("zero_shot", random.random(40) < 0.5)
  stale = row("cler", np.zeros(40))
  write(tmp_path, "a", stale)
  write(tmp_path, "b", cler, zero)
  # Other data gave the same value by chance.
  other = row("cler", np.roll(cler[1].values, 1), versions="of an earlier run")
  assert other[0]["value"] == cler[0]["value"]
  write(tmp_path, "c", other)
  rows = [cler[0], zero[0], {**cler[0], "quantity": "fid", "value": 0.2}]
  found = hits_of(tmp_path, rows, VIEW)
  cell = ("pets", Series("generative", "s"), 4, 0)
  assert set(found) == {(*cell, name) for name in ("cler", "zero_shot", "cler_gain")}
  assert np.array_equal(found[(*cell, "cler")].values, cler[1].values)  # not the stale file's
  gain = found[(*cell, "cler_gain")]
  assert gain.score == pytest.approx(cler[0]["value"] - zero[0]["value"])
  assert hits_of(tmp_path, rows, View("reference", "clip")) == {}


def test_classes_weigh_as_in_the_score():
  """One more image of the small class recognized is 5 points of the mean per class, and 2.5 of accuracy."""
  before, after = np.ones(40), np.ones(40)
  before[-1] = 0
  found = paired_estimate(
    [(PerImage(after, "t", LABELS), PerImage(before, "t", LABELS))], (None, None)
  )
  assert found.value == pytest.approx(0.05)
  plain = paired_estimate([(PerImage(after, "t"), PerImage(before, "t"))], (None, None))
  assert plain.value == pytest.approx(0.025)
