"""Visual prompt tuning: learnable tokens in the frozen vision tower (VPT).

Shallow: m tokens go into the first layer and flow on. Deep: every layer gets m tokens of its own. The
classifier is the frozen text prototypes, so that only the prompts learn. Each step's images are split
over the mesh; gradients of micro-batches are summed, and layers are rematerialized.

Reference: Jia et al., "Visual prompt tuning", ECCV 2022.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.metrics.inputs import fetch, unit_rows
from genbench_jax.models import clip_towers
from genbench_jax.recognizers.models import load_model, save_model
from genbench_jax.recognizers.settings import DEPTHS, VptSettings
from genbench_jax.recognizers.training import (
  Program,
  learn,
  make_program,
  mixed_rows,
  warmup_cosine,
  weighted_shares,
)
from genbench_jax.runtime.mesh import (
  DATA_AXIS,
  batch_sharding,
  data_mesh,
  pad_rows,
  padded_size,
  replicated,
)

Pixels = Float[np.ndarray, "b h w 3"]
# (rows, batch size) -> preprocessed pixels of these images, in order, batch by batch, the last one padded.
ReadPixels = Callable[[Int[np.ndarray, "n"], int], Iterator[Pixels]]


class MicroBatches(NamedTuple):
  """The images of a step in micro-batches [a, b, ...]; padding has a False mask."""

  pixels: Float[Array, "a b h w 3"]
  targets: Float[Array, "a b k"]
  mask: Bool[Array, "a b"]


class FrozenTower(NamedTuple):
  """What every step reads and none changes."""

  params: Any
  text: Float[Array, "k d"]
  logit_scale: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class VisualPrompts:
  """Learned prompts and what is needed to use them.

  Attributes:
    tokens: [j, m, w]: m tokens for each of the first j layers; j = 1 is shallow.
    fingerprint: of the CLIP they were learned for.
    losses: training loss of each step of the last run.
  """

  tokens: Float[np.ndarray, "j m w"]
  fingerprint: str
  losses: Float[np.ndarray, "s"] = dataclasses.field(default_factory=lambda: np.zeros(0))


def first_prompts(clip: Any, settings: VptSettings, seed: int = 0) -> Float[np.ndarray, "j m w"]:
  """Uniform in +-sqrt(6 / (3 p^2 + w)), p the side of a patch and w the width, as in the paper."""
  vision = clip.module.vision
  if settings.depth not in DEPTHS:
    raise unknown_name("depth of visual prompts", settings.depth, DEPTHS)
  bound = np.sqrt(6 / (3 * vision.patch_size**2 + vision.encoder.width))
  layers = vision.encoder.layers if settings.depth == "deep" else 1
  shape = (layers, settings.prompt_length, vision.encoder.width)
  return np.random.default_rng(seed).uniform(-bound, bound, shape).astype(np.float32)


def vpt_loss(
  module: Any,
  tokens: Float[Array, "j m w"],
  frozen: FrozenTower,
  pixels: Float[Array, "b h w 3"],
  targets: Float[Array, "b k"],
  mask: Bool[Array, "b"],
) -> Float[Array, ""]:
  """Sum over the real images of the cross-entropy of the scaled cosines."""
  features = clip_towers.image_features(module, frozen.params, pixels, tokens)
  logits = frozen.logit_scale * jnp.matmul(features, frozen.text.T, precision="highest")
  return jnp.sum(jnp.where(mask, optax.softmax_cross_entropy(logits, targets), 0))


def _loss_and_gradient(
  module: Any, tokens: Float[Array, "j m w"], frozen: FrozenTower, batch: MicroBatches
) -> tuple[Float[Array, ""], Float[Array, "j m w"]]:
  """Of the mean loss of a step's images, summed over its micro-batches."""

  def add(sums: tuple[Array, Array], micro: MicroBatches) -> tuple[tuple[Array, Array], None]:
    found = jax.value_and_grad(vpt_loss, argnums=1)(module, tokens, frozen, *micro)
    return jax.tree.map(jnp.add, sums, found), None

  (loss, gradient), _ = jax.lax.scan(add, (jnp.zeros(()), jnp.zeros_like(tokens)), batch)
  return loss / batch.mask.sum(), gradient / batch.mask.sum()


def paper_length(settings: VptSettings, num_images: int) -> VptSettings:
  """The settings with the paper's 100 epochs, ten of them warm-up."""
  steps = 100 * -(-num_images // min(settings.batch_size, num_images))
  return dataclasses.replace(settings, steps=steps, warmup=steps // 10)


@functools.lru_cache(maxsize=4)
def _program(clip: Any, settings: VptSettings, mesh: Mesh) -> Program:
  """AdamW, or the paper's SGD with the decay in the gradient; linear warm-up and a cosine to zero."""
  schedule = warmup_cosine(settings.learning_rate, settings.steps, settings.warmup)
  optimizer = optax.adamw(schedule, weight_decay=settings.weight_decay)
  if settings.paper:
    decay = optax.add_decayed_weights(settings.weight_decay)
    optimizer = optax.chain(decay, optax.sgd(schedule, momentum=0.9))
  return make_program("vpt", functools.partial(_loss_and_gradient, clip.module), optimizer, mesh)


def learn_visual_prompts(
  clip: Any,
  text_features: Float[np.ndarray, "k d"],
  read_pixels: ReadPixels,
  targets: Float[np.ndarray, "n k"],
  settings: VptSettings,
  mesh: Mesh | None = None,
  directory: Path | None = None,
  save_every: int = 100,
  seed: int = 0,
  weights: Float[np.ndarray, "n"] | None = None,
  later: Bool[np.ndarray, "n"] | None = None,
) -> VisualPrompts:
  """Learns visual prompts on images.

  Args:
    clip: a `genbench_jax.models.clip.Clip`: module, params, fingerprint.
    text_features: one text prototype a class.
    read_pixels: reads the training images, see `ReadPixels`.
    targets: one-hot or multi-hot, one row a training image.
    settings: see `VptSettings`.
    mesh: each micro-batch is split over its devices; by default the first one.
    directory: where checkpoints are kept, to go on from after a kill; or none.
    save_every: steps between checkpoints.
    seed: of the first prompts and of the batches.
    weights: of the loss of each image; none are equal ones.
    later: images that train alone in the second half.

  Raises:
    UsageError: targets and text prototypes differ in number, or an unknown depth.
  """
  if targets.shape[1] != len(text_features):
    raise UsageError(f"targets {targets.shape} do not fit {len(text_features)} text prototypes.")
  mesh = data_mesh(jax.devices()[:1]) if mesh is None else mesh
  settings = paper_length(settings, len(targets)) if settings.paper else settings
  shares = weighted_shares(targets, weights)
  size = min(settings.batch_size, len(shares))

  def batches(first: int) -> Iterator[MicroBatches]:
    rows = [
      mixed_rows(number, settings.steps, size, later, len(shares), seed)
      for number in range(first, settings.steps)
    ]
    for members, pixels in zip(rows, read_pixels(np.concatenate(rows), size), strict=True):
      yield micro_batches(pixels, shares[members], settings.images_at_once, mesh)

  tokens, losses = learn(
    _program(clip, settings, mesh), first_prompts(clip, settings, seed), frozen_tower(clip, text_features, mesh),
    batches, settings.steps, mesh, directory, save_every,
  )  # fmt: skip
  return VisualPrompts(tokens, clip.fingerprint, losses)


def frozen_tower(clip: Any, text_features: Float[np.ndarray, "k d"], mesh: Mesh) -> FrozenTower:
  """CLIP's parameters, its own logit scale and the unit-norm text prototypes on every device."""
  scale = jnp.exp(jnp.asarray(clip.params["logit_scale"], jnp.float32))
  text = unit_rows(jnp.asarray(text_features, jnp.float32))
  return FrozenTower(*jax.device_put((clip.params, text, scale), replicated(mesh)))


def micro_batches(
  pixels: Pixels, targets: Float[np.ndarray, "b k"], images_at_once: int, mesh: Mesh
) -> MicroBatches:
  """A step's images in micro-batches of equal size, each split over the devices."""
  size = padded_size(min(images_at_once * mesh.size, len(pixels)), mesh.size)
  total = padded_size(len(pixels), size)
  arrays = (np.asarray(pixels, np.float32), targets, np.ones(len(pixels), bool))
  folded = [pad_rows(array, total).reshape(-1, size, *array.shape[1:]) for array in arrays]
  split = NamedSharding(mesh, PartitionSpec(None, DATA_AXIS))
  return MicroBatches(*jax.device_put(folded, split))


def prompted_scores(
  clip: Any,
  text_features: Float[np.ndarray, "k d"],
  prompts: VisualPrompts,
  read_pixels: ReadPixels,
  num_images: int,
  mesh: Mesh | None = None,
  images_at_once: int = 64,
) -> Float[np.ndarray, "n k"]:
  """Class probabilities of images under visual prompts.

  Raises:
    UsageError: the prompts were learned for another CLIP.
  """
  if prompts.fingerprint != clip.fingerprint:
    raise UsageError(f"the prompts are of CLIP {prompts.fingerprint}, not {clip.fingerprint}.")
  mesh = data_mesh(jax.devices()[:1]) if mesh is None else mesh
  frozen = frozen_tower(clip, text_features, mesh)
  tokens = jax.device_put(prompts.tokens, replicated(mesh))
  size = padded_size(min(images_at_once * mesh.size, num_images), mesh.size)
  split = batch_sharding(mesh)
  found = [
    fetch(mesh, _prompted_scores(clip, mesh)(frozen, tokens, jax.device_put(pixels, split)))
    for pixels in read_pixels(np.arange(num_images), size)
  ]
  return np.concatenate(found)[:num_images]


@functools.lru_cache(maxsize=4)
def _prompted_scores(
  clip: Any, mesh: Mesh
) -> Callable[[FrozenTower, Array, Array], Float[Array, "b k"]]:

  def scores(frozen: FrozenTower, tokens: Array, pixels: Array) -> Float[Array, "b k"]:
    features = clip_towers.image_features(clip.module, frozen.params, pixels, tokens, remat=False)
    return jax.nn.softmax(frozen.logit_scale * features @ frozen.text.T, axis=-1)

  return jax.jit(scores, out_shardings=batch_sharding(mesh))


def save_visual_prompts(path: Path, prompts: VisualPrompts) -> None:
  """The prompts as a safetensors file: `prompts`, and their CLIP in the metadata."""
  about = {"kind": "vpt_prompts", "fingerprint": prompts.fingerprint}
  save_model(path, {"prompts": prompts.tokens}, about)


def load_visual_prompts(path: Path) -> VisualPrompts:
  """Prompts as they were saved.

  Raises:
    RunError: the file can't be read or holds no visual prompts.
  """
  arrays, about = load_model(path, "vpt_prompts")
  return VisualPrompts(arrays["prompts"], about["fingerprint"])
