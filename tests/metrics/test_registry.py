"""The registry of metrics: registered metrics are measured, and distances have floors."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics import registry
from genbench_jax.metrics.bootstrap import Measurement
from genbench_jax.metrics.cautions import MAP_CAUTION
from genbench_jax.metrics.floors import draws, floors
from genbench_jax.metrics.registry import Metric, Result, Sets, measured


def sets_of(world, **more):
  given = {
    "external": world.images, "test": world.tests, "labels": world.labels, "test_labels": world.test_labels,
    "text": world.text, "num_classes": 7, "resamples": 20, **more,
  }  # fmt: skip
  return Sets(**given)


def test_every_quantity_is_measured_and_finite(world):
  sets = sets_of(world, training=world.tests, training_labels=world.test_labels)
  names = registry.known_quantities()
  found = {result.name: result.value for _, result in measured(sets, names)}
  # 63 images of 16 dimensions are too few for the limit; there are no guides here.
  assert set(names) - set(found) <= {
    "fd_infinity", "class_chamfer", "guide_ridge", "discriminative_span",
  }  # fmt: skip
  for name, value in found.items():
    assert np.isfinite(value.value), name
    assert value.ci_low <= value.ci_high, name
    if value.generator_low is None:
      assert value.note, name
    else:
      assert value.generator_low <= value.generator_high, name


def test_only_wanted_and_measurable_quantities_are_measured(world):
  found = [r.name for _, r in measured(sets_of(world, text=None), ("cler", "clip_score", "vendi"))]
  assert found == ["vendi"]


def test_a_registered_metric_is_known_to_configs(world, monkeypatch):
  monkeypatch.setattr(registry, "METRICS", list(registry.METRICS))

  def measure(sets, wanted):
    yield Result(
      "mean_length", Measurement(float(np.linalg.norm(sets.external, axis=1).mean()), 0, 9)
    )

  registry.register(Metric(("mean_length",), measure))
  assert "mean_length" in registry.KnownQuantities()
  assert [r.name for _, r in measured(sets_of(world), ("mean_length",))] == ["mean_length"]
  with pytest.raises(UsageError, match="mean_length is registered already"):
    registry.register(Metric(("mean_length",), measure))


def test_a_floor_is_the_distance_of_as_many_training_images(world):
  random = np.random.default_rng(0)
  labels = np.tile(np.arange(7), 20)
  training = world.tests[[random.choice(np.flatnonzero(world.test_labels == c)) for c in labels]]
  sets = sets_of(world, training=training, training_labels=labels)
  distance = next(metric for metric in registry.METRICS if metric.names == ("fid",))
  chosen = draws(sets.labels, labels)
  assert [np.bincount(labels[rows]).tolist() for rows in chosen] == [[9] * 7] * 2
  assert len(np.intersect1d(*chosen)) == 0
  values = [
    next(iter(distance(sets_of(world, external=training[rows], labels=labels[rows]), ["fid"])))
    for rows in chosen
  ]
  expected = np.mean([result.value.value for result in values])
  assert floors(distance, sets)["fid"] == pytest.approx(expected)
  own = next(iter(distance(sets, ["fid"]))).value.value
  assert own > floors(distance, sets)["fid"]


def test_other_metrics_also_have_the_value_of_real_images(world):
  """A perfect source has no precision of 1 either: the floor is what real images score at this n."""
  labels = np.tile(np.arange(7), 20)
  random = np.random.default_rng(0)
  training = world.tests[[random.choice(np.flatnonzero(world.test_labels == c)) for c in labels]]
  more = {"training": training, "training_labels": labels}
  sets = sets_of(world, guides=world.tests, guide_labels=world.test_labels, **more)
  found = {
    name: value for m in registry.METRICS if m.has_floor for name, value in floors(m, sets).items()
  }
  expected = {name for metric in registry.METRICS if metric.has_floor for name in metric.names}
  assert expected - set(found) == {"fd_infinity"}  # 63 images of 16 dimensions are too few
  assert {"precision", "coverage", "vendi", "clipped_density", "class_chamfer"} < set(found)
  own = {r.name: r.value.value for _, r in measured(sets, ("precision", "class_chamfer"))}
  assert own["precision"] < found["precision"] <= 1
  assert own["class_chamfer"] > found["class_chamfer"]


def test_without_enough_training_images_there_is_no_floor(world):
  few = sets_of(world, training=world.tests[:20], training_labels=world.test_labels[:20])
  assert (
    floors(registry.METRICS[2], few) == {} and floors(registry.METRICS[2], sets_of(world)) == {}
  )


def test_several_labels_per_image_keep_their_order():
  hot = np.ones((4, 3), bool)
  assert [rows.tolist() for rows in draws(hot, np.ones((9, 3), bool))] == [
    [0, 1, 2, 3],
    [4, 5, 6, 7],
  ]


def test_what_is_registered_with_each_quantity():
  by_name = {name: metric for metric in registry.METRICS for name in metric.names}
  lower = {
    "fid", "kid", "cmmd", "proxy_a_distance", "fd_infinity", "mind", "near_copies", "class_chamfer",
    "discriminative_span",
  }  # fmt: skip
  assert set(registry.lower_is_better()) == lower
  without_floor = {*registry._CLER, "clip_score", "auth_pct", "near_copies"}
  assert {name for name, metric in by_name.items() if not metric.has_floor} == without_floor
  assert {name for name, metric in by_name.items() if metric.on_demand} == {"discriminative_span"}
  assert set(registry.known_quantities()) - set(registry.usual_quantities()) == {
    "discriminative_span"
  }
  needs_text = {name for metric in registry.METRICS for name in metric.needs_text}
  assert needs_text == {*registry._CLER, "clip_score"}


def test_only_what_was_asked_for_is_yielded():
  def measure(sets, wanted):
    assert list(wanted) == ["b"]
    yield from (Result(name, None) for name in ("a", "b", "c"))

  found = Metric(("a", "b"), measure)(Sets(None, None, None, None), ("b", "c"))
  assert [result.name for result in found] == ["b"]


def test_the_defaults_of_a_measurement():
  sets = Sets(None, None, None, None)
  assert (sets.metric, sets.protocol, sets.top_k) == ("accuracy", "strict", 10)
  assert (sets.seed, sets.resamples, sets.num_classes) == (0, 1000, 0)
  assert Result("a", 1).on_guides is False and Metric(("a",), "m:f").better == "higher"


def test_recognition_scores_by_average_precision_carry_their_caution(world, monkeypatch):
  """Only CLER scores are recognition scores; others keep their own notes."""
  value = Measurement(0.5, 0.4, 0.6)
  for name, noted in (("cler", True), ("clip_score", False)):
    names = registry._CLER if noted else ("clip_score",)
    metric = Metric(names, lambda sets, wanted, name=name: iter([Result(name, value)]))
    monkeypatch.setattr(registry, "METRICS", [metric])
    ((_, found),) = measured(sets_of(world, metric="map_11_point"), (name,))
    assert (MAP_CAUTION in found.value.note) == noted
