"""Notes on intervals whose simulated coverage is outside .93 to .97 (docs/statistics.md)."""

import dataclasses

from genbench_jax.metrics.bootstrap import Measurement

_NARROW = (
  "the interval for the generator has coverage .93 instead of .95 in simulations with 64 images"
)
CAUTIONS = {
  "vendi_inf": (
    "the interval has coverage .98: it is too wide, because the largest eigenvalue varies less than its linearization"
  ),
  "mind": (
    "the interval for the generator has coverage .99: it is too wide, because second-order terms, which dominate the noise "
    "of small sets, are counted up to three times"
  ),
  "kid": _NARROW,
  "vendi": _NARROW,
  "clipped_density": _NARROW,
  "near_copies": (
    "the interval for these images has coverage .925: a share of few images changes in steps with a quantile of unseen ones"
  ),
  "recall": "the interval for these images has coverage .975: it is slightly too wide, because Wilson's assumes independent images",
  "proxy_a_distance": (
    "the intervals have coverage 1.00: they are too wide, because the worst case is assumed for images that divisions share"
  ),
}
# For recognition scores of datasets that use this metric.
MAP_CAUTION = (
  "the interval has coverage .93 with few classes and .99 with many: the bias of 11-point precision is estimated, and the "
  "allowance for its error is too large"
)


def with_caution(name: str, value: Measurement, metric: str, recognition: bool) -> Measurement:
  """Add a note on the known coverage of its intervals to a measurement.

  Args:
    name: name of the quantity.
    value: its measurement.
    metric: recognition score, see `accuracy.recognition_score`.
    recognition: whether the quantity is a recognition score.
  """
  by_metric = MAP_CAUTION if recognition and metric == "map_11_point" else ""
  # These notes concern the interval for the generator; without one, the note says why it is
  # missing.
  wide = CAUTIONS.get(name, "") if value.generator_low is not None else ""
  note = "; ".join(filter(None, (value.note, wide, by_metric)))
  return dataclasses.replace(value, note=note)
