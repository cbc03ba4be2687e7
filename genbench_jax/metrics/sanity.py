"""Which metric moves the right way when images become worse training data in a known way?

Half of each class stands for the external images, half for the real ones; the external half is then spoiled in seven
ways, over several divisions. A metric moves the right way if it gets worse by more than the divisions make it vary.
"""

import dataclasses
from typing import Any

import numpy as np

from genbench_jax.errors import UsageError
from genbench_jax.metrics.cler import cler
from genbench_jax.metrics.clip_score import clip_score
from genbench_jax.metrics.frechet import frechet_distance
from genbench_jax.metrics.inputs import check_finite, feature_rows, label_rows
from genbench_jax.metrics.kernels import cmmd, kernel_distance
from genbench_jax.metrics.manifold import precision_recall_density_coverage
from genbench_jax.metrics.proxy import proxy_a_distance
from genbench_jax.metrics.shifts import SHIFTS, Features, rows_by_class, unit
from genbench_jax.metrics.vendi import vendi

NEED_TEXT = ("zero_shot", "cler", "cler_gain", "topk_vote_text", "clip_score")
LOWER_IS_BETTER = ("fid", "kid", "cmmd", "proxy_a_distance")
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
  """Every metric of the external images against the real ones. PAD is taken from one seed."""
  x, y = external.features, real.features
  found = {
    **_recognition(external, real),
    "fid": frechet_distance(x, y),
    "kid": kernel_distance(x, y),
    "cmmd": cmmd(x, y),
    **precision_recall_density_coverage(y, x),
    "vendi": vendi(x),
    "proxy_a_distance": proxy_a_distance(x, y),
  }
  if external.text is not None:
    found["clip_score"] = clip_score(x, external.text, external.labels)
  return found


def _recognition(external: Features, real: Features) -> dict[str, float]:
  """The scores of CLER; without texts only those that need none."""
  has_text = external.text is not None
  # Any prototypes will do for the scores that don't use them.
  text = (
    external.text if has_text else np.ones((int(real.labels.max()) + 1, real.features.shape[1]))
  )
  found = cler(external.features, external.labels, text, real.features, real.labels)
  found["cler_gain"] = found["cler"] - found["zero_shot"]
  return {name: value for name, value in found.items() if has_text or name not in NEED_TEXT}


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
  before, after = (np.array([values[metric] for values in each]) for each in (clean, shifted))
  worse = (after - before) * (1 if metric in LOWER_IS_BETTER else -1)
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
