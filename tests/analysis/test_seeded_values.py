"""Seeds give the intervals and p-values that they gave before; that they are right is shown elsewhere.

The numbers were computed by this package. A change here changes published tables, and belongs in the changelog.
"""

import numpy as np
import pytest

from genbench_jax.analysis.correlation import correlations
from genbench_jax.analysis.curves import Point, monotone, power_law
from genbench_jax.analysis.exchange import exchange_rates
from genbench_jax.analysis.paired import ImageOutcomes, compare
from genbench_jax.analysis.permutation import p_value_of_pairs
from genbench_jax.analysis.prediction import leave_one_dataset_out
from genbench_jax.analysis.seeds import over_seeds
from genbench_jax.analysis.series import tables_of, values_by_quantity
from genbench_jax.analysis.statistics import bootstrap_weights, holm, kendall, pearson, spearman

POINTS = [
  Point(n, 0.9 - 0.6 * n**-0.6 + e, 0.02) for n, e in ((1, 0.01), (2, -0.01), (4, 0.02), (8, 0.0))
]


def rows():
  """Two metrics and an accuracy of six series at two budgets, of five datasets; some cells are missing."""
  random = np.random.default_rng(1)
  for place in range(60):
    dataset, series, shots = place % 5, place // 5 % 6, 1 + place // 30
    about = {
      "dataset": f"d{dataset}", "source": "generative", "strategy": f"s{series}", "shots": shots, "seed": 0,
      "protocol": "strict", "encoder": "e",
    }  # fmt: skip
    accuracy = 0.1 * dataset + 0.2 * shots + 0.1 * random.normal()
    yield about | {"quantity": "linear_probe", "value": accuracy}
    if place != 7:
      yield about | {"quantity": "fid", "value": -accuracy + 0.1 * random.normal()}
    yield about | {"quantity": "kid", "value": random.normal()}


def of_correlations(method):
  found = correlations(rows(), resamples=30, seed=2, methods=[method])
  keys = ("n", "units", "value", "ci_low", "ci_high", "p_value", "p_corrected")
  values = (getattr(each, key) for each in found if each.dataset is None for key in keys)
  return [value for value in values if value is not None]


def of_law():
  law = power_law(POINTS, 3)
  ends = (law.exponent_low, law.exponent_high, law.limit_low, law.limit_high)
  return [law.floor, law.scale, law.exponent, *ends]


def of_rates():
  source = [Point(16, 0.55, 0.03), Point(32, 0.6, 0.01)]
  return [
    n for rate in exchange_rates(source, POINTS, 3) for n in (rate.value, rate.low, rate.high)
  ]


def of_comparison():
  random = np.random.default_rng(4)
  runs = {
    name: {d: ImageOutcomes((random.random(30) < share).astype(float)) for d in ("x", "y")}
    for name, share in (("a", 0.9), ("b", 0.5), ("c", 0.6))
  }
  keys = ("difference", "ci_low", "ci_high", "p_value", "p_corrected")
  return [getattr(each, key) for each in compare(runs) for key in keys]


def of_seeds():
  given = [
    {
      "dataset": "d",
      "quantity": "q",
      "seed": seed,
      "value": v,
      "ci_low": v - 0.1,
      "ci_high": v + 0.2,
    }
    for seed, v in enumerate((0.5, 0.7, 0.65))
  ]
  (found,) = over_seeds(given)
  return [found.value, found.ci_low, found.ci_high, found.generator_low, found.generator_high]


def of_predictions():
  return [n for each in leave_one_dataset_out(rows()) for n in (each.n, each.error, each.baseline)]


def of_tables():
  found = values_by_quantity(rows())["strict"]
  metric, target = (
    next(v for k, v in found.items() if k.quantity == q) for q in ("fid", "linear_probe")
  )
  return [n for t in tables_of(metric, target) for n in (t.units, t.cells, *t.means())]


def of_resamples():
  random = np.random.default_rng(3)
  x, y = random.integers(0, 6, (2, 12)).astype(float)
  weights = bootstrap_weights(12, 3, random)
  return [*weights.ravel(), *(n for f in (pearson, spearman, kendall) for n in f(x, y, weights))]


GIVEN = {
  "pearson": lambda: of_correlations("pearson"),
  "spearman": lambda: of_correlations("spearman"),
  "kendall": lambda: of_correlations("kendall"),
  "law": of_law,
  "rates": of_rates,
  "comparison": of_comparison,
  "seeds": of_seeds,
  "predictions": of_predictions,
  "tables": of_tables,
  "resamples": of_resamples,
  "p-value": lambda: [p_value_of_pairs(*np.random.default_rng(6).normal(size=(2, 9)), "kendall", np.random.default_rng(7))],
  "monotone": lambda: monotone(np.array([0.5, 0.7, 0.4, 0.6]), np.array([0.1, 0.2, 0.1, 0.3])),
  "holm": lambda: holm(np.array([0.02, 0.5, 0.01, 0.04])),
}  # fmt: skip
EXPECTED: dict[str, list[float]] = {
  "pearson": [59, 30, -0.681523, -0.867953, -0.32675, 0.001, 0.014, 60, 30, -0.147219, -0.481023, 0.223866,
    0.319, 1, 5, 5, -0.995424, -0.999602, -0.322394, 0.0333333, 0.366667, 5, 5, -0.301798, -0.998055,
    0.993254, 0.666667, 1, 59, 30, -0.940099, 60, 30, -0.0970206],
  "spearman": [59, 30, -0.627143, -0.808896, -0.335983, 0.001, 0.014, 60, 30, -0.0571429, -0.417235, 0.318458,
    0.692, 1, 5, 5, -0.9, -0.998154, 0.499818, 0.0833333, 0.833333, 5, 5, -0.3, -0.999019, 0.996621, 0.683333,
    1, 59, 30, -0.951257, 60, 30, -0.0925257],
  "kendall": [59, 30, -0.506667, -0.701467, -0.241426, 0.001, 0.014, 60, 30, -0.04, -0.309265, 0.235203,
    0.825, 1, 5, 5, -0.8, -0.997334, 0.804858, 0.0833333, 0.916667, 5, 5, -0.2, -0.998644, 0.996953, 0.816667,
    1, 59, 30, -0.80713, 60, 30, -0.0610169],
  "law": [0.064782, 0.628073, 0.55, 0.45, 1.1, 0.763441, 1],
  "rates": [2.46993, 1.8706, 3.19061, 2.98793, 2.59623, 3.60969],
  "comparison": [0.233333, -0.0142273, 0.451727, 0.065728, 0.262912, 0.333333, 0.101436, 0.523564, 0.00370901,
    0.0222541, 0.283333, 0.108442, 0.422808, 0.000925816, 0.00648071, 0.266667, 0.0468605, 0.45314, 0.0158613,
    0.0793067, 0.433333, 0.187816, 0.624684, 0.000267186, 0.00213749, 0.35, 0.178978, 0.477272, 1.61823e-05,
    0.000145641, 0.0333333, -0.197666, 0.260166, 0.789038, 1, 0.1, -0.149083, 0.336583, 0.449242, 1,
    0.0666667, -0.104361, 0.229361, 0.462869, 1],
  "seeds": [0.616667, 0.516667, 0.816667, 0.317749, 0.915584],
  "predictions": [12, 0.0542018, 0.18751, 12, 0.0671959, 0.207826, 11, 0.0438746, 0.0831732, 12, 0.0512801,
    0.137608, 12, 0.0585671, 0.267809, 59, 0.0550239, 0.176785, 12, 0.197749, 0.185159, 12, 0.205298, 0.2054,
    12, 0.0832495, 0.0841166, 12, 0.134526, 0.138662, 12, 0.268005, 0.268711, 60, 0.177766, 0.17641],
  "tables": [6, 12, -0.260503, 0.322671, 6, 12, -0.28335, 0.305786, 6, 11, -0.495036, 0.484337, 6, 12,
    -0.571232, 0.55576, 6, 12, -0.707916, 0.683518],
  "resamples": [0, 0, 1, 2, 0, 2, 0, 3, 1, 2, 0, 1, 2, 1, 0, 3, 0, 0, 0, 1, 1, 0, 1, 3, 2, 0, 2, 1, 0, 2, 0,
    2, 1, 1, 1, 0, 0.227921, 0.20286, 0.282672, 0.123627, 0.344903, 0.332214, 0.0370625, 0.231154, 0.18054],
  "p-value": [0.62],
  "monotone": [0.477778, 0.477778, 0.477778, 0.6],
  "holm": [0.06, 0.5, 0.04, 0.08],
}  # fmt: skip


@pytest.mark.parametrize("name", GIVEN)
def test_a_seed_gives_the_number_that_it_gave(name):
  found = np.asarray(GIVEN[name](), float)
  np.testing.assert_allclose(found, EXPECTED[name], rtol=1e-4, atol=1e-7)
