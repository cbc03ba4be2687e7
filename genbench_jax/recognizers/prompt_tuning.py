"""Prompt tuning of the text (CoOp): a few learnable context vectors before each class name.

Image features are cached, the text tower is frozen, and only the context learns. The cost is the
text tower over all classes in
each step: classes are split over the mesh and pass through the tower in blocks. Their activations
are recomputed in the backward pass, so that 1,000 classes need the memory of one block.

Reference:
  Zhou et al., "Learning to prompt for vision-language models", IJCV 2022.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.errors import UsageError
from genbench_jax.metrics.inputs import fetch, host_unit_rows
from genbench_jax.models import clip_towers
from genbench_jax.recognizers.models import load_model, save_model
from genbench_jax.recognizers.prompt_layout import Blocks, class_blocks, class_prompts
from genbench_jax.recognizers.random_views import view_rows
from genbench_jax.recognizers.settings import CoopSettings
from genbench_jax.recognizers.train_step import image_losses
from genbench_jax.recognizers.training import (
  Program,
  learn,
  make_program,
  mean_one,
  mixed_rows,
  warmup_cosine,
)
from genbench_jax.recognizers.zero_shot import log_odds
from genbench_jax.runtime.mesh import DATA_AXIS, data_mesh, replicated


def prompt_embeddings(
  params: clip_towers.Params,
  context: Float[Array, "*k m w"],
  tokens: Int[Array, "k l"],
  slots: Int[Array, "k l"],
) -> Float[Array, "k l w"]:
  """Return token embeddings with the context in its slots.

  Args:
    params: parameters of CLIP.
    context: shared [m, w] or per class [k, m, w].
    tokens, slots: see `PromptLayout`.
  """
  words = clip_towers.token_embeddings(params, tokens)
  # Token positions (slot -1) gather vector 0 and are replaced by their own embedding below.
  places = jnp.maximum(slots, 0)
  if context.ndim == 3:
    learned = jnp.take_along_axis(context, places[..., None], axis=1)
  else:
    learned = context[places]
  return jnp.where(slots[..., None] >= 0, learned, words)


def block_text_features(
  module: Any, params: clip_towers.Params, context: Float[Array, "*k m w"], blocks: Blocks
) -> Float[Array, "n c d"]:
  """Return the unit-norm text features of the classes of every block.

  Args:
    module: CLIP network.
    params: parameters of CLIP.
    context: shared [m, w] or per class [k, m, w].
    blocks: prompts in blocks of classes.
  """

  @jax.checkpoint
  def features(block: Blocks, own: Float[Array, "*c m w"]) -> Float[Array, "c d"]:
    embeddings = prompt_embeddings(params, own, block.tokens, block.slots)
    return clip_towers.text_features(module, params, embeddings, block.ends, remat=False)

  if context.ndim == 2:
    return jax.lax.map(lambda block: features(block, context), blocks)
  # Gather before the loop: the gradient is then scattered back to the classes, and across devices,
  # once instead of once per block.
  return jax.lax.map(lambda both: features(*both), (blocks, context[blocks.classes]))


@dataclasses.dataclass(frozen=True)
class Context:
  """A learned context and what is needed to use it.

  Attributes:
    vectors: [m, w], or [k, m, w] with one context per class.
    position: `end` or `middle`.
    fingerprint: fingerprint of the CLIP for which it was learned.
    losses: training loss of each step of the last run.
  """

  vectors: Float[np.ndarray, "*k m w"]
  position: str
  fingerprint: str
  losses: Float[np.ndarray, "s"] = dataclasses.field(default_factory=lambda: np.zeros(0))


def first_context(
  clip: Any, settings: CoopSettings, num_classes: int, seed: int = 0
) -> Float[np.ndarray, "*k m w"]:
  """Return the initial context: the template's token embeddings, or noise.

  Args:
    clip: the CLIP.
    settings: template, or length of the context.
    num_classes: number of classes, for one context per class.
    seed: of the noise.
  """
  if settings.template:
    ids = clip.tokenizer(settings.template, add_special_tokens=False)["input_ids"]
    vectors = np.asarray(
      clip_towers.token_embeddings(clip.params, jnp.asarray([ids]))[0], np.float32
    )
  else:
    width = clip.module.text.encoder.width
    generator = np.random.default_rng(seed)
    vectors = 0.02 * generator.normal(size=(settings.context_length, width)).astype(np.float32)
  return np.tile(vectors, (num_classes, 1, 1)) if settings.per_class else vectors


# (rows, batch size) -> features of these images, batch by batch.
ReadFeatures = Callable[[Int[np.ndarray, "n"], int], Iterator[Float[np.ndarray, "b d"]]]


class FrozenTower(NamedTuple):
  """Inputs of every step that do not change."""

  params: Any
  blocks: Blocks
  logit_scale: Float[Array, ""]


class Batch(NamedTuple):
  """Unit-norm image features, one-hot or multi-hot targets, and the weight of each image."""

  features: Float[Array, "b d"]
  targets: Float[Array, "b k"]
  weights: Float[Array, "b"]


def learn_context(
  clip: Any,
  class_names: Sequence[str],
  features: Float[np.ndarray, "n d"],
  targets: Float[np.ndarray, "n k"],
  settings: CoopSettings,
  mesh: Mesh | None = None,
  directory: Path | None = None,
  save_every: int = 100,
  seed: int = 0,
  weights: Float[np.ndarray, "n"] | None = None,
  later: Bool[np.ndarray, "n"] | None = None,
  read_views: ReadFeatures | None = None,
  multi_label: bool = False,
) -> Context:
  """Learn the context on cached image features.

  Args:
    clip: a `genbench_jax.models.clip.Clip`: module, params, tokenizer.
    class_names: one name per class.
    features: image features of the training images, not necessarily unit-norm.
    targets: one-hot or multi-hot.
    settings: see `CoopSettings`.
    mesh: devices over which the classes are split; None for the first device.
    directory: folder of checkpoints, from which a stopped run resumes; None for no checkpoints.
    save_every: steps between checkpoints.
    seed: of the initial context, if it is noise, and of the batches.
    weights: loss weight of each image; None for equal weights.
    later: images that train alone in the second half.
    read_views: reads the features of random views, numbered as `random_views.view_rows` does, in
      batches: each step then sees its images anew, as in the paper. None trains on `features`.
    multi_label: binary cross-entropies of the log-odds instead of the softmax.

  Raises:
    UsageError: the context does not fit, or targets do not match images or class names.
  """
  if targets.shape[1] != len(class_names) or len(targets) != len(features):
    raise UsageError(
      f"targets {targets.shape} do not fit {len(features)} images and {len(class_names)} classes."
    )
  mesh = data_mesh(jax.devices()[:1]) if mesh is None else mesh
  settings = settings.for_images(*targets.shape)
  start = first_context(clip, settings, len(class_names), seed)
  layout = class_prompts(clip, class_names, start.shape[-2], settings.position)
  frozen = frozen_tower(clip, class_blocks(layout, settings.classes_at_once, mesh), mesh)
  images = host_unit_rows(features)
  targets, weights = np.asarray(targets, np.float32), mean_one(weights, len(images))
  size = min(settings.batch_size, len(images))

  def batches(first: int) -> Iterator[Batch]:
    rows = [
      mixed_rows(number, settings.steps, size, later, len(images), seed)
      for number in range(first, settings.steps)
    ]
    if read_views is None:
      seen = (images[members] for members in rows)
    else:
      numbered = zip(range(first, settings.steps), rows, strict=True)
      views = [view_rows(members, step, len(images)) for step, members in numbered]
      read = read_views(np.concatenate(views), size)
      seen = (host_unit_rows(found) for found in read)
    for members, found in zip(rows, seen, strict=True):
      batch = Batch(found, targets[members], weights[members])
      yield jax.device_put(batch, replicated(mesh))

  program = _program(clip.module, settings, multi_label, mesh)
  vectors, losses = learn(
    program, start, frozen, batches, settings.steps, mesh, directory, save_every
  )
  return Context(vectors, settings.position, clip.fingerprint, losses)


# Learning rate of the paper's first epoch.
CONSTANT_WARMUP = 1e-5


def _schedule(settings: CoopSettings) -> optax.Schedule:
  """Return linear warm-up, or the paper's constant rate; then cosine decay to zero."""
  if not settings.paper:
    return warmup_cosine(settings.learning_rate, settings.steps, settings.warmup)
  rest = optax.cosine_decay_schedule(settings.learning_rate, settings.steps - settings.warmup)
  return optax.join_schedules([optax.constant_schedule(CONSTANT_WARMUP), rest], [settings.warmup])


@functools.lru_cache(maxsize=4)
def _program(module: Any, settings: CoopSettings, multi_label: bool, mesh: Mesh) -> Program:
  """Return SGD with momentum, L2 and the schedule of the settings."""
  schedule = _schedule(settings)
  decay = optax.add_decayed_weights(settings.weight_decay)
  loss = functools.partial(coop_loss, module, multi_label=multi_label)
  loss_and_gradient = jax.value_and_grad(loss)
  return make_program(
    "coop", loss_and_gradient, optax.chain(decay, optax.sgd(schedule, momentum=0.9)), mesh
  )


def frozen_tower(clip: Any, blocks: Blocks, mesh: Mesh) -> FrozenTower:
  """Replicate CLIP's parameters and logit scale, and add the prompts of the classes.

  Args:
    clip: the CLIP.
    blocks: prompts of the classes.
    mesh: devices.
  """
  scale = jnp.exp(jnp.asarray(clip.params["logit_scale"], jnp.float32))
  params, scale = jax.device_put((clip.params, scale), replicated(mesh))
  return FrozenTower(params, blocks, scale)


def coop_loss(
  module: Any,
  context: Float[Array, "*k m w"],
  frozen: FrozenTower,
  batch: Batch,
  multi_label: bool = False,
) -> Float[Array, ""]:
  """Compute the weighted mean of the cross-entropies of the scaled cosines.

  Args:
    module: CLIP network.
    context: shared [m, w] or per class [k, m, w].
    frozen: inputs that do not change.
    batch: features, targets and weights.
    multi_label: binary cross-entropies of the log-odds.
  """
  num_classes = batch.targets.shape[1]
  found = block_text_features(module, frozen.params, context, frozen.blocks)
  # [n, c, d] -> [k, d]; the last block is padded.
  text = found.reshape(-1, found.shape[-1])[:num_classes]
  logits = frozen.logit_scale * jnp.matmul(batch.features, text.T, precision="highest")
  logits = log_odds(logits) if multi_label else logits
  return jnp.mean(batch.weights * image_losses(logits, batch.targets, 0.0, multi_label))


def context_text_features(
  clip: Any, class_names: Sequence[str], context: Context, mesh: Mesh | None = None
) -> Float[np.ndarray, "k d"]:
  """Compute the unit-norm text prototypes of class names under a context, for zero-shot scoring.

  Args:
    clip: the CLIP for which the context was learned.
    class_names: any class names; for a context per class, as many as it has.
    context: learned context.
    mesh: devices over which the classes are split; None for the first device.

  Raises:
    UsageError: the context was learned for another CLIP, or per class for another number of
      classes.
  """
  if context.fingerprint != clip.fingerprint:
    raise UsageError(
      f"the context was learned for CLIP {context.fingerprint}, not for {clip.fingerprint}."
    )
  if context.vectors.ndim == 3 and len(context.vectors) != len(class_names):
    raise UsageError(f"the context has {len(context.vectors)} classes, not {len(class_names)}.")
  mesh = data_mesh(jax.devices()[:1]) if mesh is None else mesh
  layout = class_prompts(clip, class_names, context.vectors.shape[-2], context.position)
  blocks = class_blocks(layout, CoopSettings.classes_at_once, mesh)
  params, vectors = jax.device_put((clip.params, context.vectors), replicated(mesh))
  found = np.asarray(fetch(mesh, _text_features(clip.module, mesh)(params, vectors, blocks)))
  return found.reshape(-1, found.shape[-1])[: len(class_names)]


@functools.lru_cache(maxsize=4)
def _text_features(module: Any, mesh: Mesh) -> Callable[..., Float[Array, "n c d"]]:
  program = functools.partial(block_text_features, module)
  return jax.jit(program, out_shardings=NamedSharding(mesh, PartitionSpec(None, DATA_AXIS)))


def save_context(path: Path, context: Context) -> None:
  """Write the context as safetensors: `context`, with its position and CLIP in the metadata."""
  about = {"kind": "coop_context", "position": context.position, "fingerprint": context.fingerprint}
  save_model(path, {"context": context.vectors}, about)


def load_context(path: Path) -> Context:
  """Read a saved context.

  Raises:
    RunError: the file cannot be read or does not hold a context.
  """
  arrays, about = load_model(path, "coop_context")
  return Context(arrays["context"], about["position"], about["fingerprint"])
