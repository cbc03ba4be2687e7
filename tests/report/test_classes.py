"""The best and the worst classes."""

import dataclasses

import pytest

from genbench_jax.report.classes import ClassScores, classes_figure, with_series
from genbench_jax.report.page import write_report
from genbench_jax.report.results import Series


def _scores(source, strategy="", shots=16, quantity="linear_probe", classes=30):
  names = [f"class {i}" for i in range(classes)]
  zero_shot = dict.fromkeys(names, 0.5)
  scores = {name: 0.5 + (i - 10) / 100 for i, name in enumerate(names)}
  return ClassScores("d", source, strategy, shots, quantity, scores, zero_shot)


def _names(panel):
  return [text.text for text in panel.texts if text.css.startswith("name")]


def test_extremes_of_many_classes_are_shown():
  panel = classes_figure([_scores("generative", "simple_template")]).shown.panels[0]
  best = [f"class {i}" for i in range(29, 23, -1)]
  worst = [f"class {i}" for i in range(5, -1, -1)]
  assert _names(panel) == best + worst
  assert (panel.title, panel.note) == ("d", "12 of 30 classes")
  assert "class 29: generated +19.0" in panel.description


def test_all_of_few_classes_are_shown():
  panel = classes_figure([_scores("original", classes=5)]).shown.panels[0]
  assert len(_names(panel)) == 5
  assert panel.note == ""


def test_headline_strategy_largest_budget_and_trained_recognizer_are_chosen():
  figure = classes_figure([
    _scores("generative", "simple_template"),
    _scores("generative", "defined_template", shots=4),
    _scores("generative", "defined_template", shots=8),
    _scores("generative", "defined_template", shots=16, quantity="cler"),
    _scores("control", "defined_template", shots=32),
  ])  # fmt: skip
  assert "linear probe, 8 images per class" in figure.caption


def test_generators_have_the_colors_and_names_of_the_page():
  page = [Series("folder", "x", name, hue, only=True) for hue, name in ((1, "b"), (2, "a"))]
  scores = [
    dataclasses.replace(_scores("folder", "x", classes=3), generator=name) for name in ("a", "b")
  ]
  found = with_series(scores, page)
  assert [cell.series.hue for cell in found] == [2, 1]
  keys = classes_figure(found).shown.keys
  assert [key.text for key in keys] == ["b", "a"]  # in the order of the page
  assert len({key.css for key in keys}) == 2


@pytest.mark.parametrize("scores", [[], [_scores("control")]])
def test_no_scores_no_figure(scores):
  assert classes_figure(scores) is None


def test_page_has_the_figure_and_the_findings(rows, tmp_path):
  run = {"prompt_lint": ["<u>12</u> prompts are cut."], "leak_audit": ["No duplicate found."]}
  page = write_report(rows, [], run, tmp_path, [_scores("original")])
  text = page.read_text(encoding="utf-8")
  assert "Strengths and weaknesses" in text
  assert "&lt;u&gt;12&lt;/u&gt; prompts are cut." in text
  assert "Leak audit (1)" in text
  assert (tmp_path / "figures" / "classes.svg").exists()
