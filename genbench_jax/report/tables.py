"""Tables for the page and as CSV, LaTeX and Markdown files."""

import dataclasses
import re
from collections.abc import Sequence

from genbench_jax.report.agreement import Agreement
from genbench_jax.report.gains import Average, average_gain, budgets, gain, gains
from genbench_jax.report.labels import budget_words
from genbench_jax.report.number_words import p_value, percent, points
from genbench_jax.report.quantities import by_quantity, quantity_of
from genbench_jax.report.results import Estimate, Results
from genbench_jax.store.files import csv_line
from genbench_jax.store.rows import KEYS

Value = str | int | float | None
FACTS = ("shots_given", "n_external", "n_real", "n_test", "missing_classes", "seconds")
LATEX = {
  "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
  "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
  "−": "$-$", "–": "--", "ρ": r"$\rho$", "×": r"$\times$",
}  # fmt: skip

_LATEX = str.maketrans(LATEX)


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of plain values; None is an empty cell."""

  name: str
  caption: str
  columns: tuple[str, ...]
  rows: tuple[tuple[Value, ...], ...]


def cells_table(all_results: Sequence[Results]) -> Table:
  """Return one line per cell, and one column per quantity followed by the ends of its interval."""
  names = sorted({name for results in all_results for name in results.quantities}, key=by_quantity)
  measured = tuple(c for n in ("zero_shot", *names) for c in (n, f"{n}_ci_low", f"{n}_ci_high"))
  rows = []
  for results in all_results:
    for cell in results.cells:
      known = {"zero_shot": results.zero_shot.get(cell.dataset), **cell.estimates}
      item = cell.series
      key = (cell.dataset, item.source, item.generator, item.strategy, cell.shots, cell.seed)
      ends = tuple(end for name in ("zero_shot", *names) for end in _ends(known.get(name)))
      facts = tuple(cell.facts.get(fact) for fact in FACTS)
      rows.append((*key, cell.protocol, cell.encoder, *ends, *facts))
  return Table("cells", "All cells.", (*KEYS, *measured, *FACTS), tuple(rows))


def gains_table(results: Results, quantities: Sequence[str]) -> Table:
  """Return gains over zero-shot in points by dataset, on average and by source."""
  rows: list[tuple[Value, ...]] = []
  for quantity in quantities:
    for shots in budgets(results, quantity):
      for item in results.series:
        label = (
          quantity_of(quantity).label,
          item.label,
          shots,
        )
        if mean := average_gain(results, item, shots, quantity):
          rows.append((*label, "all datasets", len(mean.included), *_points(mean)))
        each = gains(results, item, shots, quantity)
        rows += [(*label, dataset, 1, *_points(found)) for dataset, found in each.items()]
  columns = ("measured by", "images", "shots", "dataset", "datasets", "gain", "low", "high")
  return Table(
    "gains", "Accuracy above zero-shot in points, with 95 % intervals.", columns, tuple(rows)
  )


def headline_table(results: Results, quantity: str, shots: int) -> Table:
  """Return the numbers of the headline figure: one line per dataset, one column per source.

  Args:
    results: the rows.
    quantity: the recognizer.
    shots: images per class.
  """
  series = results.headline_series()
  means = [average_gain(results, item, shots, quantity) for item in series]
  rows = [
    (
      name,
      percent(results.zero_shot[name].value),
      *(words_of(gain(results, name, item, shots, quantity)) for item in series),
    )
    for name in results.datasets
    if name in results.zero_shot
  ]
  mean = ("all datasets", "", *(words_of(m.estimate if m else None) for m in means))
  labels = [item.label for item in series]
  caption = f"{quantity_of(quantity).label} at {budget_words(shots)}: points above zero-shot, 95 % intervals."
  return Table("headline", caption, ("dataset", "zero-shot, %", *labels), (*rows, mean))


def views_table(all_results: Sequence[Results], quantity: str, shots: int) -> Table:
  """Return the mean gain of each source under each protocol and encoder.

  Args:
    all_results: the results of each protocol and encoder.
    quantity: the recognizer.
    shots: images per class.
  """
  series = all_results[0].headline_series()
  rows = []
  for results in all_results:
    means = [average_gain(results, item, shots, quantity) for item in series]
    counts = sorted({len(mean.included) for mean in means if mean})
    name = ", ".join(filter(None, (results.view.protocol, results.view.encoder)))
    gained = (words_of(mean.estimate if mean else None) for mean in means)
    rows.append((name, "–".join(str(count) for count in counts), *gained))
  labels = [item.label for item in series]
  caption = (
    f"{quantity_of(quantity).label}, {budget_words(shots)}: points above zero-shot, averaged."
  )
  return Table("views", caption, ("protocol, encoder", "datasets", *labels), tuple(rows))


def words_of(estimate: Estimate | None) -> str:
  """Return `+1.2 (0.3 to 2.1)` in points, with the interval for the generator if known."""
  if estimate is None:
    return "–"
  ends = estimate.wide_interval or estimate.interval
  return (
    f"{points(estimate.value)} ({points(ends[0])} to {points(ends[1])})"
    if ends
    else points(estimate.value)
  )


def agreement_table(items: Sequence[Agreement]) -> Table:
  """Return the rank correlations of every metric: within groups, by dataset and pooled."""
  datasets = list(dict.fromkeys(name for item in items for name in item.cells))
  rows = tuple(
    (
      _metric_label(item), _rounded(item.mean), *(_rounded(end) for end in item.interval or (None, None)), None if item.p is None else p_value(item.p), len(item.known), item.count,
      *(_rounded(item.of_dataset(name)) for name in datasets), _rounded(item.pooled),
    )
    for item in items
  )  # fmt: skip
  columns = (
    "metric",
    "within dataset and shots",
    "low",
    "high",
    "p, corrected",
    "groups",
    "cells",
    *datasets,
    "pooled over all",
  )
  return Table("rank-correlations", "Spearman’s rank correlation with accuracy.", columns, rows)


def _metric_label(item: Agreement) -> str:
  """Return the metric's label, with that of an earlier metric that orders the cells identically."""
  label = quantity_of(item.metric).label
  return f"{label} (the same order as {quantity_of(item.same_as).label})" if item.same_as else label


def as_csv(table: Table) -> str:
  return "".join(map(csv_line, (table.columns, *table.rows)))


def as_markdown(table: Table) -> str:
  rule = "| " + " | ".join("---" for _ in table.columns) + " |"
  lines = [[_markdown(value) for value in row] for row in (table.columns, *table.rows)]
  head, *body = ("| " + " | ".join(line) + " |" for line in lines)
  return "\n".join((head, rule, *body)) + "\n"


def as_latex(table: Table) -> str:
  """Return a booktabs longtable, since a table of all cells is longer than a page."""
  kinds = "".join("r" if _numeric(table, i) else "l" for i in range(len(table.columns)))
  lines = [" & ".join(_latex(value) for value in row) + r" \\" for row in table.rows]
  head = " & ".join(_latex(column) for column in table.columns) + r" \\"
  return "\n".join((
    "% needs booktabs and longtable",
    rf"\begin{{longtable}}{{{kinds}}}",
    rf"\caption{{{_latex(table.caption)}}} \\",
    r"\toprule", head, r"\midrule", r"\endhead", *lines, r"\bottomrule", r"\end{longtable}", "",
  ))  # fmt: skip


def _ends(estimate: Estimate | None) -> tuple[Value, Value, Value]:
  return (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)


def _points(found: Estimate | Average) -> tuple[Value, Value, Value]:
  estimate = found.estimate if isinstance(found, Average) else found
  value, low, high = _ends(estimate)
  return tuple(None if end is None else round(100 * float(end), 2) for end in (value, low, high))  # type: ignore[return-value]


def _rounded(value: float | None) -> float | None:
  return None if value is None else round(value, 3)


def _numeric(table: Table, column: int) -> bool:
  return any(isinstance(row[column], int | float) for row in table.rows)


def _text(value: Value) -> str:
  return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _markdown(value: Value) -> str:
  return re.sub(r"([\\`*_{}\[\]<>|])", r"\\\1", _text(value).replace("\n", " "))


def _latex(value: Value) -> str:
  return _text(value).translate(_LATEX)
