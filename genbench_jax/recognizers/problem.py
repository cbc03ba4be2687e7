"""Types of a training on images: network and loss, model, batch and outcome of a step."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

Params = Any


class View(NamedTuple):
  """How a network takes images.

  Attributes:
    size: side in pixels.
    mean, std: of the three channels, in [0, 1].
  """

  size: int
  mean: tuple[float, ...]
  std: tuple[float, ...]

  @property
  def stored_size(self) -> int:
    """Side of decoded images: an eighth larger than `size`, to crop from, unless small."""
    return self.size if self.size <= 64 else 8 * round(self.size / 7)

  def normalized(self, pixels: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    """Normalize pixels of 0 to 255."""
    return (pixels / 255 - jnp.asarray(self.mean)) / jnp.asarray(self.std)


class Model(NamedTuple):
  """Parameters of a model, split by how they change.

  Attributes:
    variables: parameters that learn, float32.
    stats: running averages, or `{}`.
    frozen: arrays that are only read.
  """

  variables: Params
  stats: Any
  frozen: Any


# (variables, stats, frozen, normalized pixels, key or None for testing) -> (logits, stats). Must be
# pure, and hashable because programs are cached by it.
Logits = Callable[..., tuple[Float[Array, "b k"], Any]]


@dataclasses.dataclass(frozen=True)
class Problem:
  """What determines a program besides shapes.

  Attributes:
    logits: the network, see `Logits`.
    view: how the network takes images.
    multi_label: binary cross-entropies instead of the softmax.
    layer_rates: pairs of a substring of parameter names and a learning-rate factor. The first match
      counts; without a match the factor is 1.
  """

  logits: Logits
  view: View
  multi_label: bool = False
  layer_rates: tuple[tuple[str, float], ...] = ()


class Batch(NamedTuple):
  """Images of a step in a parts of b, with targets, weights, step number, seed and rate."""

  images: UInt8[Any, "a b s s 3"]
  targets: Float[Any, "a b k"]
  weights: Float[Any, "a b"]
  number: Int[Any, ""]
  seed: Int[Any, ""]
  rate: Float[Any, ""]


class Outcome(NamedTuple):
  """Mean weighted loss of a step, and the fraction of images whose target has the highest logit."""

  loss: Float[Any, ""]
  accuracy: Float[Any, ""]
