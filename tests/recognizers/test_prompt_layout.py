"""Prompts at the limits of their length, and their division into blocks of classes."""

import jax
import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.recognizers.prompt_layout import NOT_CONTEXT, class_blocks, prompt_layout
from genbench_jax.runtime.mesh import data_mesh

NAMES = [[7, 8, 9, 5], [6, 5]]


def layout(length, position="end", max_tokens=8):
  return prompt_layout(NAMES, length, position, start=1, end=2, max_tokens=max_tokens)


def test_the_smallest_context_has_one_vector():
  found = layout(1)
  assert found.tokens.tolist() == [[1, 0, 7, 8, 9, 5, 2, 2], [1, 0, 6, 5, 2, 2, 2, 2]]
  assert found.slots[0].tolist() == [NOT_CONTEXT, 0, *[NOT_CONTEXT] * 6]
  assert found.ends.tolist() == [6, 4]
  middle = layout(1, "middle")  # half of one vector is none before the name
  assert middle.tokens[1].tolist() == [1, 6, 0, 5, 2, 2, 2, 2]


def test_the_longest_context_leaves_one_place_for_the_full_stop():
  found = layout(5)
  assert found.tokens.tolist() == [[1, 0, 0, 0, 0, 0, 5, 2]] * 2
  assert found.slots[0].tolist() == [-1, 0, 1, 2, 3, 4, -1, -1]
  with pytest.raises(UsageError, match="a context of 6 does not fit into 8 tokens"):
    layout(6)
  with pytest.raises(UsageError, match="a context of 0 does not fit"):
    layout(0)


def test_long_names_lose_their_last_tokens_but_not_the_full_stop():
  assert layout(3).tokens[0].tolist() == [1, 0, 0, 0, 7, 8, 5, 2]
  assert layout(3, "middle").tokens[0].tolist() == [1, 0, 7, 8, 0, 0, 5, 2]
  assert layout(3, "middle").slots[0].tolist() == [-1, 0, -1, -1, 1, 2, -1, -1]


@pytest.mark.parametrize(
  ("at_once", "devices", "classes"),
  [
    (2, 1, [[0, 1], [2, 3], [4, 0]]),
    (5, 1, [[0, 1, 2, 3, 4]]),
    (9, 1, [[0, 1, 2, 3, 4]]),
    (1, 2, [[0, 1], [2, 3], [4, 0]]),
    (9, 2, [[0, 1, 2, 3, 4, 0]]),
  ],
)
def test_blocks_are_filled_up_with_class_0(at_once, devices, classes):
  names = [[10 + index, 5] for index in range(5)]
  found = prompt_layout(names, 2, "end", 1, 2, 6)
  blocks = class_blocks(found, at_once, data_mesh(jax.devices()[:devices]))
  assert np.asarray(blocks.classes).tolist() == classes
  np.testing.assert_array_equal(blocks.tokens, found.tokens[np.array(classes)])
  np.testing.assert_array_equal(blocks.slots, found.slots[np.array(classes)])
  np.testing.assert_array_equal(blocks.ends, found.ends[np.array(classes)])
