"""Tokens in the frozen vision tower: how they start, what they compute, and their file."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.metrics.inputs import fetch, host_unit_rows
from genbench_jax.models import clip_towers
from genbench_jax.recognizers.models import load_model, save_model
from genbench_jax.recognizers.settings import DEPTHS, VptSettings
from genbench_jax.recognizers.zero_shot import log_odds
from genbench_jax.runtime.mesh import batch_sharding, data_mesh, padded_size, replicated

Pixels = Float[np.ndarray, "b h w 3"]
# (rows, batch size) -> preprocessed pixels of these images, in order, batch by batch; the last
# batch is padded.
ReadPixels = Callable[[Int[np.ndarray, "n"], int], Iterator[Pixels]]


class Head(NamedTuple):
  """Linear classifier on unnormalized features."""

  weights: Float[Any, "k d"]
  bias: Float[Any, "k"]


class Variables(NamedTuple):
  """Parameters that learn: tokens for the first j layers, and a head or None."""

  tokens: Float[Any, "j m width"]
  head: Head | None = None


class FrozenTower(NamedTuple):
  """Inputs of every step that do not change."""

  params: Any
  text: Float[Array, "k d"]
  logit_scale: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class VisualPrompts:
  """Learned prompts and what is needed to use them.

  Attributes:
    tokens: [j, m, w], m tokens for each of the first j layers; j = 1 is shallow.
    fingerprint: fingerprint of the CLIP for which they were learned.
    losses: training loss of each step of the last run.
    head: learned in place of the text prototypes, or none.
    learning_rate, weight_decay: with which they were learned.
  """

  tokens: Float[np.ndarray, "j m width"]
  fingerprint: str
  losses: Float[np.ndarray, "s"] = dataclasses.field(default_factory=lambda: np.zeros(0))
  head: Head | None = None
  learning_rate: float = math.nan
  weight_decay: float = math.nan

  @property
  def variables(self) -> Variables:
    """Parameters that learn."""
    return Variables(self.tokens, self.head)


def first_prompts(
  clip: Any, settings: VptSettings, seed: int = 0
) -> Float[np.ndarray, "j m width"]:
  """Draw initial prompts within +-sqrt(6 / (3 p^2 + w)), p the patch side and w the width.

  Args:
    clip: the CLIP.
    settings: number and depth of the prompts.
    seed: of the draw.

  Raises:
    UsageError: the depth is unknown.
  """
  vision = clip.module.vision
  if settings.depth not in DEPTHS:
    raise unknown_name("depth of visual prompts", settings.depth, DEPTHS)
  bound = np.sqrt(6 / (3 * vision.patch_size**2 + vision.encoder.width))
  layers = vision.encoder.layers if settings.depth == "deep" else 1
  shape = (layers, settings.prompt_length, vision.encoder.width)
  return np.random.default_rng(seed).uniform(-bound, bound, shape).astype(np.float32)


def first_head(num_classes: int, width: int, seed: int = 0) -> Head:
  """Initialize a head uniformly in +-1 / sqrt(width), as PyTorch's linear layers.

  Args:
    num_classes: number of classes.
    width: width of the features.
    seed: of the draw.
  """
  random, bound = np.random.default_rng([seed, 0x4EAD]), 1 / np.sqrt(width)
  weights = random.uniform(-bound, bound, (num_classes, width)).astype(np.float32)
  return Head(weights, random.uniform(-bound, bound, num_classes).astype(np.float32))


def frozen_tower(clip: Any, text_features: Float[np.ndarray, "k d"], mesh: Mesh) -> FrozenTower:
  """Replicate CLIP's parameters, its logit scale and the unit-norm text prototypes.

  Args:
    clip: the CLIP.
    text_features: text prototypes.
    mesh: devices.
  """
  scale = jnp.exp(jnp.asarray(clip.params["logit_scale"], jnp.float32))
  text = jnp.asarray(host_unit_rows(text_features))
  return FrozenTower(*jax.device_put((clip.params, text, scale), replicated(mesh)))


def logits_of(
  module: Any,
  variables: Variables,
  frozen: FrozenTower,
  pixels: Float[Array, "b h w 3"],
  multi_label: bool = False,
  remat: bool = True,
) -> Float[Array, "b k"]:
  """Compute the logits: scaled cosines with the text prototypes, or those of the head.

  Args:
    module: CLIP network.
    variables: prompts and head.
    frozen: inputs that do not change.
    pixels: preprocessed images.
    multi_label: whether scaled cosines become log-odds.
    remat: whether to recompute activations in the backward pass.
  """
  tokens, head = variables
  if head is None:
    features = clip_towers.image_features(module, frozen.params, pixels, tokens, remat)
    logits = frozen.logit_scale * jnp.matmul(features, frozen.text.T, precision="highest")
    return log_odds(logits) if multi_label else logits
  # The head of the paper sees features before normalization.
  features = clip_towers.image_features(module, frozen.params, pixels, tokens, remat, False)
  return jnp.matmul(features, head.weights.T, precision="highest") + head.bias


def prompted_scores(
  clip: Any,
  text_features: Float[np.ndarray, "k d"],
  prompts: VisualPrompts,
  read_pixels: ReadPixels,
  num_images: int,
  mesh: Mesh | None = None,
  images_at_once: int = 64,
  multi_label: bool = False,
) -> Float[np.ndarray, "n k"]:
  """Compute the class probabilities of images under visual prompts.

  Args:
    clip: the CLIP for which the prompts were learned.
    text_features: one text prototype per class.
    prompts: learned prompts.
    read_pixels: reads the images, see `ReadPixels`.
    num_images: number of images.
    mesh: devices that share each batch; None for the first device.
    images_at_once: images per device and batch.
    multi_label: whether the probabilities are independent.

  Raises:
    UsageError: the prompts were learned for another CLIP.
  """
  if prompts.fingerprint != clip.fingerprint:
    raise UsageError(
      f"the prompts were learned for CLIP {prompts.fingerprint}, not for {clip.fingerprint}."
    )
  mesh = data_mesh(jax.devices()[:1]) if mesh is None else mesh
  frozen = frozen_tower(clip, text_features, mesh)
  return scores_of(
    clip, frozen, prompts.variables, read_pixels, num_images, mesh, images_at_once, multi_label
  )


def scores_of(
  clip: Any,
  frozen: FrozenTower,
  variables: Variables,
  read_pixels: ReadPixels,
  num_images: int,
  mesh: Mesh,
  images_at_once: int,
  multi_label: bool,
) -> Float[np.ndarray, "n k"]:
  """Compute the class probabilities of images under learning or learned prompts.

  Args:
    clip: the CLIP.
    frozen: inputs that do not change.
    variables: prompts and head.
    read_pixels: reads the images.
    num_images: number of images.
    mesh: devices that share each batch.
    images_at_once: images per device and batch.
    multi_label: whether the probabilities are independent.
  """
  # The last batch is padded to the size of the others, so that there is one program.
  variables = jax.device_put(variables, replicated(mesh))
  size = padded_size(min(images_at_once * mesh.size, num_images), mesh.size)
  split, program = batch_sharding(mesh), _prompted_scores(clip.module, multi_label, mesh)
  found = [
    fetch(mesh, program(frozen, variables, jax.device_put(pixels, split)))
    for pixels in read_pixels(np.arange(num_images), size)
  ]
  return np.concatenate(found)[:num_images]


@functools.lru_cache(maxsize=4)
def _prompted_scores(
  module: Any, multi_label: bool, mesh: Mesh
) -> Callable[[FrozenTower, Variables, Array], Float[Array, "b k"]]:

  def scores(frozen: FrozenTower, variables: Variables, pixels: Array) -> Float[Array, "b k"]:
    logits = logits_of(module, variables, frozen, pixels, multi_label, remat=False)
    return jax.nn.sigmoid(logits) if multi_label else jax.nn.softmax(logits, axis=-1)

  return jax.jit(scores, out_shardings=batch_sharding(mesh))


def save_visual_prompts(path: Path, prompts: VisualPrompts) -> None:
  """Write `prompts`, `weights` and `bias` of a head as safetensors, with the CLIP's fingerprint."""
  about = {"kind": "vpt_prompts", "fingerprint": prompts.fingerprint}
  head = {} if prompts.head is None else prompts.head._asdict()
  save_model(path, {"prompts": prompts.tokens, **head}, about)


def load_visual_prompts(path: Path) -> VisualPrompts:
  """Read saved prompts.

  Raises:
    RunError: the file cannot be read or does not hold visual prompts.
  """
  arrays, about = load_model(path, "vpt_prompts")
  head = Head(arrays["weights"], arrays["bias"]) if "weights" in arrays else None
  return VisualPrompts(arrays["prompts"], about["fingerprint"], head=head)
