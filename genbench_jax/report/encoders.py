"""Does the answer depend on the encoder, or on the recognizer? Agreement of their orders, and scores across encoders."""

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

# Recognizers that train a network, in the order in which they judge CLER: those that share least with it first.
FROM_NOTHING, FROM_CLIP = ("from_scratch",), ("fine_tune", "lora")
# Fewer sources than this have no order worth comparing.
FEWEST_SERIES = 3


@dataclasses.dataclass(frozen=True)
class OrderAgreement:
  """How far two measures put the sources in the same order.

  Attributes:
    tau: mean over datasets and numbers of images of Kendall's tau-b.
    interval: 95 %, whole series resampled; None where there are too few of them.
    groups: datasets at a number of images; series: sources. How many are behind it.
  """

  first: str
  second: str
  tau: float
  interval: tuple[float, float] | None
  groups: int
  series: int


def merged(every: Sequence[Results]) -> Results:
  """Return the page's main results with the accuracies in other encoders of its protocol as further quantities."""
  main = every[0]
  others = [one for one in every[1:] if one.view.protocol == main.view.protocol]
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
  """Return the recognizer that says whether CLER predicts anything: the one that shares least with it.

  A probe on CLER's own features is partly CLER itself: a network of another kind, or the same probe in
  another encoder, comes first where it was measured.
  """
  elsewhere = [name for name in results.quantities if name.startswith(f"{headline} [")]
  candidates = (*FROM_NOTHING, *elsewhere, *FROM_CLIP)
  return next((name for name in candidates if name in results.quantities), headline)


def encoder_table(every: Sequence[Results], quantity: str) -> Table | None:
  """Return how far the encoders agree on the order of the sources; None with fewer than two of them."""
  results = merged(every)
  names = [
    name for name in results.quantities if name == quantity or name.startswith(f"{quantity} [")
  ]
  main = every[0].view.encoder

  def label(name: str) -> str:
    return short_name(main if name == quantity else name.partition(" [")[2].removesuffix("]"))

  found = order_agreements(results, names, label)
  caption = (
    f"Kendall’s τ of the orders of sources by the {quantity_of(quantity).label} in two encoders."
  )
  return _table("encoder-agreement", caption, ("encoder", "encoder"), found)


def recognizer_table(results: Results) -> Table | None:
  """Return how far the recognizers agree on the order of the sources; None with fewer than two of them."""
  names = [name for name in (*RECOGNIZERS, "cler") if name in results.quantities]
  found = order_agreements(results, names, lambda name: quantity_of(name).label)
  caption = "Kendall’s τ of the orders of sources by two recognizers."
  return _table("recognizer-agreement", caption, ("recognizer", "recognizer"), found)


def order_agreements(
  results: Results, names: Sequence[str], label: Callable[[str], str]
) -> list[OrderAgreement]:
  """Return the agreement of every two quantities on the order of the sources.

  Args:
    results: the rows.
    names: the quantities.
    label: what the page calls each.
  """
  pairs = [(_agreement(results, *pair), pair) for pair in itertools.combinations(names, 2)]
  return [
    dataclasses.replace(found, first=label(first), second=label(second))
    for found, (first, second) in pairs
    if found
  ]


def cross_agreements(every: Sequence[Results]) -> list[tuple[str, str, Agreement]]:
  """Return (encoder of CLER, encoder of the probe, their agreement) for every two, other encoders first."""
  results, main = merged(every), every[0].view.encoder
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
  return sorted(found, key=lambda one: one[0] == one[1])


def cross_table(every: Sequence[Results]) -> Table | None:
  """Return CLER in one encoder against probes in another: rows and columns are encoders; None with one of them."""
  found = cross_agreements(every)
  if not found:
    return None
  rows = list(dict.fromkeys(cler for cler, _, _ in found))
  columns = list(dict.fromkeys(probe for _, probe, _ in found))
  # An encoder that knows no texts has probes, but no CLER.
  columns.sort(key=lambda name: rows.index(name) if name in rows else len(rows))
  cells = {(cler, probe): _rho_words(item) for cler, probe, item in found}
  caption = (
    "Mean rank correlation within dataset and number of images. On the diagonal both see the same features: there it is "
    "partly an identity."
  )
  head = ("CLER in", *(f"probe in {short_name(name)}" for name in columns))
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
  """Kendall's tau-b of two quantities over the sources, averaged over datasets and numbers of images."""
  series = [one for one in results.series if one.source != "control"]
  if len(results.generators) >= FEWEST_SERIES:
    series = list(results.generators)
  # Seeds are averaged: what is ordered is the source, not one draw of it.
  wanted = set(series)
  values: tuple[Values, Values] = ({}, {})
  for (dataset, one, shots, name), estimate in results.folded.items():
    if name in (first, second) and one in wanted:
      key = (dataset, one.source, one.generator, one.strategy, shots)
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
      one.first, one.second, _signed(one.tau),
      f"{_signed(one.interval[0])} to {_signed(one.interval[1])}" if one.interval else None,
      one.series, one.groups,
    )
    for one in found
  )  # fmt: skip
  columns = (head[0], f"and {head[1]}", "τ", "95 % interval", "sources", "datasets × shots")
  return Table(name, caption, columns, rows)


def _signed(value: float) -> str:
  text = f"{value:.2f}"
  return "0.00" if text == "-0.00" else text.replace("-", "−")


def _key(cell: Cell) -> tuple[str, Series, int, int]:
  return cell.dataset, cell.series, cell.shots, cell.seed
