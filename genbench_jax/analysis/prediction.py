"""How well a metric predicts accuracy on a dataset that it has not seen."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from genbench_jax.analysis.correlation import METRICS, TARGET, Pairs, Row, cells_of, pairs_of


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Error of predicting accuracy from one metric on one held-out dataset.

  Attributes:
    quantity: the metric; dataset: the one held out, or None for the mean over all of them.
    n: cells predicted.
    error: mean absolute error, in units of accuracy.
    baseline: that of always predicting the mean accuracy of the other datasets' cells.
  """

  quantity: str
  dataset: str | None
  n: int
  error: float
  baseline: float


def leave_one_dataset_out(
  rows: Iterable[Row], target: str = TARGET, quantities: Sequence[str] = METRICS
) -> list[Prediction]:
  """For each metric and dataset: a straight line through the cells of the other datasets, tried on its own.

  Needs the metric in two datasets; metrics that have it in fewer are left out. For each metric the mean over the
  datasets, each counting once, comes last.
  """
  cells = cells_of(rows)
  found = (pairs_of(cells, name, target) for name in quantities)
  return [
    prediction
    for name, pairs in zip(quantities, found, strict=True)
    if len(pairs.datasets) > 1
    for prediction in _of_metric(name, pairs)
  ]


def _of_metric(name: str, pairs: Pairs) -> list[Prediction]:
  each = [_held_out(name, pairs, index) for index in range(len(pairs.datasets))]
  error, baseline = (
    float(np.mean([getattr(p, key) for p in each])) for key in ("error", "baseline")
  )
  return [*each, Prediction(name, None, sum(p.n for p in each), error, baseline)]


def _held_out(name: str, pairs: Pairs, index: int) -> Prediction:
  x, y = (np.concatenate(side[:index] + side[index + 1 :]) for side in (pairs.x, pairs.y))
  predicted = _line(x, y, pairs.x[index])
  error, baseline = (
    float(np.mean(np.abs(guess - pairs.y[index]))) for guess in (predicted, y.mean())
  )
  return Prediction(name, pairs.datasets[index], len(pairs.x[index]), error, baseline)


def _line(
  x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"], at: Float[np.ndarray, "m"]
) -> Float[np.ndarray, "m"]:
  """The least-squares line through (x, y), at other places; level where x does not vary."""
  deviation = x - x.mean()
  spread = np.sum(deviation**2)
  slope = np.sum(deviation * y) / spread if spread > 0 else 0.0
  return y.mean() + slope * (at - x.mean())
