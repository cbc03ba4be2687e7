"""Visual prompt tuning (VPT): learnable tokens in the frozen vision tower.

Shallow: m tokens enter at the first layer. Deep: every layer gets m tokens of its own. The
classifier is the frozen text prototypes, so only the prompts learn. The images of a step are split
over the mesh; gradients of micro-batches are summed, and layers are rematerialized.

Reference:
  Jia et al., "Visual prompt tuning", ECCV 2022.
"""

import dataclasses
import functools
import math
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
from genbench_jax.metrics.inputs import fetch, host_unit_rows
from genbench_jax.models import clip_towers
from genbench_jax.recognizers.models import load_model, save_model
from genbench_jax.recognizers.random_views import view_rows
from genbench_jax.recognizers.settings import DEPTHS, VptSettings
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
from genbench_jax.recognizers.vpt_search import searched
from genbench_jax.recognizers.zero_shot import log_odds
from genbench_jax.runtime.mesh import (
  DATA_AXIS,
  batch_sharding,
  data_mesh,
  pad_rows,
  padded_size,
  replicated,
)

Pixels = Float[np.ndarray, "b h w 3"]
# (rows, batch size) -> preprocessed pixels of these images, in order, batch by batch; the last
# batch is padded.
ReadPixels = Callable[[Int[np.ndarray, "n"], int], Iterator[Pixels]]


class MicroBatches(NamedTuple):
  """Images of a step in micro-batches [a, b, ...]; the weight of padding is 0."""

  pixels: Float[Array, "a b h w 3"]
  targets: Float[Array, "a b k"]
  weights: Float[Array, "a b"]


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
  features = clip_towers.image_features(module, frozen.params, pixels, tokens, remat, False)
  return jnp.matmul(features, head.weights.T, precision="highest") + head.bias


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

  start = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, variables))
  return jax.lax.scan(add, start, batch)[0]


@functools.lru_cache(maxsize=4)
def _program(module: Any, settings: VptSettings, multi_label: bool, mesh: Mesh) -> Program:
  """Return AdamW, or the paper's SGD with decay in the gradient, with warm-up and cosine."""
  schedule = warmup_cosine(settings.learning_rate, settings.steps, settings.warmup)
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
      return _scores(clip, frozen, prompts.variables, read, len(held), mesh, at_once, multi_label)

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
  return _scores(
    clip, frozen, prompts.variables, read_pixels, num_images, mesh, images_at_once, multi_label
  )


def _scores(
  clip: Any,
  frozen: FrozenTower,
  variables: Variables,
  read_pixels: ReadPixels,
  num_images: int,
  mesh: Mesh,
  images_at_once: int,
  multi_label: bool,
) -> Float[np.ndarray, "n k"]:
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
