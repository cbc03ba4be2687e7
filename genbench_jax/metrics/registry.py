"""Registry of metrics. A new metric is one file and one entry here, or one call of `register`.

Entries name their function as `module:function`, so that importing the registry stays cheap.
"""

import dataclasses
import importlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Literal

from genbench_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Sets:
  """Inputs of a metric: features of the external and test images of one cell, and how to measure.

  Attributes:
    external, test: features as the encoder returns them, [n, d] and [m, d].
    labels, test_labels: class indices, or multi-hot.
    text: one unit-norm prototype per class, [k, d]; None for encoders without a text tower.
    num_classes: number of classes of the dataset.
    metric: recognition score, see `accuracy.recognition_score`.
    guides, guide_labels: real training images that no other part of the cell uses; None if there
      are none.
    training, training_labels: all real training images with stored features; None if there are
      none.
    protocol: `strict` or `reference`.
    top_k: number of neighbors that vote; None for all.
    seed, resamples: of the bootstrap and of every random draw.
    mesh: devices to compute on.
  """

  external: Any
  test: Any
  labels: Any
  test_labels: Any
  text: Any = None
  num_classes: int = 0
  metric: str = "accuracy"
  guides: Any = None
  guide_labels: Any = None
  training: Any = None
  training_labels: Any = None
  protocol: Literal["strict", "reference"] = "strict"
  top_k: int | None = 10
  seed: int = 0
  resamples: int = 1000
  mesh: Any = None


@dataclasses.dataclass(frozen=True)
class Result:
  """One measured quantity of a cell.

  Attributes:
    name: name of the quantity.
    value: a `bootstrap.Measurement`.
    by_class: value by class index, for quantities that are defined per class.
    control: the same quantity with shuffled labels, for quantities that depend on labels.
    per_image: contribution of each test image, see `image_values.paired_values`; None if the quantity
      is not a mean over images.
    on_guides: whether the images of `per_image` are the guides.
  """

  name: str
  value: Any
  by_class: Mapping[int, float] = dataclasses.field(default_factory=dict)
  control: Any = None
  per_image: Any = None
  on_guides: bool = False


Measure = Callable[[Sets, Collection[str]], Iterable[Result]]


@dataclasses.dataclass(frozen=True)
class Metric:
  """A function that measures one quantity, or several that share their cost.

  Attributes:
    names: names of the quantities, as they appear in rows.
    measure: the function, or `module:function`. It yields the requested quantities that are defined
      for the sets and skips the others.
    better: whether a higher or a lower value means better images.
    needs_text: names of the quantities that need text prototypes.
    has_floor: whether its rows also have the value of equally many real training images, see
      `metrics.floors`: what a perfect source would score at this n.
    on_demand: True if the quantity is measured only when a config names it.
  """

  names: tuple[str, ...]
  measure: str | Measure
  better: Literal["higher", "lower"] = "higher"
  needs_text: tuple[str, ...] = ()
  has_floor: bool = False
  on_demand: bool = False

  def __call__(self, sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
    """Yield the requested quantities of this metric."""
    function = self.measure if callable(self.measure) else _loaded(self.measure)
    asked = [name for name in self.names if name in wanted]
    return (result for result in function(sets, asked) if result.name in asked)


def _loaded(name: str) -> Measure:
  module, _, function = name.partition(":")
  return getattr(importlib.import_module(module), function)


METRICS: list[Metric] = []


def register(metric: Metric) -> Metric:
  """Add a metric to the registry, so that configs can request its quantities.

  Raises:
    UsageError: one of its names is taken.
  """
  if taken := [name for name in metric.names if name in known_quantities()]:
    raise UsageError(f"metric {', '.join(taken)} is registered already")
  METRICS.append(metric)
  return metric


def known_quantities() -> tuple[str, ...]:
  """Return the names of all quantities, in the order of registration."""
  return tuple(name for metric in METRICS for name in metric.names)


class KnownQuantities:
  """Live view of `known_quantities`: it includes metrics registered after the view was created."""

  def __iter__(self) -> Iterator[str]:
    return iter(known_quantities())

  def __contains__(self, name: object) -> bool:
    return name in known_quantities()


def usual_quantities() -> tuple[str, ...]:
  """Return the names of the quantities that are measured by default."""
  return tuple(name for metric in METRICS if not metric.on_demand for name in metric.names)


def lower_is_better() -> tuple[str, ...]:
  """Return the names of the quantities for which a lower value is better."""
  return tuple(name for metric in METRICS if metric.better == "lower" for name in metric.names)


def measured(sets: Sets, wanted: Collection[str]) -> Iterator[tuple[Metric, Result]]:
  """Yield every requested quantity that is defined for the sets, with its metric."""
  from genbench_jax.metrics.cautions import with_caution  # imports jax

  for metric in METRICS:
    asked = [name for name in metric.names if name in wanted and _has_text(metric, name, sets)]
    if asked:
      recognition = metric.names == _CLER
      for result in metric(sets, asked):
        value = with_caution(result.name, result.value, sets.metric, recognition)
        yield metric, dataclasses.replace(result, value=value)


def _has_text(metric: Metric, name: str, sets: Sets) -> bool:
  return sets.text is not None or name not in metric.needs_text


_MANIFOLD = ("precision", "recall", "density", "coverage")
_CLIPPED = ("clipped_density", "clipped_coverage")
_CLER = ("zero_shot", "cler", "cler_gain", "cler_image", "topk_vote", "topk_vote_text")

for _metric in (
  Metric(_CLER, "genbench_jax.metrics.cler:measure", needs_text=_CLER),
  Metric(("clip_score",), "genbench_jax.metrics.clip_score:measure", needs_text=("clip_score",)),
  Metric(("fid",), "genbench_jax.metrics.frechet:measure", "lower", has_floor=True),
  Metric(("kid", "cmmd"), "genbench_jax.metrics.kernels:measure", "lower", has_floor=True),
  Metric(_MANIFOLD, "genbench_jax.metrics.manifold:measure", has_floor=True),
  Metric(("vendi", "vendi_q2", "vendi_inf"), "genbench_jax.metrics.vendi:measure", has_floor=True),
  Metric(("proxy_a_distance",), "genbench_jax.metrics.proxy:measure", "lower", has_floor=True),
  Metric(("fd_infinity",), "genbench_jax.metrics.fd_infinity:measure", "lower", has_floor=True),
  Metric(("mind",), "genbench_jax.metrics.mind:measure", "lower", has_floor=True),
  Metric(_CLIPPED, "genbench_jax.metrics.clipped:measure", has_floor=True),
  Metric(("intra_class_diversity",), "genbench_jax.metrics.within_class:measure", has_floor=True),
  # No floor: these two compare with the training images, so no other real images can stand for a
  # perfect source.
  Metric(("auth_pct",), "genbench_jax.metrics.authenticity:measure"),
  Metric(("near_copies",), "genbench_jax.metrics.authenticity:measure", "lower"),
  Metric(("class_chamfer",), "genbench_jax.metrics.guides:measure", "lower", has_floor=True),
  Metric(("guide_ridge",), "genbench_jax.metrics.guides:measure", has_floor=True),
  Metric(
    ("discriminative_span",),
    "genbench_jax.metrics.discriminative_span:measure",
    "lower",
    has_floor=True,
    on_demand=True,
  ),
):
  register(_metric)
