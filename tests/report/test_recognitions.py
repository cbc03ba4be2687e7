"""Stored predictions: confusions, hits and the chosen penalty."""

import csv

import numpy as np
import pytest

from genbench_jax.report.class_table import class_data
from genbench_jax.report.classes import ClassScores, class_gain, wilson
from genbench_jax.report.confusion import class_counts, confusion_figure, most_confused, taken_for
from genbench_jax.report.recognitions import penalty_words, recognitions
from genbench_jax.report.results import Series
from genbench_jax.store import files
from genbench_jax.store.rows import write_rows

NAMES = ("cat", "dog", "owl")
CONFUSION = np.array([[8, 2, 0], [1, 9, 0], [0, 5, 5]])
ROW = {
  "dataset": "pets", "source": "generative", "generator": "", "strategy": "simple_template", "shots": 4, "seed": 0,
  "protocol": "strict", "encoder": "e", "quantity": "linear_probe", "value": 22 / 30, "seconds": 1.0,
}  # fmt: skip


def _write(workdir, name, score=22 / 30, seconds=1.0, penalty=0.10000000149011612):
  folder = workdir / "recognizers" / "pets" / name / "linear_probe-strict-4shots"
  folder.mkdir(parents=True)
  write_rows(
    workdir / "rows" / "pets" / f"{name}.jsonl", [{**ROW, "value": score, "seconds": seconds}]
  )
  summary = {
    "dataset": "pets", "source": "generative", "strategy": "simple_template", "seed": 0, "score": score,
    "penalty": penalty, "validation_losses": {"10.0": 2.0, "1.0": 1.0, "0.1": 0.5},
  }  # fmt: skip
  files.write_json(folder / "summary.json", summary)
  with (folder / "confusion.csv").open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["true class", *(f"{i} {name}" for i, name in enumerate(NAMES))])
    writer.writerows([f"{i} {NAMES[i]}", *counts] for i, counts in enumerate(CONFUSION.tolist()))


@pytest.fixture
def found(tmp_path):
  _write(tmp_path, "current")
  _write(tmp_path, "of other settings", score=0.5)
  _write(tmp_path, "a score that is equal by chance", seconds=2.0)
  return recognitions(tmp_path, [ROW], "linear_probe", 4, "strict")


def test_only_predictions_of_a_row_are_read(found):
  (one,) = found
  assert one.series == Series("generative", "simple_template")
  assert one.class_names == NAMES
  assert np.array_equal(one.confusion, CONFUSION)


def test_a_penalty_at_the_edge_of_its_grid_is_reported(found):
  assert found[0].at_edge and found[0].penalty == 0.1
  assert "among 0.1 to 10: 0.1 in the headline's cells; 1 of 1 lie at the edge" in penalty_words(
    found
  )
  assert penalty_words([]) == ""


def test_other_recognizers_and_multi_label_sets_have_none(tmp_path):
  assert recognitions(tmp_path, [ROW], "cler", 4, "strict") == []
  _write(tmp_path, "x")
  next(tmp_path.rglob("confusion.csv")).unlink()
  (one,) = recognitions(tmp_path, [ROW], "linear_probe", 4, "strict")
  assert one.confusion is None
  assert confusion_figure([one]) is None


def test_most_frequent_confusion_of_a_class(found):
  assert taken_for(found[0]) == {"cat": "dog (2)", "dog": "cat (1)", "owl": "dog (5)"}
  assert class_counts(found) == {"pets": {"cat": 10, "dog": 10, "owl": 10}}


def test_the_matrix_shows_the_most_confused_classes(found):
  assert most_confused(CONFUSION, 2) == [1, 2]
  figure = confusion_figure(found)
  wide, narrow = figure.shown.panels
  assert "8 of 30 test images" in wide.description
  tips = [shape.tip for shape in wide.shapes if shape.tip]
  assert "5 of 10 test images of owl were classified as dog" in tips
  assert len(tips) == np.count_nonzero(CONFUSION)
  assert {"80.0", "90.0", "50.0"} <= {text.text for text in narrow.texts}


def test_class_intervals_are_wilson_intervals():
  """The values for 81 of 263 and 0 of 20 are those of Newcombe 1998."""
  found = wilson(81 / 263, 263)
  assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)
  assert wilson(0.0, 20).high == pytest.approx(0.1611, abs=1e-4)
  assert wilson(1.0, 20).low < 1 and wilson(1.0, 20).high == 1
  assert wilson(0.5, None).low is None


def test_the_table_of_classes(found):
  scores = ClassScores(
    "pets", "generative", "simple_template", 4, "linear_probe",
    dict(zip(NAMES, (0.8, 0.9, 0.5), strict=True)), dict.fromkeys(NAMES, 0.6),
  )  # fmt: skip
  data, left_out = class_data(
    [scores], class_counts(found), {("pets", scores.series): taken_for(found[0])}
  )
  assert left_out == 0
  assert [column["label"] for column in data["columns"]] == [
    "dataset", "class", "test images", "zero-shot", "generated, simple template", "gain", "most often classified as"
  ]  # fmt: skip
  owl = data["rows"][2]
  assert owl[:3] == ["pets", "owl", 10]
  assert owl[5][0] == pytest.approx(class_gain(scores, "owl", 10).value)
  assert owl[5][1] < -0.1 < owl[5][2]
  assert owl[6] == "dog (5)"


def test_too_many_classes_are_thinned_to_the_extremes(monkeypatch):
  monkeypatch.setattr("genbench_jax.report.class_table.MOST_LINES", 10)
  names = [f"c{i:02d}" for i in range(40)]
  scores = ClassScores(
    "d",
    "generative",
    "",
    4,
    "cler",
    {n: i / 40 for i, n in enumerate(names)},
    dict.fromkeys(names, 0.5),
  )
  data, left_out = class_data([scores], {}, {})
  assert left_out == 30
  assert [row[1] for row in data["rows"]] == names[:5] + names[-5:]
