"""Tables as CSV, LaTeX and Markdown."""

import csv
import io

import pytest

from genbench_jax.report.cell_table import cell_data
from genbench_jax.report.labels import series_label
from genbench_jax.report.number_words import number, percent, points, shown
from genbench_jax.report.quantities import quantity_of
from genbench_jax.report.results import results_of, views
from genbench_jax.report.tables import (
  Table,
  as_csv,
  as_latex,
  as_markdown,
  cells_table,
  gains_table,
)


def test_cells_csv_has_the_numbers_of_the_rows(rows):
  table = cells_table([results_of(rows, views(rows)[0])])
  lines = list(csv.DictReader(io.StringIO(as_csv(table))))
  assert len(lines) == 150
  row = next(r for r in rows if r["quantity"] == "fid" and r["dataset"] == "shapes")
  line = next(
    li
    for li in lines
    if all(li[k] == str(row[k]) for k in ("dataset", "source", "strategy", "shots"))
  )
  assert float(line["fid"]) == row["value"]
  assert line["fid_ci_low"] == ""
  assert float(line["zero_shot"]) == 0.82


def test_gains_table_counts_the_datasets(rows):
  table = gains_table(results_of(rows, views(rows)[0]), ("linear_probe",))
  means = [row for row in table.rows if row[3] == "all datasets"]
  assert {row[4] for row in means} == {3}
  assert len(table.rows) == 5 * 5 * 4


def test_real_images_seen_are_beside_the_shots():
  columns = ("dataset", "shots", "seed", "cler", "cler_ci_low", "cler_ci_high", "n_test", "n_real")
  data = cell_data(Table("t", "", columns, (("digits", 4, 0, 0.5, 0.4, 0.6, 100, 40),)))
  assert [column["name"] for column in data["columns"]] == [
    "dataset",
    "shots",
    "n_real",
    "cler",
    "n_test",
  ]
  assert data["rows"] == [["digits", 4, 40, [0.5, 0.4, 0.6], 100]]


def test_hostile_names_are_escaped():
  table = Table("t", "100 % & more", ("a_b", "|"), (("x|<b>\\", 1.23456), (None, 2)))
  assert as_markdown(table).splitlines()[2] == r"| x\|\<b\>\\ | 1.235 |"
  latex = as_latex(table)
  assert r"\caption{100 \% \& more}" in latex
  assert r"x|<b>\textbackslash{} & 1.235 \\" in latex
  assert r"\begin{longtable}{lr}" in latex


@pytest.mark.parametrize(
  ("value", "text"),
  [(0.0, "0.00"), (0.12345, "0.123"), (31.46, "31.5"), (1234.4, "1,234"), (2e-5, "0.0000200")],
)
def test_numbers_have_three_digits(value, text):
  assert number(value) == text


def test_percent_and_points():
  assert percent(0.9314) == "93.1"
  assert points(-0.0123) == "−1.2"
  assert points(-0.0001) == "0.0"
  assert shown(quantity_of("fid"), 0.5) == "0.500"
  assert shown(quantity_of("my_metric"), 0.5) == "0.500"
  assert series_label("generative", "simple_template") == "generated, simple template"
