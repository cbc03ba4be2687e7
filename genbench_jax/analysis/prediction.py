"""Leave-one-dataset-out: how well a metric predicts accuracy on an unseen dataset."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from genbench_jax.analysis.correlation import TARGET, TRAINED
from genbench_jax.analysis.series import QuantityKey, Row, Table, tables_of, values_by_quantity


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Error of predicting accuracy from one metric on a held-out dataset.

  Attributes:
    quantity: the metric.
    dataset: the held-out dataset, or None for the mean over all of them.
    n: number of predicted cells.
    error: mean absolute error, in units of accuracy.
    baseline: the error of predicting the mean accuracy of the other datasets' cells.
    protocol: protocol of metric and accuracy.
    encoder: encoder of metric and recognizer.
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
  """Fit a line of accuracy on a metric to the other datasets and test it on each dataset in turn.

  A metric needs two datasets; others are left out. The mean over datasets, each counted once, comes
  last for each metric. Protocols and encoders are not mixed.

  Args:
    rows: rows of results.jsonl.
    target: quantity to predict.
    quantities: metrics to predict from; None for all that are not trained.
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
  predictions = []
  for index, table in enumerate(tables):
    error, baseline = _held_out(x, y, index)
    predictions.append(
      Prediction(
        named.quantity, table.dataset, table.cells, error, baseline, protocol, named.encoder
      )
    )
  error, baseline = (
    float(np.mean([getattr(each, key) for each in predictions])) for key in ("error", "baseline")
  )
  total = Prediction(
    named.quantity, None, sum(p.n for p in predictions), error, baseline, protocol, named.encoder
  )
  return [*predictions, total]


def _held_out(x: Sequence[np.ndarray], y: Sequence[np.ndarray], index: int) -> tuple[float, float]:
  """Return the error on the dataset of that index, and that of predicting the others' mean."""
  other_x, other_y = (np.concatenate([*side[:index], *side[index + 1 :]]) for side in (x, y))
  predicted = _line(other_x, other_y, x[index])
  error, baseline = (
    float(np.mean(np.abs(guess - y[index]))) for guess in (predicted, other_y.mean())
  )
  return error, baseline


def _line(
  x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"], at: Float[np.ndarray, "m"]
) -> Float[np.ndarray, "m"]:
  """Evaluate the least-squares line through (x, y) at other points; flat if x is constant."""
  deviation = x - x.mean()
  spread = np.sum(deviation**2)
  slope = np.sum(deviation * y) / spread if spread > 0 else 0.0
  return y.mean() + slope * (at - x.mean())
