"""Agreement between encoders and between recognizers on the order of the sources."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from genbench_jax.analysis.permutation import coefficient_of, is_defined
from genbench_jax.analysis.series import Values, tables_of
from genbench_jax.report.agreement import Agreement, agreement, interval_of
from genbench_jax.report.quantities import (
  RECOGNIZERS,
  in_space,
  known_name,
  quantity_of,
  short_name,
)
from genbench_jax.report.results import Cell, Results, Series, folded_of
from genbench_jax.report.tables import Table

# Recognizers that train a network. Those that share least with CLER come first.
FROM_NOTHING, FROM_CLIP = ("from_scratch",), ("fine_tune", "lora")
# With fewer sources, an order is not worth comparing.
FEWEST_SERIES = 3


@dataclasses.dataclass(frozen=True)
class OrderAgreement:
  """Agreement of two measures on the order of the sources.

  Attributes:
    tau: Kendall's tau-b, averaged over datasets and numbers of images.
    interval: 95 % interval from resampled series; None with too few series.
    groups: number of (dataset, number of images) groups.
    series: number of sources.
  """

  first: str
  second: str
  tau: float
  interval: tuple[float, float] | None
  groups: int
  series: int


def merged(all_results: Sequence[Results]) -> Results:
  """Return the main results, extended by the accuracies of other encoders with the same protocol."""
  main = all_results[0]
  others = [results for results in all_results[1:] if results.view.protocol == main.view.protocol]
  if not others:
    return main
  beside: dict[tuple[str, Series, int, int], dict] = {}
  for results in others:
    for cell in results.cells:
      named = {
        in_space(name, results.view.encoder): estimate
        for name, estimate in cell.estimates.items()
        if name in (*RECOGNIZERS, "cler", "cler_image")
      }
      beside.setdefault(_key(cell), {}).update(named)
  cells = tuple(
    dataclasses.replace(cell, estimates={**cell.estimates, **beside.get(_key(cell), {})})
    for cell in main.cells
  )
  return dataclasses.replace(main, cells=cells, folded=folded_of(cells))


def judge_of(results: Results, headline: str) -> str:
  """Return the recognizer that tests whether CLER predicts accuracy.

  A probe on CLER's own features agrees with CLER in part by construction. A trained network, or the
  probe on another encoder, is preferred if it was measured.
  """
  elsewhere = [name for name in results.quantities if name.startswith(f"{headline} [")]
  candidates = (*FROM_NOTHING, *elsewhere, *FROM_CLIP)
  return next((name for name in candidates if name in results.quantities), headline)


def encoder_table(all_results: Sequence[Results], quantity: str) -> Table | None:
  """Return the agreement of the encoders on the order of the sources; None with fewer than two."""
  results = merged(all_results)
  names = [
    name for name in results.quantities if name == quantity or name.startswith(f"{quantity} [")
  ]
  main = all_results[0].view.encoder

  def label(name: str) -> str:
    return short_name(main if name == quantity else name.partition(" [")[2].removesuffix("]"))

  found = order_agreements(results, names, label)
  caption = f"Kendall’s τ between the orders of sources by the {quantity_of(quantity).label} on two encoders."
  return _table("encoder-agreement", caption, ("encoder", "encoder"), found)


def recognizer_table(results: Results) -> Table | None:
  """Return the agreement of the recognizers on the order of the sources; None with fewer than two."""
  names = [name for name in (*RECOGNIZERS, "cler") if name in results.quantities]
  found = order_agreements(results, names, lambda name: quantity_of(name).label)
  caption = "Kendall’s τ between the orders of sources by two recognizers."
  return _table("recognizer-agreement", caption, ("recognizer", "recognizer"), found)


def order_agreements(
  results: Results, names: Sequence[str], label: Callable[[str], str]
) -> list[OrderAgreement]:
  """Return the agreement of every two quantities on the order of the sources.

  Args:
    results: the rows.
    names: the quantities.
    label: function from a quantity to its name on the page.
  """
  pairs = [(_agreement(results, *pair), pair) for pair in itertools.combinations(names, 2)]
  return [
    dataclasses.replace(found, first=label(first), second=label(second))
    for found, (first, second) in pairs
    if found
  ]


def cross_agreements(all_results: Sequence[Results]) -> list[tuple[str, str, Agreement]]:
  """Return (encoder of CLER, encoder of the probe, agreement), different encoders first."""
  results, main = merged(all_results), all_results[0].view.encoder
  spaces = {
    name: main if "[" not in name else name.partition(" [")[2].removesuffix("]")
    for name in results.quantities
    if known_name(name) in ("cler", "linear_probe") and not name.endswith("_last_epoch")
  }
  clers = [name for name in spaces if known_name(name) == "cler"]
  probes = [name for name in spaces if known_name(name) == "linear_probe"]
  if len({spaces[name] for name in clers}) < 2 or not probes:
    return []
  found = [
    (spaces[cler], spaces[probe], agreement(results, cler, probe))
    for cler in clers
    for probe in probes
  ]
  return sorted(found, key=lambda series: series[0] == series[1])


def cross_table(all_results: Sequence[Results]) -> Table | None:
  """Return CLER on one encoder against probes on another; None with one encoder."""
  found = cross_agreements(all_results)
  if not found:
    return None
  rows = list(dict.fromkeys(cler for cler, _, _ in found))
  columns = list(dict.fromkeys(probe for _, probe, _ in found))
  # Encoders without a text tower have probes but no CLER.
  columns.sort(key=lambda name: rows.index(name) if name in rows else len(rows))
  cells = {(cler, probe): _rho_words(item) for cler, probe, item in found}
  caption = (
    "Mean rank correlation within dataset and number of images. On the diagonal both use the same features, so they "
    "agree in part by construction."
  )
  head = ("CLER on", *(f"probe on {short_name(name)}" for name in columns))
  lines = tuple(
    (short_name(cler), *(cells.get((cler, probe), "–") for probe in columns)) for cler in rows
  )
  return Table("cler-across-encoders", caption, head, lines)


def _rho_words(item: Agreement) -> str:
  if item.mean is None:
    return "–"
  text = _signed(item.mean)
  return (
    f"{text} ({_signed(item.interval[0])} to {_signed(item.interval[1])})"
    if item.interval
    else text
  )


def _agreement(results: Results, first: str, second: str) -> OrderAgreement | None:
  """Return Kendall's tau-b of two quantities over the sources, averaged over datasets and shots."""
  series = [item for item in results.series if item.source != "control"]
  if len(results.generators) >= FEWEST_SERIES:
    series = list(results.generators)
  # Seeds are averaged, because sources are ordered, not single draws.
  wanted = set(series)
  values: tuple[Values, Values] = ({}, {})
  for (dataset, item, shots, name), estimate in results.folded.items():
    if name in (first, second) and item in wanted:
      key = (dataset, item.source, item.generator, item.strategy, shots)
      values[name == second][key] = estimate.value
  tables = [
    table
    for table in tables_of(*values)
    if any(len(x) >= FEWEST_SERIES and is_defined(x, y) for _, x, y in table.budgets())
  ]
  if not tables:
    return None
  tau = float(np.mean([coefficient_of(table, "kendall") for table in tables]))
  interval = interval_of(tables, "kendall", np.random.default_rng(0))
  groups = sum(bool(is_defined(x, y)) for table in tables for _, x, y in table.budgets())
  return OrderAgreement(first, second, tau, interval, groups, max(t.units for t in tables))


def _table(
  name: str, caption: str, head: tuple[str, str], found: Sequence[OrderAgreement]
) -> Table | None:
  if not found:
    return None
  rows = tuple(
    (
      series.first, series.second, _signed(series.tau),
      f"{_signed(series.interval[0])} to {_signed(series.interval[1])}" if series.interval else None,
      series.series, series.groups,
    )
    for series in found
  )  # fmt: skip
  columns = (head[0], f"and {head[1]}", "τ", "95 % interval", "sources", "datasets × shots")
  return Table(name, caption, columns, rows)


def _signed(value: float) -> str:
  text = f"{value:.2f}"
  return "0.00" if text == "-0.00" else text.replace("-", "−")


def _key(cell: Cell) -> tuple[str, Series, int, int]:
  return cell.dataset, cell.series, cell.shots, cell.seed
