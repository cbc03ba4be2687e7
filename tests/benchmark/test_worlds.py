"""The demo worlds: real digits, drawn shapes, disjoint splits."""

import numpy as np
import pytest

from genbench_jax.benchmark import worlds
from genbench_jax.benchmark.worlds import SPLITS, world_example, world_size, world_specs


@pytest.mark.parametrize("world", world_specs())
def test_an_image_is_a_function_of_world_split_and_index(world):
  one, other = world_example(world, "test", 7), world_example(world, "test", 7)
  np.testing.assert_array_equal(one.image, other.image)
  assert one.image.shape == (32, 32, 3)
  assert one.image.dtype == np.uint8
  assert (one.image != world_example(world, "train", 7).image).any()


def test_digits_are_scikit_learns_and_splits_are_disjoint():
  from sklearn.datasets import load_digits

  splits = worlds._digit_splits()
  parts = [images.reshape(len(images), -1) for images, _ in splits.values()]
  assert [len(part) for part in parts] == [world_size("digits", split) for split in SPLITS]
  everything = np.concatenate(parts)
  original = np.round(load_digits().images * (255 / 16)).astype(np.uint8).reshape(1797, -1)
  np.testing.assert_array_equal(np.sort(everything, axis=0), np.sort(original, axis=0))
  # Some digits of the source are identical; apart from these, no image is in two splits.
  assert len(np.unique(everything, axis=0)) == len(np.unique(original, axis=0))


def test_hard_digits_have_the_same_digits_and_splits():
  labels = [world_example("digits", "test", index).label for index in range(40)]
  hard = [world_example("digits_hard", "test", index) for index in range(40)]
  assert [example.label for example in hard] == labels
  assert 5 < sum(example.noisy for example in hard) < 40
  assert 5 < sum(example.hidden for example in hard) < 40


def test_drawn_images_of_different_splits_differ():
  seen = {
    world_example("shapes", split, index).image.tobytes()
    for split in SPLITS
    for index in range(200)
  }
  assert len(seen) == 600


def test_shapes_are_balanced_in_class_and_color():
  examples = [world_example("shapes", "test", index) for index in range(800)]
  assert np.bincount([example.label for example in examples]).tolist() == [100] * 8
  colors = np.unique([example.color for example in examples], return_counts=True)
  assert len(colors[0]) == 6
  assert colors[1].min() > 90


def test_each_sign_shares_its_color_or_shape_with_the_next():
  _, colors, shapes = zip(*worlds.SIGNS, strict=True)
  assert set(colors) <= set(worlds.COLORS) and set(shapes) <= set(worlds.SHAPE_NAMES)
  neighbors = zip(worlds.SIGNS, worlds.SIGNS[1:], strict=False)
  assert all((left[1] == right[1]) != (left[2] == right[2]) for left, right in neighbors)
  assert len({sign[1:] for sign in worlds.SIGNS}) == len(worlds.SIGNS)
  examples = [world_example("signs", "test", index) for index in range(16)]
  assert [example.color for example in examples] == list(colors) * 2
  assert [example.label for example in examples] == list(range(8)) * 2


@pytest.mark.parametrize("shape", worlds.SHAPE_NAMES)
def test_a_shape_covers_part_of_the_image(shape):
  mask = worlds._shape_mask(shape, np.random.default_rng(0))
  assert 0.03 < mask.mean() < 0.5
  assert mask.min() == 0
  assert mask.max() == 1


def test_specs_name_their_classes_and_sizes():
  specs = world_specs()
  assert list(specs) == ["digits", "digits_hard", "shapes", "signs"]
  assert specs["shapes"].names == worlds.SHAPE_NAMES
  assert specs["digits"].split_sizes == {"train": 400, "test": 497}
  assert worlds.UNSEEN_SHAPE in worlds.SHAPE_NAMES
