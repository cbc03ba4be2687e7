"""The table in the terminal: columns, units, arrows, intervals and names."""

from genbench_jax.metrics.registry import METRICS
from genbench_jax.report.quantities import QUANTITIES
from genbench_jax.report.text_table import aligned, table

ROW = {
  "dataset": "digits",
  "source": "folder",
  "generator": "",
  "protocol": "strict",
  "seed": 0,
  "encoder": "clip",
}


def row(quantity, shots, value, low=None, high=None, **others):
  return {
    **ROW, "quantity": quantity, "shots": shots, "value": value, "ci_low": low, "ci_high": high, **others
  }  # fmt: skip


def test_lines_are_quantities_and_columns_are_budgets():
  rows = [
    row("zero_shot", 1, 0.25, 0.2, 0.3),
    row("cler", 1, 0.5, 0.45, 0.55),
    row("cler", 4, 0.625, 0.6, 0.65),
    row("fid", 1, 1234.5, 1200.1, 1300.2),
    row("cler_gain", 4, -0.012, -0.02, 0.001),
  ]
  assert table(rows).splitlines() == [
    "zero-shot on digits, without these images: 25.0 [20.0, 30.0] %",
    "",
    "folder, strict protocol           1 per class        4 per class",
    "CLER (%) ↑                  [45.0, 55.0] 50.0  [60.0, 65.0] 62.5",
    "CLER gain (points) ↑                           [−2.0, +0.1] −1.2",
    "FID (CLIP) ↓             [1,200, 1,300] 1,234",
  ]


def test_sources_controls_and_other_encoders_are_named():
  rows = [
    row("cler", 4, 0.5, generator="mine"),
    row("cler", 4, 0.6, generator="theirs"),
    row("fid", 4, 2.0, encoder="facebook/dinov2-base", generator="mine"),
    row("cler", 4, 0.1, source="control", generator="mine"),
  ]
  text = table(rows)
  assert "mine, strict protocol" in text and "theirs, strict protocol" in text
  assert "FID (dinov2-base) ↓" in text
  assert text.splitlines()[-1].startswith(
    "1 of the rows are controls, the same images with shuffled labels"
  )
  assert "10.0" not in text


def test_a_source_with_fewer_images_than_a_column_says_is_named():
  rows = [
    row("cler", 4, 0.5, generator="mine", shots_given=4.0),
    row("cler", 9, 0.5, generator="mine", shots_given=9.0),
    row("cler", 4, 0.5, generator="few", shots_given=3.5),
    row("cler", 9, 0.5, generator="few", shots_given=6.25),
  ]
  notes = [line for line in table(rows).splitlines() if "on average" in line]
  assert notes == ["few has 6.25 images per class, on average. Columns with more use all of them."]


def test_seeds_are_averaged():
  rows = [row("cler", 4, 0.5, 0.4, 0.6), row("cler", 4, 0.6, 0.5, 0.7, seed=1)]
  assert "[45.0, 65.0] 55.0" in table(rows)


def test_a_block_wider_than_the_terminal_is_continued_below():
  rows = [row("cler", shots, 0.5, 0.4, 0.6) for shots in (1, 4, 16, 64)]
  parts = table(rows, width=70).split("\n\n")
  assert [line.count("per class") for part in parts for line in part.splitlines()] == [2, 0, 2, 0]
  assert all(len(line) <= 70 for part in parts for line in part.splitlines())
  assert all(part.splitlines()[1].startswith("CLER (%) ↑") for part in parts)


def test_every_metric_has_its_name_and_its_arrow():
  """Quantities that the page does not know have no arrow: a plug-in's may point either way."""
  for metric in METRICS:
    if isinstance(metric.measure, str):
      assert all(QUANTITIES[name].better == metric.better for name in metric.names)
  text = table([row("near_copies", 1, 0.1), row("mine", 1, 0.1), row("mind", 1, 2.0)])
  assert "near copies ↓" in text and "MIND (CLIP) ↓" in text
  assert "mine  " in text and "mine ↑" not in text


def test_columns_never_touch():
  text = aligned([["a", "1"], ["b", "123,456,789"]])
  assert text.splitlines() == ["a            1", "b  123,456,789"]
