"""Simulate the coverage of the 95 % intervals, with one line per quantity and kind of interval.

  JAX_PLATFORMS=cpu python benchmarks/intervals.py --repeats=600 --json=intervals.json  # half an hour on 2 cores
  JAX_PLATFORMS=cpu python benchmarks/intervals.py --repeats=600 --only=sets --quantities=fid,kid  # one minute
  JAX_PLATFORMS=cpu python benchmarks/intervals.py --repeats=20 --only=sets                       # smoke test

Images are unit-norm features around class centers; external images are drawn per class at some distance from real
ones. An interval should contain the expected value of the quantity at this budget: over test images for *these
images* (external images fixed), over both for *this generator*; for recognition, the true score. The goal is a
coverage of .93 to .97.

  recognition  accuracy, mean per class, ROC area, 11-point mAP, differences, near the ceiling and away from it
  sets         every metric of the registry
  analysis     correlations within datasets, paired comparisons, exchange rates
"""

import argparse
import json
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

CLASSES, WIDTH, PER_CLASS = 8, 32, 8
TESTS, TRAINING, GUIDES = 240, 80, 64
GOAL = (0.93, 0.97)
Interval = tuple[float, float]


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--repeats", type=int, default=300)
  parser.add_argument("--only", default="recognition,sets,analysis")
  parser.add_argument("--quantities", default="", help="metrics of `sets`; empty: all")
  parser.add_argument("--json", type=Path)
  arguments = parser.parse_args()
  lines = []
  for name in arguments.only.split(","):
    given = (arguments.quantities.split(","),) if name == "sets" and arguments.quantities else ()
    for line in PARTS[name](arguments.repeats, *given):
      lines.append(line)
      inside = "" if GOAL[0] <= line["coverage"] <= GOAL[1] else "  <-- outside .93-.97"
      print(f"{line['what']:44s} {line['kind']:10s} {line['coverage']:.3f} "
            f"(+-{line['error']:.3f})  width / (3.92 sd) {line['width']:.2f}{inside}", flush=True)  # fmt: skip
  if arguments.json:
    arguments.json.write_text(json.dumps(lines, indent=1) + "\n")


def line(
  what: str, kind: str, intervals: list[Interval], truths: Any, deviation: float
) -> dict[str, Any]:
  """Return the share of intervals that contain the truth, its standard error, and their mean relative width."""
  ends = np.array(intervals, float)
  held = (ends[:, 0] <= truths) & (truths <= ends[:, 1])
  coverage = float(held.mean())
  width = float(np.mean(ends[:, 1] - ends[:, 0]))
  return {
    "what": what,
    "kind": kind,
    "coverage": coverage,
    "error": float(np.sqrt(max(coverage * (1 - coverage), 1e-4) / len(held))),
    "width": width / (3.92 * deviation) if deviation > 0 else float("nan"),
  }


# ---- recognition ---------------------------------------------------------------------------------


def recognition(repeats: int) -> Iterator[dict[str, Any]]:
  from scipy.stats import norm

  from genbench_jax.metrics.intervals import (
    area_measurement,
    correct_measurement,
    difference_measurement,
    recognition_interval,
  )

  random = np.random.default_rng(0)
  many = 10 * repeats

  def proportion(low: float, high: float, n: int) -> Iterator[tuple[Any, float]]:
    """Draw true accuracies from a band: for a single one, a binomial interval's coverage jumps with its misses."""
    for _ in range(many):
      truth = random.uniform(low, high)
      yield correct_measurement(random.random(n) < truth, np.zeros(n, int), "accuracy"), truth

  for low, high, n in ((0.98, 1.0, 100), (0.98, 1.0, 1000), (0.7, 0.9, 100)):
    yield _of(f"accuracy {low:g} to {high:g}, {n} images", proportion(low, high, n))

  def per_class(recalls: np.ndarray, n: int) -> Iterator[tuple[Any, float]]:
    for _ in range(many):
      labels = np.concatenate([np.arange(len(recalls)), random.integers(0, len(recalls), n)])
      correct = random.random(len(labels)) < recalls[labels]
      yield correct_measurement(correct, labels, "mean_per_class"), float(recalls.mean())

  for low, classes, n in ((0.5, 10, 100), (0.97, 10, 300), (0.6, 100, 500)):
    recalls = np.linspace(low, 1, classes)
    yield _of(f"mean per class, {classes} classes from {low:g}, {n}", per_class(recalls, n))

  def area(n: int, apart: float) -> Iterator[tuple[Any, float]]:
    for _ in range(many):
      positive = random.random(n) < 0.4
      positive[:2] = [True, False]
      scores = random.normal(size=n) + apart * positive
      yield area_measurement(scores, positive), float(norm.cdf(apart / np.sqrt(2)))

  for n, apart in ((100, 1.0), (500, 2.0), (100, 4.0)):
    yield _of(f"ROC area {norm.cdf(apart / 2**0.5):.3f}, {n} images", area(n, apart))

  def gain(n: int, up: float, down: float) -> Iterator[tuple[Any, float]]:
    for _ in range(many):
      where = random.random(n)
      moved = (where < up).astype(float) - (where > 1 - down)
      yield difference_measurement(moved, np.full(n, 1 / n)), up - down

  for n, up, down in ((100, 0.1, 0.02), (500, 0.02, 0.01)):
    yield _of(f"gain of {up - down:g} on {n} images", gain(n, up, down))

  def draw(n: int, k: int, share: float, apart: float) -> tuple[np.ndarray, np.ndarray]:
    hot = random.random((n, k)) < share
    return random.normal(size=(n, k)) + apart * hot, hot

  from genbench_jax.metrics.accuracy import recognition_score

  for n, k, share, apart in ((300, 5, 0.15, 1.2), (1000, 20, 0.07, 1.5)):
    truth = recognition_score(*draw(60_000, k, share, apart), "map_11_point")
    found = [draw(n, k, share, apart) for _ in range(repeats // 2)]
    ends = [recognition_interval(scores, hot, "map_11_point", i) for i, (scores, hot) in enumerate(found)]  # fmt: skip
    values = [recognition_score(*drawn, "map_11_point") for drawn in found]
    yield line(
      f"11-point mAP, {k} classes, {n} images", "images", ends, truth, float(np.std(values))
    )


def _of(what: str, found: Iterator[tuple[Any, float]]) -> dict[str, Any]:
  pairs = list(found)
  ends = [(measurement.ci_low, measurement.ci_high) for measurement, _ in pairs]
  truths = np.array([truth for _, truth in pairs])
  errors = [measurement.value - truth for measurement, truth in pairs]
  return line(what, "images", ends, truths, float(np.std(errors)))


# ---- sets ----------------------------------------------------------------------------------------


def world(random: np.random.Generator) -> dict[str, Any]:
  centers = random.normal(size=(CLASSES, WIDTH))
  return {
    "centers": centers,
    "text": _unit(centers + 2 * random.normal(size=centers.shape)),
    "shift": 0.6 * random.normal(size=centers.shape),
  }


def _unit(rows: np.ndarray) -> np.ndarray:
  return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def images(
  given: dict[str, Any], labels: np.ndarray, random: np.random.Generator, real: bool
) -> np.ndarray:
  center = given["centers"] + (0 if real else given["shift"])
  return _unit(center[labels] + 1.2 * random.normal(size=(len(labels), WIDTH)))


def sets(repeats: int, quantities: Collection[str] = ()) -> Iterator[dict[str, Any]]:
  """Simulate every metric; both sets are redrawn for the generator interval, only the test images for the other."""
  import jax

  from genbench_jax.metrics.registry import known_quantities
  from genbench_jax.runtime.mesh import data_mesh

  wanted = tuple(quantities) or known_quantities()
  random = np.random.default_rng(1)
  given, mesh = world(random), data_mesh(jax.devices()[:1])
  training = images(given, np.arange(TRAINING) % CLASSES, random, True)

  def measured_once(external: np.ndarray, seed: int) -> dict[str, Any]:
    from genbench_jax.metrics.registry import Sets, measured

    test_labels, guide_labels = np.arange(TESTS) % CLASSES, np.arange(GUIDES) % CLASSES
    cell = Sets(
      external, images(given, test_labels, random, True), _labels(), test_labels, given["text"], CLASSES,
      guides=images(given, guide_labels, random, True), guide_labels=guide_labels, training=training,
      training_labels=np.arange(TRAINING) % CLASSES, seed=seed, resamples=300, mesh=mesh,
    )  # fmt: skip
    return {result.name: result.value for _, result in measured(cell, wanted)}

  began = time.monotonic()
  draws = [measured_once(_external(given, random), seed) for seed in range(repeats)]
  print(f"sets: {time.monotonic() - began:.0f} s for {repeats} cells", flush=True)
  for name in draws[0]:
    values = np.array([cell[name].value for cell in draws])
    ends = [(cell[name].generator_low, cell[name].generator_high) for cell in draws]
    yield line(name, "generator", ends, values.mean(), float(values.std()))
  blocks = max(repeats // 60, 2)
  fixed = [_external(given, random) for _ in range(blocks)]
  inside = [
    [measured_once(external, seed) for seed in range(repeats // blocks)] for external in fixed
  ]
  for name in draws[0]:
    ends = [(cell[name].ci_low, cell[name].ci_high) for block in inside for cell in block]
    values = [np.array([cell[name].value for cell in block]) for block in inside]
    truths = np.concatenate([np.full(len(block), block.mean()) for block in values])
    yield line(name, "images", ends, truths, float(np.mean([block.std() for block in values])))


def _labels() -> np.ndarray:
  return np.arange(CLASSES * PER_CLASS) % CLASSES


def _external(given: dict[str, Any], random: np.random.Generator) -> np.ndarray:
  return images(given, _labels(), random, False)


# ---- analysis ------------------------------------------------------------------------------------


def analysis(repeats: int) -> Iterator[dict[str, Any]]:
  yield from _correlation_lines(max(repeats // 2, 20))
  yield from _paired_lines(10 * repeats)
  yield from _ranked_pair_lines(max(repeats // 2, 20))
  yield from _exchange_lines(max(repeats // 2, 20))


def _correlation_lines(repeats: int) -> Iterator[dict[str, Any]]:
  from genbench_jax.analysis.correlation import correlations

  random = np.random.default_rng(2)
  for datasets, series, rho in ((1, 8, 0.0), (1, 8, 0.8), (3, 6, 0.6)):
    found = [
      correlations(series_rows(random, datasets, series, rho), resamples=500, methods=["spearman"])[0]
      for _ in range(repeats)
    ]  # fmt: skip
    values = np.array([result.value for result in found])
    ends = [(result.ci_low, result.ci_high) for result in found]
    what = f"Spearman {values.mean():.2f}, {datasets} x {series} series"
    yield line(what, "series", ends, values.mean(), float(values.std()))
    if rho == 0:
      wrong = float(np.mean([result.p_value >= 0.05 for result in found]))
      yield {"what": f"{what}: no discovery at .05", "kind": "test", "coverage": wrong,
             "error": float(np.sqrt(0.05 * 0.95 / repeats)), "width": float("nan")}  # fmt: skip


def series_rows(
  random: np.random.Generator, datasets: int, series: int, rho: float
) -> list[dict[str, Any]]:
  """Return rows whose metric and accuracy share a series' quality with correlation rho, and grow with the budget."""
  rows = []
  for d in range(datasets):
    quality = random.multivariate_normal([0, 0], [[1, rho], [rho, 1]], series)
    for i, (x, y) in enumerate(quality):
      for budget in range(3):
        noise = 0.3 * random.normal(size=2)
        about = {"dataset": f"d{d}", "source": "generative", "strategy": str(i), "shots": 2**budget,
                 "seed": 0, "protocol": "strict", "encoder": "e"}  # fmt: skip
        rows.append({**about, "quantity": "m", "value": x + noise[0] + 2 * budget})
        rows.append({**about, "quantity": "linear_probe", "value": y + noise[1] + 2 * budget})
  return rows


def _paired_lines(repeats: int) -> Iterator[dict[str, Any]]:
  from genbench_jax.analysis.paired import ImageOutcomes, paired_difference

  random = np.random.default_rng(3)
  for n, first, second in ((100, 0.5, 0.4), (500, 0.97, 0.95)):

    def judged(easy: np.ndarray, chance: float) -> ImageOutcomes:
      return ImageOutcomes((easy | (random.random(len(easy)) < chance)).astype(float))

    found = []
    for _ in range(repeats):
      easy = random.random(n) < 0.5
      found.append(paired_difference("a", "b", "d", judged(easy, first), judged(easy, second)))
    values = np.array([result.difference for result in found])
    ends = [(result.ci_low, result.ci_high) for result in found]
    truth = 0.5 * (first - second)
    yield line(
      f"paired difference {truth:g}, {n} images", "images", ends, truth, float(values.std())
    )


def _ranked_pair_lines(repeats: int) -> Iterator[dict[str, Any]]:
  """Differences of 11-point mAP; the two classifiers share a part of their noise, the second has less of it."""
  from genbench_jax.analysis.paired import ImageOutcomes, paired_difference
  from genbench_jax.metrics.accuracy import recognition_score
  from genbench_jax.metrics.image_values import paired_values

  random = np.random.default_rng(6)

  def draw(n: int, k: int, share: float) -> tuple[np.ndarray, list[np.ndarray]]:
    hot = random.random((n, k)) < share
    hard = random.normal(size=hot.shape)
    return hot, [1.5 * hot + hard + own * random.normal(size=hot.shape) for own in (0.8, 0.5)]

  for n, k, share in ((300, 5, 0.15), (1000, 20, 0.07)):
    hot, sides = draw(60_000, k, share)
    truth = float(np.subtract(*[recognition_score(s, hot, "map_11_point") for s in sides]))
    found = []
    for _ in range(repeats):
      hot, sides = draw(n, k, share)
      outcomes = [ImageOutcomes(paired_values(side, hot, "map_11_point")) for side in sides]
      found.append(paired_difference("a", "b", "d", *outcomes))
    values = np.array([result.difference for result in found])
    ends = [(result.ci_low, result.ci_high) for result in found]
    what = f"paired difference {truth:.3f} of 11-point mAP, {k} classes, {n} images"
    yield line(what, "images", ends, truth, float(values.std()))


def _exchange_lines(repeats: int) -> Iterator[dict[str, Any]]:
  from genbench_jax.analysis.curves import Point
  from genbench_jax.analysis.exchange import exchange_rates

  def law(n: float) -> float:
    return 0.9 - 0.6 * n**-0.7

  random = np.random.default_rng(4)
  for error in (0.01, 0.03):
    ends, values = [], []
    for seed in range(repeats):
      real = [Point(n, law(n) + error * random.normal(), error) for n in (1, 2, 4, 8, 16)]
      rate = exchange_rates([Point(64, law(3) + error * random.normal(), error)], real, seed)[0]
      ends.append((rate.low, min(rate.high, 1e9)))
      values.append(rate.value or np.nan)
    found = line(f"exchange rate 3, errors of {error:g}", "generator", ends, 3.0, 0.0)
    yield found


PARTS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
  "recognition": recognition,
  "sets": sets,
  "analysis": analysis,
}

if __name__ == "__main__":
  main()
