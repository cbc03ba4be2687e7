"""Few-shot choices of real images."""

import numpy as np
from hypothesis import given, settings, strategies as st

from genbench_jax.benchmark.reader import open_split
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.plan import rows_of_shots
from genbench_jax.sources.original import copy_shards, few_shot_order
from genbench_jax.store.image_set import ImageSetLayout


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 8), st.integers(0, 9))
def test_shots_nest_and_small_classes_keep_what_they_have(labels, per_class, seed):
  labels = np.array(labels)
  chosen = few_shot_order(labels, per_class, seed)
  assert len(set(chosen.tolist())) == len(chosen)
  counts = np.bincount(labels[chosen], minlength=5)
  np.testing.assert_array_equal(counts, np.minimum(np.bincount(labels, minlength=5), per_class))
  for shots in range(1, per_class):
    fewer = set(few_shot_order(labels, shots, seed).tolist())
    assert fewer == set(chosen[rows_of_shots(labels[chosen], shots)].tolist())


def test_hand_worked_example():
  labels = np.array([0] * 10 + [1] * 10 + [2] * 2)
  assert np.bincount(labels[few_shot_order(labels, 5, 0)]).tolist() == [5, 5, 2]


def test_images_are_copied_with_their_origin():
  split = open_split(dataset_spec("digits"), "train")
  chosen = few_shot_order(split.labels(), 2, 0)
  layout = ImageSetLayout("digits_original", tuple("0123456789"), len(chosen), 6, {})
  records = [r for _, some in copy_shards(split, layout, range(4), chosen) for r in some]
  assert [record.origin for record in records] == [f"train/{i:07d}" for i in chosen]
  assert [record.label for record in records[:10]] == list(range(10))
  assert records[0].image.startswith(b"\x89PNG")
