"""The search of VPT's paper: learning rate and weight decay by accuracy on held-out images."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from genbench_jax.errors import ModelError, UsageError
from genbench_jax.recognizers.settings import VPT_DECAYS, VPT_RATES, VptSettings

# (number of the trial, settings, training rows, held-out rows) -> scores of the held-out images.
Trial = Callable[
  [int, VptSettings, Int[np.ndarray, "m"], Int[np.ndarray, "h"]], Float[np.ndarray, "h k"]
]


def searched(
  settings: VptSettings, shares: Float[np.ndarray, "n k"], seed: int, trial: Trial
) -> VptSettings:
  """Return the settings with the best rate and decay on held-out images; ties go to the first.

  Args:
    settings: all other settings.
    shares: targets of the images.
    seed: of the choice of held-out images.
    trial: trains on some images and scores others.

  Raises:
    ModelError: training diverges at every rate.
    UsageError: there are fewer than two images.
  """
  held = held_out(shares, seed)
  rest = np.setdiff1d(np.arange(len(shares)), held)
  truth = shares[held].argmax(axis=1)
  found = []
  for number, (rate, decay) in enumerate(itertools.product(VPT_RATES, VPT_DECAYS)):
    rate = rate * settings.batch_size / 256
    tried = dataclasses.replace(settings, learning_rate=rate, weight_decay=decay)
    with contextlib.suppress(ModelError):  # a rate at which training diverges
      scores = trial(number, tried, rest, held)
      found.append((float(np.mean(scores.argmax(axis=1) == truth)), -number, tried))
  if not found:
    raise ModelError("every learning rate of VPT's search diverged.")
  return max(found, key=lambda each: each[:2])[2]


def held_out(shares: Float[np.ndarray, "n k"], seed: int) -> Int[np.ndarray, "h"]:
  """Return a fifth of each class with at least five images, or else of all images.

  Raises:
    UsageError: there are fewer than two images.
  """
  if len(shares) < 2:
    raise UsageError("vpt.search holds out images to choose the rate: it needs at least 2 images.")
  order = np.random.default_rng([seed, 0x5EA]).permutation(len(shares))
  labels = shares.argmax(axis=1)[order]
  chosen = [
    order[np.flatnonzero(labels == label)][: np.sum(labels == label) // 5]
    for label in np.unique(labels)
  ]
  found = np.sort(np.concatenate(chosen))
  return found if len(found) else np.sort(order[: max(len(order) // 5, 1)])
