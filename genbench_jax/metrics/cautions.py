"""What a row says of its intervals where simulations found their coverage outside .93 to .97
(docs/statistics.md)."""

import dataclasses

from genbench_jax.metrics.bootstrap import Measurement

_NARROW = (
  "interval for the generator holds .93, a little less than .95, in simulations with 64 images"
)
CAUTIONS = {
  "vendi_inf": (
    "interval holds .98: the largest eigenvalue moves less than its linearization says, so that it is too wide"
  ),
  "mind": (
    "interval for the generator holds .99: second-order terms, most of its noise between small sets, are counted up to "
    "three times, so that it is too wide"
  ),
  "kid": _NARROW,
  "vendi": _NARROW,
  "clipped_density": _NARROW,
  "near_copies": (
    "interval for these images holds .925: a share of few images moves in steps with a quantile of unseen ones"
  ),
  "recall": "interval for these images holds .975: Wilson's takes test images as independent, so that it is a little too wide",
  "proxy_a_distance": (
    "intervals hold 1.00: divisions share images, by how much is taken at its worst, so that they are too wide"
  ),
}
# Of recognition, by the dataset's metric.
MAP_CAUTION = (
  "interval holds .93 with few classes and .99 with many: the bias of 11-point precision is estimated, and what is added "
  "for its error is too wide"
)


def with_caution(name: str, value: Measurement, metric: str, recognition: bool) -> Measurement:
  """Add to a measurement's note what is known of its coverage.

  Args:
    name: the quantity.
    value: its measurement.
    metric: how recognition is scored, see `accuracy.recognition_score`.
    recognition: whether the quantity is scored by it.
  """
  by_metric = MAP_CAUTION if recognition and metric == "map_11_point" else ""
  # What is too wide needs an interval for the generator; rows without one say why they have none.
  wide = CAUTIONS.get(name, "") if value.generator_low is not None else ""
  note = "; ".join(filter(None, (value.note, wide, by_metric)))
  return dataclasses.replace(value, note=note)
