"""CLER scores against explicit NumPy formulas, and invariances."""

import jax
import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics import cler as cler_module, cler_spread
from genbench_jax.metrics.accuracy import recognition_score
from genbench_jax.metrics.cler import cler, measure_cler
from genbench_jax.metrics.registry import Sets

NAMES = ("zero_shot", "cler", "cler_image", "topk_vote", "topk_vote_text")


def unit(rows):
  return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def softmax(rows):
  exponents = np.exp(rows - rows.max(1, keepdims=True))
  return exponents / exponents.sum(1, keepdims=True)


def by_hand(images, labels, text, tests, top_k=10):
  """Compute the scores of protocol section 5 in float64, class by class, from multi-hot labels."""
  images, text, tests = (
    unit(images.astype(float)),
    unit(text.astype(float)),
    unit(tests.astype(float)),
  )
  centers = np.stack([unit(images[column].mean(0)) for column in labels.T.astype(bool)])
  similarity = tests @ images.T
  nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :top_k]
  shares = labels[nearest].mean(1)
  summed = (labels[nearest] * np.take_along_axis(similarity, nearest, 1)[:, :, None]).sum(1)
  zero_shot = softmax(100 * tests @ text.T)
  scores = {
    "zero_shot": zero_shot,
    "cler": softmax(tests @ unit(text + centers).T),
    "cler_image": softmax(tests @ centers.T),
    "topk_vote": shares,
    "topk_vote_text": (shares + zero_shot) / 2,
  }
  untied = np.where(shares == shares.max(1, keepdims=True), summed, -np.inf)
  return scores, untied


def hot(labels, classes):
  return np.eye(classes, dtype=bool)[labels]


@pytest.mark.parametrize("metric", ["accuracy", "mean_per_class"])
def test_agrees_with_the_formulas(world, metric):
  scores, untied = by_hand(world.images, hot(world.labels, 7), world.text, world.tests)
  scores["topk_vote"] = untied
  found = cler(*world.all, metric=metric)
  assert tuple(found) == NAMES
  for name in NAMES:
    assert found[name] == pytest.approx(recognition_score(scores[name], world.test_labels, metric))
  assert len(set(found.values())) == 5  # else this test could not tell them apart


def test_two_classes_by_roc_auc(two_classes):
  world = two_classes
  scores, _ = by_hand(world.images, hot(world.labels, 2), world.text, world.tests)
  found = cler(*world.all, metric="roc_auc")
  for name in NAMES:
    expected = recognition_score(scores[name], world.test_labels, "roc_auc")
    assert found[name] == pytest.approx(expected, abs=1e-5)


def test_several_classes_per_image(world):
  rng = np.random.default_rng(3)
  labels = hot(world.labels, 7) | (rng.random((len(world.labels), 7)) < 0.1)
  test_labels = hot(world.test_labels, 7) | (rng.random((150, 7)) < 0.1)
  scores, _ = by_hand(world.images, labels, world.text, world.tests)
  found = cler(world.images, labels, world.text, world.tests, test_labels, "map_11_point")
  for name in NAMES:
    expected = recognition_score(scores[name], test_labels, "map_11_point")
    assert found[name] == pytest.approx(expected, abs=1e-6)


def test_a_class_without_images_uses_its_text_only(world):
  kept = world.labels != 3
  images, labels = world.images[kept], world.labels[kept]
  result = measure_cler(images, labels, world.text, world.tests, world.test_labels, resamples=50)
  assert result.missing_classes == (3,)
  centers = np.stack(
    [unit(unit(images[labels == c]).mean(0)) if c != 3 else np.zeros(16) for c in range(7)]
  )
  tests, text = unit(world.tests), unit(world.text)
  mixed = tests @ unit(text + centers).T
  assert result.scores["cler"].value == pytest.approx(recognition_score(mixed, world.test_labels))
  alone = np.delete(tests @ centers.T, 3, axis=1)
  predicted = np.delete(np.arange(7), 3)[alone.argmax(1)]
  assert result.scores["cler_image"].value == pytest.approx(np.mean(predicted == world.test_labels))
  assert result.per_class["cler_image"][3] == 0


def test_the_reference_collapses_with_a_missing_class(world):
  kept = world.labels != 3
  given = (world.images[kept], world.labels[kept], *world.all[2:])
  found = cler(*given, protocol="reference")
  always_first = np.mean(world.test_labels == 0)
  assert found["cler"] == found["cler_image"] == pytest.approx(always_first)
  assert found["topk_vote"] > always_first
  full = cler(*world.all, protocol="reference")
  strict = cler(*world.all)
  assert {name: full[name] for name in NAMES if name != "topk_vote"} == {
    name: strict[name] for name in NAMES if name != "topk_vote"
  }


def test_tied_votes(world):
  """With one image per class, every class has one vote: the nearest image decides, in reference
  class 0."""
  first = [int(np.flatnonzero(world.labels == c)[0]) for c in range(7)]
  given = (world.images[first], np.arange(7), *world.all[2:])
  strict, reference = cler(*given, top_k=7), cler(*given, top_k=7, protocol="reference")
  assert strict["topk_vote"] == strict["cler_image"]
  assert reference["topk_vote"] == pytest.approx(np.mean(world.test_labels == 0))


def test_fewer_images_than_neighbors(world):
  given = (world.images[:4], world.labels[:4], *world.all[2:])
  assert cler(*given, top_k=10) == cler(*given, top_k=4)


def test_centers_equal_to_the_text_reproduce_zero_shot(world):
  found = cler(3 * world.text, np.arange(7), *world.all[2:])
  assert found["cler"] == found["cler_image"] == found["zero_shot"]


def test_devices_blocks_and_order_do_not_matter(world, one_device_mesh, monkeypatch):
  whole = cler(*world.all)
  assert cler(*world.all, mesh=one_device_mesh) == whole
  order = np.random.default_rng(0).permutation(len(world.images))
  assert cler(world.images[order], world.labels[order], *world.all[2:]) == whole
  swap = np.random.default_rng(1).permutation(7)
  back = np.argsort(swap)
  swapped = (
    world.images,
    back[world.labels],
    world.text[swap],
    world.tests,
    back[world.test_labels],
  )
  assert cler(*swapped) == whole
  monkeypatch.setattr("genbench_jax.metrics.inputs.BLOCK_ROWS", 16)
  assert cler(*world.all) == whole


def test_jax_arrays_and_half_precision_are_accepted(world):
  given = [jax.numpy.asarray(array) for array in world.all]
  assert cler(*given) == cler(*world.all)
  halves = [array.astype(np.float16) if array.dtype == np.float32 else array for array in world.all]
  assert cler(*halves)["cler"] == pytest.approx(cler(*world.all)["cler"], abs=0.02)


def test_the_control_loses_the_gain_of_labels(world):
  result = measure_cler(*world.all, resamples=200)
  assert set(result.scores) == {*NAMES, "cler_gain"}
  assert set(result.control) == {*NAMES, "cler_gain"} - {"zero_shot"}
  assert result.control["cler_image"].value < result.scores["cler_image"].value
  assert result == measure_cler(*world.all, resamples=200)
  assert result.control != measure_cler(*world.all, resamples=200, seed=1).control


def test_per_class_recalls_make_the_mean(world):
  result = measure_cler(*world.all, metric="mean_per_class", resamples=20)
  for name in NAMES:
    assert np.mean(list(result.per_class[name].values())) == pytest.approx(
      result.scores[name].value
    )


def test_cells_of_many_sizes_share_one_program(world, mesh):
  from genbench_jax.metrics.cler_program import reduce_program

  program = reduce_program(mesh, True, False)
  cler(*world.all)
  compiled = program._cache_size()
  for images in (1, 8, 33, 63):
    cler(world.images[:images], world.labels[:images], *world.all[2:])
  assert program._cache_size() == compiled


def test_two_small_all_reduces_and_nothing_else(world, mesh):
  """The reduction communicates k x (d + 1) sums and k x (v + 1) counts."""
  import re

  from genbench_jax.metrics.cler import _no_sums
  from genbench_jax.metrics.cler_program import reduce_program
  from genbench_jax.metrics.inputs import place

  external = place("images", mesh, world.images, world.labels.astype(np.int32))
  tests = place("tests", mesh, world.tests, world.test_labels.astype(np.int32))
  program = reduce_program(mesh, True, False)
  text = program.lower(_no_sums(mesh, 7, 16), external, world.text, tests, None).compile().as_text()
  collectives = re.findall(
    r"= \(?(\w+\[[\d,]*\]).*? (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)\(",
    text,
  )
  assert sorted(collectives) == [("f32[1,7,17]", "all-reduce"), ("s32[7,4]", "all-reduce")]


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"images": np.zeros((63, 15))}, "16 wide"),
    ({"images": np.full((63, 16), np.nan)}, "NaN"),
    ({"labels": np.full(63, 7)}, "0..6"),
    ({"labels": np.zeros((63, 7))}, "no class"),
    ({"tests": np.zeros((0, 16))}, "at least one"),
    ({"test_labels": np.zeros((150, 7))}, "one class per image"),
    ({"metric": "f1"}, "recognition metric"),
    ({"protocol": "stict"}, "Did you mean 'strict'"),
    ({"top_k": 0}, "at least 1"),
  ],
)
def test_inconsistent_arguments_are_usage_errors(world, change, said):
  given = dict(zip(("images", "labels", "text", "tests", "test_labels"), world.all, strict=True))
  options = {name: change[name] for name in ("metric", "protocol", "top_k") if name in change}
  given |= {name: value for name, value in change.items() if name not in options}
  with pytest.raises(UsageError, match=said):
    cler(*given.values(), **options)


def test_the_intervals_equal_binomial_and_paired_ones(world):
  """Exact without resampling: each test image is a hit or a miss, and hits of two scores are
  paired."""
  scores, _ = by_hand(world.images, hot(world.labels, 7), world.text, world.tests)
  hits = {
    name: (scores[name].argmax(1) == world.test_labels).astype(float)
    for name in ("zero_shot", "cler", "cler_image")
  }
  found = measure_cler(*world.all, metric="accuracy", resamples=2000).scores
  expected = {**hits, "cler_gain": hits["cler"] - hits["zero_shot"]}
  for name, values in expected.items():
    width = 2 * 1.96 * values.std() / np.sqrt(len(values))
    measured = found[name]
    assert measured.value == pytest.approx(values.mean())
    # Ends are quantiles of a discrete distribution of about a hundred hits.
    assert measured.ci_high - measured.ci_low == pytest.approx(width, rel=0.15)
    assert measured.ci_low < measured.value < measured.ci_high


def test_labels_may_be_names_if_class_names_are_given(world):
  names = [f"class {index}" for index in range(7)]
  images, labels, text, tests, test_labels = world.all
  words = [names[label] for label in labels]
  test_words = np.array(names)[test_labels]
  assert cler(images, words, text, tests, test_words, class_names=names) == cler(*world.all)
  assert cler(images, words, text, tests, test_labels, class_names=names) == cler(*world.all)
  with pytest.raises(UsageError, match=r"labels are names such as 'class .': give class_names"):
    cler(images, words, text, tests, test_labels)
  with pytest.raises(
    UsageError, match=r"unknown class in test_labels 'klass 0'. Did you mean 'class 0'"
  ):
    cler(images, words, text, tests, ["klass 0", *test_words[1:]], class_names=names)
  with pytest.raises(UsageError, match="lists a class twice"):
    cler(images, words, text, tests, test_labels, class_names=[*names[:6], names[0]])


@pytest.mark.parametrize(
  ("metric", "top_k", "tests", "voters"),
  [("accuracy", None, 20, None), ("accuracy", 4, 20, 12), ("mean_per_class", 30, 150, 63)],
)
def test_variances_are_taken_from_some_tests_and_spare_neighbors(
  world, metric, top_k, tests, voters, monkeypatch
):
  """Metrics by class keep all test images; three times as many neighbors as votes, if there are."""
  seen = {}

  def variances(images, labels, text, test_features, test_labels, metric, found, *rest):
    seen.update(tests=len(test_features), labels=len(test_labels), voters=found)

  monkeypatch.setattr(cler_spread, "TEST_ROWS", 20)
  monkeypatch.setattr(cler_module, "external_variances", variances)
  measure_cler(*world.all, metric, top_k, permutations=1, resamples=2)
  assert seen["tests"] == seen["labels"] == tests
  assert (seen["voters"] and seen["voters"][1].shape) == (voters and (tests, voters))


def test_a_single_neighbor_decides_alone(world):
  tests, images = unit(world.tests.astype(float)), unit(world.images.astype(float))
  nearest = (tests @ images.T).argmax(axis=1)
  expected = np.mean(world.labels[nearest] == world.test_labels)
  assert cler(*world.all, top_k=1)["topk_vote"] == pytest.approx(expected)


def test_the_usual_control_is_the_mean_of_five_shuffles(world):
  given = (*world.all, "accuracy", None)
  five = measure_cler(*given, resamples=4, permutations=5)
  assert cler_module.PERMUTATIONS == 5
  assert measure_cler(*given, resamples=4).control == five.control
  random = np.random.default_rng(0)
  images, labels, *rest = world.all
  shuffled = [random.permutation(labels) for _ in range(5)]
  values = [cler(images, each, *rest, top_k=None)["cler_image"] for each in shuffled]
  assert five.control["cler_image"].value == pytest.approx(np.mean(values))


@pytest.mark.parametrize(
  ("wanted", "names"),
  [
    (("topk_vote_text",), {*NAMES, "cler_gain"}),
    (("cler", "topk_vote"), {*NAMES, "cler_gain"}),
    (("cler", "cler_gain"), {*NAMES[:3], "cler_gain"}),
  ],
)
def test_neighbors_are_searched_only_for_votes(world, wanted, names):
  images, labels, text, tests, test_labels = world.all
  sets = Sets(images, tests, labels, test_labels, text, 7, resamples=2)
  found = {result.name: result for result in cler_module.measure(sets, wanted)}
  assert found.keys() == names
  assert found["zero_shot"].control is None and found["cler"].control is not None
  assert set(found["cler"].by_class) == set(range(7)) and not found["cler_gain"].by_class
  assert found["cler"].per_image.mean() == pytest.approx(found["cler"].value.value)


def test_areas_have_no_values_by_class_and_precisions_have(two_classes):
  images, labels, text, tests, test_labels = two_classes.all
  area = measure_cler(*two_classes.all, "roc_auc", None, permutations=1, resamples=2)
  assert area.per_class == {} and set(area.per_image) == set(NAMES[:3])
  test_hot = hot(test_labels, 2)
  ranked = measure_cler(images, labels, text, tests, test_hot, "map_11_point", None, permutations=1, resamples=2)  # fmt: skip
  for name in NAMES[:3]:
    assert np.mean(list(ranked.per_class[name].values())) == pytest.approx(
      ranked.scores[name].value
    )
