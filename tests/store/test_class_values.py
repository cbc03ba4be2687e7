"""Values of single classes are stored next to the rows and passed to the page."""

import pytest

from genbench_jax.report.classes import class_scores
from genbench_jax.store import class_values

ROW = {
  "dataset": "d", "source": "generative", "strategy": "simple_template", "shots": 4, "seed": 0,
  "protocol": "strict", "encoder": "e", "quantity": "cler", "value": 0.5, "ci_low": 0.4, "ci_high": 0.6,
  "n_external": 8, "n_test": 9, "missing_classes": 0, "seconds": 0.1,
}  # fmt: skip
NAMES = ("missile", "dog", "missile")


def _values(by_class, **changed):
  return class_values.of_row({**ROW, **changed}, by_class, NAMES)


def test_class_values_are_read_by_name(tmp_path):
  written = [_values({2: 1 / 3, 0: 1.0}), _values({1: 0.0}, quantity="vendi")]
  class_values.write(tmp_path / "x.jsonl", written)
  assert class_values.read(tmp_path / "x.jsonl") == written
  assert written[0]["values"] == {"missile": 1.0, "missile (2)": 0.333333}
  assert "value" not in written[0]


def test_the_page_compares_recognizers_with_zero_shot_over_seeds():
  found = class_scores([
    _values({0: 0.5, 1: 0.25}, quantity="zero_shot"),
    _values({0: 1.0, 1: 0.5}),
    _values({0: 0.5, 1: 0.5}, seed=1),
    _values({0: 0.1, 1: 0.1}, protocol="reference"),
    _values({0: 3.0}, quantity="vendi"),
  ])  # fmt: skip
  (one,) = found
  assert (one.dataset, one.source, one.shots, one.quantity) == ("d", "generative", 4, "cler")
  assert one.scores == pytest.approx({"missile": 0.75, "dog": 0.5})
  assert one.zero_shot == {"missile": 0.5, "dog": 0.25}
  assert class_scores([]) == []
