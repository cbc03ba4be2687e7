"""Visual prompt tuning (VPT): learnable tokens in the frozen vision tower.

Shallow: m tokens enter at the first layer. Deep: every layer gets m tokens of its own. The
classifier is the frozen text prototypes, so only the prompts learn. The images of a step are split
over the mesh; gradients of micro-batches are summed, and layers are rematerialized.

Reference:
  Jia et al., "Visual prompt tuning", ECCV 2022.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.errors import UsageError
from genbench_jax.recognizers.random_views import view_rows
from genbench_jax.recognizers.settings import VptSettings
from genbench_jax.recognizers.train_step import image_losses
from genbench_jax.recognizers.training import (
  Program,
  label_shares,
  learn,
  make_program,
  mean_one,
  mixed_rows,
  warmup_cosine,
)
from genbench_jax.recognizers.visual_tokens import (
  FrozenTower,
  Pixels,
  ReadPixels,
  Variables,
  VisualPrompts,
  first_head,
  first_prompts,
  frozen_tower,
  logits_of,
  scores_of,
)
from genbench_jax.recognizers.vpt_search import searched
from genbench_jax.runtime.mesh import DATA_AXIS, data_mesh, pad_rows, padded_size


class MicroBatches(NamedTuple):
  """Images of a step in micro-batches [a, b, ...]; the weight of padding is 0."""

  pixels: Float[Array, "a b h w 3"]
  targets: Float[Array, "a b k"]
  weights: Float[Array, "a b"]


def vpt_loss(
  module: Any,
  variables: Variables,
  frozen: FrozenTower,
  pixels: Float[Array, "b h w 3"],
  targets: Float[Array, "b k"],
  weights: Float[Array, "b"],
  multi_label: bool = False,
) -> Float[Array, ""]:
  """Compute the weighted sum of the cross-entropies of images.

  Args:
    module: CLIP network.
    variables: prompts and head.
    frozen: inputs that do not change.
    pixels: preprocessed images.
    targets: one-hot or multi-hot, one row per image.
    weights: weight of each image, 0 for padding.
    multi_label: binary cross-entropies.
  """
  logits = logits_of(module, variables, frozen, pixels, multi_label)
  return jnp.sum(weights * image_losses(logits, targets, 0.0, multi_label))


def _loss_and_gradient(
  module: Any,
  multi_label: bool,
  variables: Variables,
  frozen: FrozenTower,
  batch: MicroBatches,
) -> tuple[Float[Array, ""], Variables]:
  """Return the loss of a step and its gradient, summed over micro-batches."""

  def add(
    sums: tuple[Array, Variables], micro: MicroBatches
  ) -> tuple[tuple[Array, Variables], None]:
    loss = jax.value_and_grad(vpt_loss, argnums=1)
    found = loss(module, variables, frozen, *micro, multi_label)
    return jax.tree.map(jnp.add, sums, found), None

  # Losses are sums with weights of the whole step, so that they add up to those of one batch.
  start = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, variables))
  return jax.lax.scan(add, start, batch)[0]


@functools.lru_cache(maxsize=4)
def _program(module: Any, settings: VptSettings, multi_label: bool, mesh: Mesh) -> Program:
  """Return AdamW, or the paper's SGD with decay in the gradient, with warm-up and cosine."""
  schedule = warmup_cosine(settings.learning_rate, settings.steps, settings.warmup)
  # AdamW decays the parameters; the paper's SGD adds the decay to the gradient, before momentum.
  optimizer = optax.adamw(schedule, weight_decay=settings.weight_decay)
  if settings.paper:
    decay = optax.add_decayed_weights(settings.weight_decay)
    optimizer = optax.chain(decay, optax.sgd(schedule, momentum=0.9))
  loss_and_gradient = functools.partial(_loss_and_gradient, module, multi_label)
  return make_program("vpt", loss_and_gradient, optimizer, mesh)


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
  read_views: ReadPixels | None = None,
  multi_label: bool = False,
) -> VisualPrompts:
  """Learn visual prompts on images.

  Args:
    clip: a `genbench_jax.models.clip.Clip`: module, params, fingerprint.
    text_features: one text prototype per class.
    read_pixels: reads the training images, see `ReadPixels`.
    targets: one-hot or multi-hot, one row per training image.
    settings: see `VptSettings`.
    mesh: devices that share each micro-batch; None for the first device.
    directory: folder of checkpoints, from which a stopped run resumes; None for no checkpoints.
    save_every: steps between checkpoints.
    seed: of the initial prompts and the batches.
    weights: loss weight of each image; None for equal weights.
    later: images that train alone in the second half.
    read_views: reads random views of the images, numbered as `random_views.view_rows` does; None
      trains on the images as `read_pixels` has them.
    multi_label: binary cross-entropies instead of the softmax.

  Raises:
    UsageError: targets and text prototypes differ in number, or the depth is unknown.
  """
  if targets.shape[1] != len(text_features):
    raise UsageError(f"targets {targets.shape} do not fit {len(text_features)} text prototypes.")
  mesh = data_mesh(jax.devices()[:1]) if mesh is None else mesh
  frozen = frozen_tower(clip, text_features, mesh)
  weights = mean_one(weights, len(targets))
  targets = np.asarray(targets, np.float32)
  images = TrainingImages(read_pixels, read_views, targets, weights, later, multi_label)
  if settings.search:

    def trial(
      number: int,
      tried: VptSettings,
      rest: Int[np.ndarray, "m"],
      held: Int[np.ndarray, "h"],
    ) -> Float[np.ndarray, "h k"]:
      own = directory / f"search-{number:02d}" if directory else None
      prompts = _learned(clip, frozen, images, rest, tried, mesh, own, save_every, seed)
      read = functools.partial(_read_some, read_pixels, held)
      at_once = settings.images_at_once
      return scores_of(clip, frozen, prompts.variables, read, len(held), mesh, at_once, multi_label)

    # All trials start from the same prompts and see the same order: only the settings differ.
    settings = searched(settings, label_shares(targets), seed, trial)
  every = np.arange(len(targets))
  return _learned(clip, frozen, images, every, settings, mesh, directory, save_every, seed)


class TrainingImages(NamedTuple):
  """Readers of the images, their targets and weights, and the images of the second half."""

  read: ReadPixels
  read_views: ReadPixels | None
  targets: Float[np.ndarray, "n k"]
  weights: Float[np.ndarray, "n"]
  later: Bool[np.ndarray, "n"] | None
  multi_label: bool


def _learned(
  clip: Any,
  frozen: FrozenTower,
  images: TrainingImages,
  members: Int[np.ndarray, "m"],
  settings: VptSettings,
  mesh: Mesh,
  directory: Path | None,
  save_every: int,
  seed: int,
) -> VisualPrompts:
  """Learn prompts on some of the images."""
  settings = settings.for_images(len(members))
  size = min(settings.batch_size, len(members))
  later = None if images.later is None else images.later[members]

  def batches(first: int) -> Iterator[MicroBatches]:
    numbers = range(first, settings.steps)
    # Rows depend on the seed and the step's number alone: a resumed run continues with them.
    rows = [
      members[mixed_rows(number, settings.steps, size, later, len(members), seed)]
      for number in numbers
    ]
    read, seen = images.read, rows
    if images.read_views is not None:
      read = images.read_views
      seen = [
        view_rows(own, number, len(images.targets))
        for own, number in zip(rows, numbers, strict=True)
      ]
    for own, pixels in zip(rows, read(np.concatenate(seen), size), strict=True):
      targets, weights = images.targets[own], images.weights[own]
      yield micro_batches(pixels, targets, weights, settings.images_at_once, mesh)

  num_classes, width = frozen.text.shape
  head = first_head(num_classes, width, seed) if settings.paper else None
  variables, losses = learn(
    _program(clip.module, settings, images.multi_label, mesh), Variables(first_prompts(clip, settings, seed), head), frozen,
    batches, settings.steps, mesh, directory, save_every,
  )  # fmt: skip
  return VisualPrompts(
    variables.tokens, clip.fingerprint, losses, variables.head, settings.learning_rate,
    settings.weight_decay,
  )  # fmt: skip


def _read_some(
  read: ReadPixels, members: Int[np.ndarray, "m"], rows: Int[np.ndarray, "n"], size: int
) -> Iterator[Pixels]:
  return read(members[rows], size)


def micro_batches(
  pixels: Pixels,
  targets: Float[np.ndarray, "b k"],
  weights: Float[np.ndarray, "b"],
  images_at_once: int,
  mesh: Mesh,
) -> MicroBatches:
  """Divide the images of a step into micro-batches of equal size, each split over the devices.

  Weights are divided by the number of images, so that the weighted sum of all losses is the loss of
  the step.

  Args:
    pixels: preprocessed images.
    targets: targets, one row per image.
    weights: loss weight of each image.
    images_at_once: images per device and micro-batch.
    mesh: devices.
  """
  size = padded_size(min(images_at_once * mesh.size, len(pixels)), mesh.size)
  total = padded_size(len(pixels), size)
  arrays = (np.asarray(pixels, np.float32), targets, weights / np.float32(len(pixels)))
  folded = [pad_rows(array, total).reshape(-1, size, *array.shape[1:]) for array in arrays]
  split = NamedSharding(mesh, PartitionSpec(None, DATA_AXIS))
  return MicroBatches(*jax.device_put(folded, split))
