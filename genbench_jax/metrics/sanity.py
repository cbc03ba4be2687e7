"""Sanity check of metrics: does each one react to known degradations of training images?

Half of each class plays the external images, half the real ones. The external half is degraded in
seven ways (`shifts`), over several random divisions. A metric reacts correctly if it worsens by
more than it varies over the divisions.
"""

import dataclasses
from typing import Any

import numpy as np

from genbench_jax.errors import UsageError
from genbench_jax.metrics.inputs import check_finite, feature_rows, label_rows
from genbench_jax.metrics.registry import Sets, known_quantities, lower_is_better, measured
from genbench_jax.metrics.shifts import SHIFTS, Features, rows_by_class, unit

NEED_TEXT = ("zero_shot", "cler", "cler_gain", "topk_vote_text", "clip_score")
# Only the values are used, not their intervals.
RESAMPLES = 2
DIVISIONS = 5
FEWEST_A_CLASS = 8
# In standard errors. With five divisions (4 degrees of freedom) chance exceeds this once in sixty
# times.
MOVES = 4.0
VERDICTS = {1: "right", 0: "-", -1: "WRONG"}


@dataclasses.dataclass(frozen=True)
class Movement:
  """How a metric changes under a degradation.

  Attributes:
    before, after: values, averaged over the divisions.
    worsening: mean change for the worse in standard errors; infinite if it never varies.
    verdict: 1 if the metric got worse, as it should; 0 if it barely changed; -1 if it got better.
  """

  before: float
  after: float
  worsening: float
  verdict: int


def measure_all(external: Features, real: Features) -> dict[str, float]:
  """Measure every registered metric that is defined for these images.

  Alternate real images are test images; the others are training images and guides.
  """
  has_text = external.text is not None
  # Scores that ignore the text still need a prototype per class; any will do.
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
  """Return every other row of each class, starting at `turn`."""
  return np.concatenate([own[turn::2] for own in rows_by_class(labels)])


def movements(
  given: Features, divisions: int = DIVISIONS, seed: int = 0
) -> dict[str, dict[str, Movement]]:
  """Return how each metric moves under each degradation, by metric and degradation.

  Args:
    given: features of real images, at least `FEWEST_A_CLASS` per class.
    divisions: number of random divisions into halves.
    seed: of the divisions and degradations.
  """
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
    if metric != "zero_shot"  # it does not depend on the external images
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
    np.array([values.get(metric, np.nan) for values in runs]) for runs in (clean, shifted)
  )
  if not np.isfinite(after).all():  # not defined for so few images
    return Movement(float(before.mean()), float("nan"), 0.0, 0)
  worse = (after - before) * (1 if metric in lower_is_better() else -1)
  error = worse.std(ddof=1) / np.sqrt(len(worse))
  # Changes beyond the 8th digit are rounding errors.
  mean = worse.mean() if abs(worse.mean()) > 1e-8 * np.abs(before).max() else 0.0
  worsening = mean / error if error > 0 else np.sign(mean) * np.inf if mean else 0.0
  verdict = int(np.sign(mean)) if abs(worsening) > MOVES else 0
  return Movement(float(before.mean()), float(after.mean()), float(worsening), verdict)


def checked(features: Any, labels: Any, text: Any = None) -> Features:
  """Return checked features, scaled to unit norm.

  Args:
    features: [n, d].
    labels: class indices, [n].
    text: one prototype per class, if any.

  Raises:
    UsageError: arrays do not fit, there is a single class, or a class has fewer than 8 images.
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
      f"needs at least 2 classes with at least {FEWEST_A_CLASS} images each; the smallest has {fewest}"
    )
  return Features(unit(rows), labels, None if text is None else np.asarray(text, np.float32))
