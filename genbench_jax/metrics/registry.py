"""The one list of metrics. A metric is one file and one entry here, or one call of `register`.

Nothing heavy is imported: an entry names the function that measures, and it is loaded when it is first called.
"""

import dataclasses
import importlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Literal

from genbench_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Sets:
  """What a metric may look at: external and test images of one cell as features, and how to measure.

  Attributes:
    external, test: features as the encoder gives them, [n, d] and [m, d].
    labels, test_labels: class indices, or multi-hot.
    text: one prototype a class; None where the encoder knows no text.
    num_classes: of the dataset.
    metric: how recognition is scored, see `accuracy.recognition_score`.
    guides, guide_labels: real training images that nothing else has seen; None where there are none.
    training, training_labels: all real training images that the run has embedded; None where there are none.
    protocol: `strict` or `reference`.
    top_k: neighbors that vote.
    seed, resamples, mesh: of what is drawn and computed.
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
  """One number of a cell.

  Attributes:
    name: the quantity.
    value: a `bootstrap.Measurement`.
    by_class: class index -> value, where the quantity has them.
    control: the same with shuffled labels, where that says something.
  """

  name: str
  value: Any
  by_class: Mapping[int, float] = dataclasses.field(default_factory=dict)
  control: Any = None


Measure = Callable[[Sets, Collection[str]], Iterable[Result]]


@dataclasses.dataclass(frozen=True)
class Metric:
  """One function that measures one quantity, or several at the cost of one.

  Attributes:
    names: the quantities, as rows call them.
    measure: the function, or `module:function`. It yields those of the wanted quantities that are defined for the sets,
      and nothing for the others.
    better: whether a higher or a lower value means better images.
    needs_text: whether it needs the texts of the classes; names that do, if not all.
    is_distance: whether it is a distance to the test images, biased at small n: it then stands beside its floor, the
      same distance of as many real training images.
    on_demand: whether it is measured only where a config asks for it by name.
  """

  names: tuple[str, ...]
  measure: str | Measure
  better: Literal["higher", "lower"] = "higher"
  needs_text: tuple[str, ...] = ()
  is_distance: bool = False
  on_demand: bool = False

  def __call__(self, sets: Sets, wanted: Collection[str]) -> Iterator[Result]:
    """The wanted ones of its quantities."""
    function = self.measure if callable(self.measure) else _loaded(self.measure)
    asked = [name for name in self.names if name in wanted]
    return (result for result in function(sets, asked) if result.name in asked)


def _loaded(name: str) -> Measure:
  module, _, function = name.partition(":")
  return getattr(importlib.import_module(module), function)


METRICS: list[Metric] = []


def register(metric: Metric) -> Metric:
  """Adds a metric; its quantities are then measured wherever a config asks for them.

  Raises:
    UsageError: a quantity of that name is there already.
  """
  if taken := [name for name in metric.names if name in known_quantities()]:
    raise UsageError(f"metric {', '.join(taken)} is registered already")
  METRICS.append(metric)
  return metric


def known_quantities() -> tuple[str, ...]:
  """Every quantity, in the order of registration."""
  return tuple(name for metric in METRICS for name in metric.names)


class KnownQuantities:
  """`known_quantities` as they are when asked for: what is registered later is known, too."""

  def __iter__(self) -> Iterator[str]:
    return iter(known_quantities())

  def __contains__(self, name: object) -> bool:
    return name in known_quantities()


def usual_quantities() -> tuple[str, ...]:
  """Those that are measured unless a config says otherwise."""
  return tuple(name for metric in METRICS if not metric.on_demand for name in metric.names)


def lower_is_better() -> tuple[str, ...]:
  """Those of which a low value means good images."""
  return tuple(name for metric in METRICS if metric.better == "lower" for name in metric.names)


def measured(sets: Sets, wanted: Collection[str]) -> Iterator[tuple[Metric, Result]]:
  """Every wanted quantity that is defined for the sets, with its metric."""
  for metric in METRICS:
    asked = [name for name in metric.names if name in wanted and _has_text(metric, name, sets)]
    if asked:
      for result in metric(sets, asked):
        yield metric, result


def _has_text(metric: Metric, name: str, sets: Sets) -> bool:
  return sets.text is not None or name not in metric.needs_text


_CLER = ("zero_shot", "cler", "cler_gain", "cler_image", "topk_vote", "topk_vote_text")

for _metric in (
  Metric(_CLER, "genbench_jax.metrics.cler:measure", needs_text=_CLER),
  Metric(("clip_score",), "genbench_jax.metrics.clip_score:measure", needs_text=("clip_score",)),
  Metric(("fid",), "genbench_jax.metrics.frechet:measure", "lower", is_distance=True),
  Metric(("kid", "cmmd"), "genbench_jax.metrics.kernels:measure", "lower", is_distance=True),
  Metric(("precision", "recall", "density", "coverage"), "genbench_jax.metrics.manifold:measure"),
  Metric(("vendi", "vendi_q2", "vendi_inf"), "genbench_jax.metrics.vendi:measure"),
  Metric(("proxy_a_distance",), "genbench_jax.metrics.proxy:measure", "lower", is_distance=True),
  Metric(("fd_infinity",), "genbench_jax.metrics.fd_infinity:measure", "lower"),
  Metric(("mind",), "genbench_jax.metrics.mind:measure", "lower", is_distance=True),
  Metric(("clipped_density", "clipped_coverage"), "genbench_jax.metrics.clipped:measure"),
  Metric(("intra_class_diversity",), "genbench_jax.metrics.within_class:measure"),
  Metric(("auth_pct",), "genbench_jax.metrics.authenticity:measure"),
  Metric(("near_copies",), "genbench_jax.metrics.authenticity:measure", "lower"),
  Metric(("class_chamfer",), "genbench_jax.metrics.guides:measure", "lower"),
  Metric(("guide_ridge",), "genbench_jax.metrics.guides:measure"),
):
  register(_metric)
