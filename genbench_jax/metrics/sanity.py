"""Which metric moves the right way when images become worse training data in a known way?

Half of each class stands for the external images, half for the real ones; the external half is then spoiled in seven
ways, over several divisions. A metric moves the right way if it gets worse by more than the divisions make it vary.
"""

import dataclasses
from typing import Any

import numpy as np

from genbench_jax.errors import UsageError
from genbench_jax.metrics.inputs import check_finite, feature_rows, label_rows
from genbench_jax.metrics.registry import Sets, known_quantities, lower_is_better, measured
from genbench_jax.metrics.shifts import SHIFTS, Features, rows_by_class, unit

NEED_TEXT = ("zero_shot", "cler", "cler_gain", "topk_vote_text", "clip_score")
# Values alone are looked at, not their intervals.
RESAMPLES = 2
DIVISIONS = 5
FEWEST_A_CLASS = 8
# In standard errors: with five divisions chance goes that far once in sixty times.
MOVES = 4.0
VERDICTS = {1: "right", 0: "-", -1: "WRONG"}


@dataclasses.dataclass(frozen=True)
class Movement:
  """How a metric changes under a shift: values before and after, mean over the divisions, and how it varies.

  Attributes:
    before, after: mean values.
    worsening: mean change towards the worse, over its standard error; infinite if it never varies.
    verdict: 1 it got worse, as it should; 0 no change to speak of; -1 it got better.
  """

  before: float
  after: float
  worsening: float
  verdict: int


def measure_all(external: Features, real: Features) -> dict[str, float]:
  """Every registered metric of the external images against the real ones, as far as it is defined for so many.

  Every other image of the real ones is a test image; the rest are training images and guides.
  """
  has_text = external.text is not None
  # Any prototypes will do for the scores that don't use them.
  text = external.text
  if text is None:
    text = np.ones((int(real.labels.max()) + 1, real.features.shape[1]))
  test, training = (real.take(_every_other(real.labels, turn)) for turn in (0, 1))
  sets = Sets(
    external.features, test.features, external.labels, test.labels, text, len(text),
    guides=training.features, guide_labels=training.labels, training=training.features,
    training_labels=training.labels, resamples=RESAMPLES,
  )  # fmt: skip
  found = {
    result.name: float(result.value.value) for _, result in measured(sets, known_quantities())
  }
  return {name: value for name, value in found.items() if has_text or name not in NEED_TEXT}


def _every_other(labels: np.ndarray, turn: int) -> np.ndarray:
  """Half of the rows of each class."""
  return np.concatenate([own[turn::2] for own in rows_by_class(labels)])


def movements(
  given: Features, divisions: int = DIVISIONS, seed: int = 0
) -> dict[str, dict[str, Movement]]:
  """By metric and shift, how the metric moves."""
  values: dict[str, list[dict[str, float]]] = {name: [] for name in ("clean", *SHIFTS)}
  for division in range(divisions):
    random = np.random.default_rng([seed, division])
    external, real = _halves(given, random)
    values["clean"].append(measure_all(external, real))
    for name, shift in SHIFTS.items():
      values[name].append(measure_all(shift(external, random), real))
  return {
    metric: {name: _movement(metric, values["clean"], values[name]) for name in SHIFTS}
    for metric in values["clean"][0]
    if metric != "zero_shot"  # it has nothing to do with the external images
  }


def _halves(given: Features, random: np.random.Generator) -> tuple[Features, Features]:
  shuffled = [random.permutation(own) for own in rows_by_class(given.labels)]
  parts = ([own[: len(own) // 2] for own in shuffled], [own[len(own) // 2 :] for own in shuffled])
  external, real = (given.take(np.concatenate(part)) for part in parts)
  return external, real


def _movement(
  metric: str, clean: list[dict[str, float]], shifted: list[dict[str, float]]
) -> Movement:
  before, after = (
    np.array([values.get(metric, np.nan) for values in each]) for each in (clean, shifted)
  )
  if not np.isfinite(after).all():  # not defined for so few images
    return Movement(float(before.mean()), float("nan"), 0.0, 0)
  worse = (after - before) * (1 if metric in lower_is_better() else -1)
  error = worse.std(ddof=1) / np.sqrt(len(worse))
  # Changes beyond the 8th digit are rounding.
  mean = worse.mean() if abs(worse.mean()) > 1e-8 * np.abs(before).max() else 0.0
  worsening = mean / error if error > 0 else np.sign(mean) * np.inf if mean else 0.0
  verdict = int(np.sign(mean)) if abs(worsening) > MOVES else 0
  return Movement(float(before.mean()), float(after.mean()), float(worsening), verdict)


def checked(features: Any, labels: Any, text: Any = None) -> Features:
  """Features to run on, made unit-norm.

  Raises:
    UsageError: arrays that do not fit, a single class, or a class with fewer than 8 images.
  """
  rows = np.asarray(feature_rows("features", features), np.float32)
  check_finite("features", rows)
  labels = np.asarray(labels)
  if labels.ndim != 1 or labels.dtype.kind not in "iu" or not labels.size:
    raise UsageError(f"labels must be class indices, got {labels.dtype} of shape {labels.shape}")
  classes = (
    int(labels.max()) + 1
    if text is None
    else len(feature_rows("text_features", text, rows.shape[1]))
  )
  labels = label_rows("labels", labels, len(rows), classes)
  fewest = min(len(own) for own in rows_by_class(labels))
  if len(np.unique(labels)) < 2 or fewest < FEWEST_A_CLASS:
    raise UsageError(
      f"needs 2 classes or more with at least {FEWEST_A_CLASS} images each, the smallest has {fewest}"
    )
  return Features(unit(rows), labels, None if text is None else np.asarray(text, np.float32))
