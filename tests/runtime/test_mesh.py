"""Rows on a mesh: padded, masked, split."""

import numpy as np
import pytest

from genbench_jax.runtime.mesh import padded_size, shard_rows


@pytest.mark.parametrize(
  ("size", "multiple", "total"), [(0, 8, 8), (1, 8, 8), (8, 8, 8), (9, 8, 16)]
)
def test_padded_size_is_the_least_multiple_and_never_zero(size, multiple, total):
  assert padded_size(size, multiple) == total


def test_rows_are_split_evenly_and_the_mask_marks_real_rows(mesh):
  features = np.arange(10, dtype=np.float32).reshape(5, 2)
  rows, mask = shard_rows(mesh, features, multiple=2)
  assert rows.shape == (16, 2)
  assert len({shard.device for shard in rows.addressable_shards}) == 8
  np.testing.assert_array_equal(np.asarray(rows)[np.asarray(mask)], features)
  assert np.asarray(rows)[~np.asarray(mask)].sum() == 0
