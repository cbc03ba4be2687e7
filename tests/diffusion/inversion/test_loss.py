"""What a training step draws from the references of a token."""

import jax
import numpy as np

from genbench_jax.diffusion.inversion.loss import References, draw_batch

REFERENCES, VIEWS, PROMPTS, CLASSES = 3, 2, 4, 2


def references():
  """Latents that name their reference and view, and tokens that name their class and prompt."""
  named = 10 * np.arange(4)[:, None] + np.arange(VIEWS)
  tokens = 10 * np.arange(CLASSES)[:, None] + np.arange(PROMPTS)
  return References(
    mean=np.broadcast_to(named[..., None, None, None], (4, VIEWS, 1, 1, 1)).astype(np.float32),
    deviation=None,
    num_references=np.int32(REFERENCES),
    label=np.array([0, 1, 1, 0], np.int32),
    tokens=tokens[..., None, None].astype(np.int32),
    text_features=None,
    key=np.zeros(2, np.uint32),
  )


def test_every_real_reference_view_and_prompt_is_drawn_and_padding_never():
  batch = draw_batch(references(), jax.random.key(0), 300, 1000, False)
  drawn = np.asarray(batch.clean).ravel().astype(int)
  assert set(drawn) == {10 * r + v for r in range(REFERENCES) for v in range(VIEWS)}
  assert np.bincount(drawn // 10).tolist() == [100, 100, 100]
  np.testing.assert_array_equal(batch.label, np.array([0, 1, 1])[drawn // 10])
  tokens = np.asarray(batch.tokens).ravel()
  np.testing.assert_array_equal(tokens // 10, batch.label)
  assert set(tokens % 10) == set(range(PROMPTS))


def test_one_time_from_each_part_of_the_schedule():
  batch = draw_batch(references(), jax.random.key(1), 50, 1000, False)
  np.testing.assert_array_equal(np.asarray(batch.time) // 20, np.arange(50))
