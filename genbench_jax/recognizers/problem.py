"""What is trained on images, and what a step of it is given and tells."""

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
    """The side of decoded images: an eighth larger, to crop from; small images as they are."""
    return self.size if self.size <= 64 else 8 * round(self.size / 7)

  def normalized(self, pixels: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    """Pixels of 0 to 255 as the network takes them."""
    return (pixels / 255 - jnp.asarray(self.mean)) / jnp.asarray(self.std)


class Model(NamedTuple):
  """What is trained and what is not.

  Attributes:
    variables: the tree that learns, float32.
    stats: running averages, or `{}`.
    frozen: arrays that are only read.
  """

  variables: Params
  stats: Any
  frozen: Any


# (variables, stats, frozen, normalized pixels, key or None to test) -> (logits, stats). Pure, and hashable: programs are cached.
Logits = Callable[..., tuple[Float[Array, "b k"], Any]]


@dataclasses.dataclass(frozen=True)
class Problem:
  """What decides a program besides shapes.

  Attributes:
    logits: see `Logits`.
    view: how the network takes images.
    multi_label: binary cross-entropies in place of the softmax.
    layer_rates: parts of parameter names and the factor on their learning rate; the first that occurs counts, others have 1.
  """

  logits: Logits
  view: View
  multi_label: bool = False
  layer_rates: tuple[tuple[str, float], ...] = ()


class Batch(NamedTuple):
  """The images of a step in a parts of b, what it needs to know of itself, and nothing else."""

  images: UInt8[Any, "a b s s 3"]
  targets: Float[Any, "a b k"]
  weights: Float[Any, "a b"]
  number: Int[Any, ""]
  seed: Int[Any, ""]
  rate: Float[Any, ""]


class Outcome(NamedTuple):
  """Of a step: mean weighted loss, and share of images whose likeliest class is that of their target."""

  loss: Float[Any, ""]
  accuracy: Float[Any, ""]
