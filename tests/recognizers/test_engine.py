"""The training engine: PyTorch parity, devices, accumulation, and cells side by side."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.models import weights
from genbench_jax.models.classifier_shapes import NETWORKS, ResNetConfig, VitConfig
from genbench_jax.models.classifiers import make_classifier
from genbench_jax.recognizers.engine import predict, train
from genbench_jax.recognizers.fit import fit_cells
from genbench_jax.recognizers.from_scratch import ClassifierLogits
from genbench_jax.recognizers.method import Method, Place
from genbench_jax.recognizers.problem import Model, Problem, View
from genbench_jax.recognizers.settings import Recipe
from genbench_jax.recognizers.train_step import check_recipe
from genbench_jax.recognizers.training_set import Curriculum, make_training_set, source_weights

GOLDEN = Path(__file__).parents[1] / "data" / "golden_recognizers.npz"
PLAIN = Recipe(
  learning_rate=0.02, weight_decay=5e-4, warmup=0.05, batch_size=32, min_crop=1.0, flip=False, min_steps=1
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LinearLogits:
  """Linear model, which compiles quickly."""

  def __call__(self, variables, stats, frozen, pixels, key):
    return pixels.mean(axis=(1, 2)) @ variables["w"] + variables["b"], stats


def linear_problem(multi_label=False):
  return Problem(LinearLogits(), View(8, (0.5,) * 3, (0.5,) * 3), multi_label)


def linear_model():
  return Model({"w": jnp.zeros((3, 3)), "b": jnp.zeros(3)}, {}, {})


def colors(count=48, side=8):
  """Return images whose class is their strongest channel."""
  generator = np.random.default_rng(0)
  images = generator.integers(0, 120, (count, side, side, 3))
  labels = np.arange(count) % 3
  images[np.arange(count), :, :, labels] += 100
  return images.astype(np.uint8), np.eye(3, dtype=np.float32)[labels]


@dataclasses.dataclass(frozen=True)
class GivenRows(Curriculum):
  """Return a curriculum with given rows."""

  given: object = None

  def rows(self, number):
    return self.given[number]


def filled(tree):
  """Return the weights of tools/golden_recognizers.py."""
  import math
  import zlib

  def drawn(name, shape):
    normal = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    if len(shape) == 1 and name.endswith("weight"):
      return (1 + 0.1 * normal).astype(np.float32)
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else 100
    return (normal / math.sqrt(fan_in)).astype(np.float32)

  shapes = weights.torch_shapes(tree)
  tensors = {name: (lambda n=name, s=shape: drawn(n, s)) for name, shape in shapes.items()}
  return weights.load(tensors, tree, "drawn")


@pytest.mark.slow
def test_two_hundred_steps_on_digits_follow_pytorch(one_device_mesh):
  """Same weights and order; warm-up, cosine, momentum, decay and label smoothing."""
  golden = {key[7:]: value for key, value in np.load(GOLDEN).items() if key.startswith("digits/")}
  classifier = make_classifier("resnet8", 8, 10, stem="small")
  params, stats = classifier.initial(jax.random.key(0))
  stats = jax.tree.map(jnp.copy, stats)
  images = np.repeat(golden["images"][..., None], 3, axis=3)
  data = make_training_set(images, np.eye(10)[golden["labels"]])
  recipe = dataclasses.replace(PLAIN, min_steps=200, epochs=0)
  curriculum = GivenRows((np.arange(320),), (200,), recipe, 0, golden["rows"])
  problem = Problem(ClassifierLogits(classifier), View(8, (0.5,) * 3, (0.5,) * 3))
  model = Model(filled(params), stats, {})
  trained = train(problem, [model], [data], [curriculum], one_device_mesh)[0]
  # PyTorch's run is in float64, so the differences are our rounding, which training amplifies.
  np.testing.assert_allclose(trained.losses, golden["losses"], atol=1e-3)


def fitted(recipe, mesh, seed=0, images=None, **options):
  """Return the trained linear model and its losses."""
  images, targets = colors() if images is None else images
  data = make_training_set(images, targets, seed=seed, **options)
  found = train(linear_problem(), [linear_model()], [data], [data.curriculum(recipe)], mesh)[0]
  return found.model.variables["w"], found.losses


LINEAR = dataclasses.replace(
  PLAIN, learning_rate=0.5, min_steps=12, epochs=0, batch_size=16, min_crop=0.5, flip=True, mixup=0.2, cutmix=1.0
)  # fmt: skip


@pytest.mark.slow
def test_the_engine_learns_and_predicts(one_device_mesh):
  images, targets = colors()
  data = make_training_set(images, targets)
  recipe = dataclasses.replace(LINEAR, min_steps=200, mixup=0.0, cutmix=0.0)
  found = train(linear_problem(), [linear_model()], [data], [data.curriculum(recipe)], one_device_mesh)[0]  # fmt: skip
  scores = predict(linear_problem(), found.model, images, one_device_mesh, 32)
  assert found.losses[-1] < 0.8 * found.losses[0] and found.accuracies[-1] > 0.9
  assert scores.shape == (48, 3) and (scores.argmax(1) == np.arange(48) % 3).mean() > 0.95
  np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_the_number_of_devices_changes_only_rounding(two_device_mesh, one_device_mesh):
  for batch_size in (16, 15):  # 15 images can't be split over two devices: each then computes all
    recipe = dataclasses.replace(LINEAR, batch_size=batch_size)
    alone, split = fitted(recipe, one_device_mesh), fitted(recipe, two_device_mesh)
    np.testing.assert_allclose(alone[1], split[1], rtol=1e-5)
    np.testing.assert_allclose(alone[0], split[0], atol=1e-6)


def test_parts_of_a_batch_sum_to_its_gradient(one_device_mesh):
  """Also with MixUp and CutMix, which mix images of different parts."""
  whole = fitted(LINEAR, one_device_mesh)
  parts = fitted(dataclasses.replace(LINEAR, accumulate=4), one_device_mesh)
  np.testing.assert_allclose(whole[1], parts[1], rtol=1e-5)
  np.testing.assert_allclose(whole[0], parts[0], atol=1e-6)


def test_seeds_decide_the_order_and_the_augmentation(one_device_mesh):
  again, other = fitted(LINEAR, one_device_mesh), fitted(LINEAR, one_device_mesh, seed=1)
  np.testing.assert_array_equal(fitted(LINEAR, one_device_mesh)[1], again[1])
  assert np.abs(again[1] - other[1]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
  "network",
  [ResNetConfig("basic", (1, 1), width=8), VitConfig(patch_size=2, width=32, depth=1, heads=2)],
  ids=["resnet", "vit"],
)
def test_cells_trained_together_equal_cells_trained_alone(network, one_device_mesh, monkeypatch):
  """Two seeds of a network in one program."""
  name = type(network).__name__  # programs are kept by name
  monkeypatch.setitem(NETWORKS, name, network)
  classifier = make_classifier(name, 8, 3)
  problem = Problem(ClassifierLogits(classifier), View(8, (0.5,) * 3, (0.5,) * 3))
  recipe = dataclasses.replace(PLAIN, epochs=2, min_steps=4, batch_size=8, min_crop=0.5, ema=0.9)
  images, targets = colors()
  sets = [make_training_set(images, targets, seed=seed) for seed in (0, 1)]
  models = [Model(*classifier.initial(jax.random.key(seed)), {}) for seed in (0, 1)]
  curricula = [data.curriculum(recipe) for data in sets]
  both = train(problem, models, sets, curricula, one_device_mesh)
  for index in (0, 1):
    alone = train(problem, models[index : index + 1], sets[index : index + 1], curricula[index : index + 1], one_device_mesh)[0]  # fmt: skip
    np.testing.assert_allclose(alone.losses, both[index].losses, rtol=2e-4)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4),
      alone.model.variables, both[index].model.variables,
    )  # fmt: skip


def test_a_training_resumes_from_its_own_checkpoints_alone(one_device_mesh, tmp_path):
  """A folder that was used for another rate, other images or another first model."""
  images, targets = colors()
  given = make_training_set(images, targets)
  recipe = dataclasses.replace(LINEAR, min_steps=3)

  def steps(data=given, recipe=recipe, model=None):
    curriculum = data.curriculum(recipe)
    model = model or linear_model()
    problem = linear_problem()
    result = train(problem, [model], [data], [curriculum], one_device_mesh, tmp_path, 2)[0]
    return len(result.losses)

  other_model = linear_model()._replace(variables={"w": jnp.ones((3, 3)), "b": jnp.zeros(3)})
  changes = (
    {}, {"recipe": dataclasses.replace(recipe, learning_rate=0.4)}, {"model": other_model},
    {"data": make_training_set(images + 1, targets)},
    {"data": make_training_set(images, targets, np.arange(48) + 1.0)},
  )  # fmt: skip
  assert [steps(**change) for change in changes] == [3] * 5
  assert [steps(**change) for change in changes] == [0] * 5


@pytest.mark.slow
def test_another_group_of_cells_does_not_resume_from_this_one(one_device_mesh, tmp_path):
  """A run is stopped and goes on with a third seed."""
  recipe = dataclasses.replace(LINEAR, search_rates=(1.0,), search_epochs=(1.0,))
  method = Method("from_scratch", linear_problem(), lambda seed: linear_model(), recipe)
  images, targets = colors()
  sets = [make_training_set(images, targets, seed=seed) for seed in range(3)]

  def losses(count, folder):
    names = [f"seed{seed}" for seed in range(count)]
    places = [Place(one_device_mesh, name, folder / name, 6, at_once=3) for name in names]
    return np.stack([fit.losses for fit in fit_cells(method, sets[:count], places, "strict")])

  two, three = losses(2, tmp_path / "run"), losses(3, tmp_path / "run")
  assert two.shape == (2, 12) and three.shape == (3, 12)
  np.testing.assert_array_equal(three, losses(3, tmp_path / "other"))
  assert losses(3, tmp_path / "run").shape == (3, 0)  # done before


def test_source_weights_scale_their_losses(one_device_mesh):
  """8 images of one source and 40 of another at 0.8 and 0.2: the loss is 0.8 and 0.2 of their
  means."""
  weights_of_images = source_weights((8, 40), (0.8, 0.2))
  assert weights_of_images.mean() == pytest.approx(1)
  assert weights_of_images[:8].sum() / 48 == pytest.approx(0.8)
  np.testing.assert_allclose(source_weights((0, 5), (0.8, 0.2)), 1)
  recipe = dataclasses.replace(PLAIN, min_steps=1, epochs=0, batch_size=48, learning_rate=0.1)
  images, targets = colors()
  equal, _ = fitted(recipe, one_device_mesh)
  weighted, _ = fitted(recipe, one_device_mesh, weights=weights_of_images)
  first, _ = fitted(recipe, one_device_mesh, images=(images[:8], targets[:8]))
  rest, _ = fitted(recipe, one_device_mesh, images=(images[8:], targets[8:]))
  assert np.abs(equal - weighted).max() > 1e-6
  # One step from zero is linear in the gradient; 48 places of a batch over 8 or 40 images see some
  # twice.
  assert np.sign(weighted).tolist() == np.sign(0.8 * first + 0.2 * rest).tolist()


def test_real_images_follow_synthetic_ones():
  """Two phases, each with its own order, warm-up and cosine."""
  data = make_training_set(np.zeros((12, 8, 8, 3), np.uint8), np.eye(2)[np.arange(12) % 2], later=np.arange(12) >= 8)  # fmt: skip
  recipe = dataclasses.replace(PLAIN, epochs=4, min_steps=0, batch_size=4, warmup=0.25)
  curriculum = data.curriculum(recipe)
  assert curriculum.steps == (8, 4)
  assert {row for step in range(8) for row in curriculum.rows(step)} == set(range(8))
  assert {row for step in range(8, 12) for row in curriculum.rows(step)} == set(range(8, 12))
  rates = [curriculum.rate(step) / recipe.learning_rate for step in range(12)]
  assert rates[:3] == pytest.approx([0.5, 1.0, 1.0]) and rates[8] == 1.0
  assert rates[7] < 0.1 and rates[11] < 0.3
  assert data.curriculum(recipe, np.arange(8)).steps == (8,)


def test_impossible_recipes_are_rejected():
  for change, words in (({"optimizer": "adam"}, "sgd"), ({"schedule": "linear"}, "cosine"), ({"accumulate": 5}, "parts")):  # fmt: skip
    with pytest.raises(UsageError, match=words):
      check_recipe(dataclasses.replace(PLAIN, **change))


def test_several_labels_per_image(one_device_mesh):
  images, targets = colors()
  data = make_training_set(images, np.maximum(targets, np.roll(targets, 1, 1)), multi_label=True)
  recipe = dataclasses.replace(PLAIN, min_steps=80, learning_rate=2.0)
  found = train(linear_problem(True), [linear_model()], [data], [data.curriculum(recipe)], one_device_mesh)[0]  # fmt: skip
  scores = predict(linear_problem(True), found.model, images, one_device_mesh)
  assert found.losses[-1] < found.losses[0] and ((scores > 0.5) == data.targets).mean() > 0.8
