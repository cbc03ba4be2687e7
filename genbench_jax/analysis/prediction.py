"""How well a metric predicts accuracy on a dataset that it has not seen."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from genbench_jax.analysis.correlation import TARGET, TRAINED
from genbench_jax.analysis.series import QuantityKey, Row, Table, tables_of, values_by_quantity


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Error of predicting accuracy from one metric on one held-out dataset.

  Attributes:
    quantity: the metric; dataset: the one held out, or None for the mean over all of them.
    n: cells predicted.
    error: mean absolute error, in units of accuracy.
    baseline: that of always predicting the mean accuracy of the other datasets' cells.
    protocol: of both; encoder: of the metric and of the recognizer.
  """

  quantity: str
  dataset: str | None
  n: int
  error: float
  baseline: float
  protocol: str = ""
  encoder: str = ""


def leave_one_dataset_out(
  rows: Iterable[Row], target: str = TARGET, quantities: Sequence[str] | None = None
) -> list[Prediction]:
  """For each metric and dataset: a straight line through the cells of the other datasets, tried on its own.

  Needs the metric in two datasets; metrics that have it in fewer are left out. For each metric the mean over the
  datasets, each counting once, comes last. Protocols and encoders are kept apart.
  """
  return [
    prediction
    for protocol, found in values_by_quantity(rows).items()
    for named in found
    if _is_asked(named, target, quantities) and QuantityKey(target, named.encoder) in found
    for tables in [tables_of(found[named], found[QuantityKey(target, named.encoder)])]
    if len(tables) > 1
    for prediction in _of_metric(protocol, named, tables)
  ]


def _is_asked(named: QuantityKey, target: str, quantities: Sequence[str] | None) -> bool:
  if quantities is None:
    return named.quantity not in (*TRAINED, target)
  return named.quantity in quantities


def _of_metric(protocol: str, named: QuantityKey, tables: Sequence[Table]) -> list[Prediction]:
  x, y = ([getattr(table, side)[table.there] for table in tables] for side in "xy")
  each = []
  for index, table in enumerate(tables):
    error, baseline = _held_out(x, y, index)
    each.append(
      Prediction(
        named.quantity, table.dataset, table.cells, error, baseline, protocol, named.encoder
      )
    )
  error, baseline = (
    float(np.mean([getattr(one, key) for one in each])) for key in ("error", "baseline")
  )
  total = Prediction(
    named.quantity, None, sum(p.n for p in each), error, baseline, protocol, named.encoder
  )
  return [*each, total]


def _held_out(x: Sequence[np.ndarray], y: Sequence[np.ndarray], index: int) -> tuple[float, float]:
  """Error on the dataset of that index, and of the mean accuracy elsewhere."""
  other_x, other_y = (np.concatenate([*side[:index], *side[index + 1 :]]) for side in (x, y))
  predicted = _line(other_x, other_y, x[index])
  error, baseline = (
    float(np.mean(np.abs(guess - y[index]))) for guess in (predicted, other_y.mean())
  )
  return error, baseline


def _line(
  x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"], at: Float[np.ndarray, "m"]
) -> Float[np.ndarray, "m"]:
  """The least-squares line through (x, y), at other places; level where x does not vary."""
  deviation = x - x.mean()
  spread = np.sum(deviation**2)
  slope = np.sum(deviation * y) / spread if spread > 0 else 0.0
  return y.mean() + slope * (at - x.mean())
