"""Textual inversion: learn a new token's embedding from a few images; the rest is frozen.

  v* = argmin_v  E_{x, t, noise, y} || target(x, noise, t) - UNet(alpha_t x + sigma_t noise, t,
  text(y; v)) ||^2

x are the latents of the references, and y prompts that contain the new token. The target is the
noise or the velocity alpha_t noise - sigma_t x, as in the training of the model. The new embeddings
are a separate parameter, so no other gradient is computed. Tokens are trained side by side, in one
vmapped program per device.

Reference:
  Gal et al., An Image is Worth One Word (arXiv 2208.01618).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float32, Int32, UInt8, UInt32

from genbench_jax.diffusion.inversion.embeddings import tower_tables
from genbench_jax.diffusion.inversion.settings import Training
from genbench_jax.models.checkpoints import Params
from genbench_jax.models.diffusion_model import (
  StableDiffusion,
  TextTower,
  apply_decoder,
  apply_encoder,
  apply_text_encoders,
  apply_unet,
  conditions_of,
)
from genbench_jax.models.diffusion_parts import TEXT_PARTS
from genbench_jax.models.image_encoder import TextEncoder
from genbench_jax.runtime.kept import kept
from genbench_jax.runtime.mesh import DATA_AXIS

# Views that a device encodes at once.
ENCODED_AT_ONCE = 8


class References(NamedTuple):
  """Training data of one token, or of several tokens stacked along a new first axis.

  Attributes:
    mean: mean of the latents of each view of each reference, at the UNet's scale.
    deviation: standard deviation of these latents; None to train on the mean alone.
    num_references: number of real references; the others are padding.
    label: class index of each reference.
    tokens: token ids of every prompt of every class, for each text tower.
    text_features: features of each class by the guiding encoder; None without one.
    key: threefry key data.
  """

  mean: Float32[Array, "r v h w c"]
  deviation: Float32[Array, "r v h w c"] | None
  num_references: Int32[Array, ""]
  label: Int32[Array, "r"]
  tokens: Int32[Array, "k p t l"]
  text_features: Float32[Array, "k d"] | None
  key: UInt32[Array, "2"]


class Learner(NamedTuple):
  """Training state of a token: its embedding, the optimizer's moments, and the last loss."""

  row: Float32[Array, "1 d"]
  moments: Any
  loss: Float32[Array, ""]


class Batch(NamedTuple):
  """A batch of clean latents with noise, time, prompt tokens and class label."""

  clean: Float32[Array, "b h w c"]
  noise: Float32[Array, "b h w c"]
  time: Int32[Array, "b"]
  tokens: Int32[Array, "b t l"]
  label: Int32[Array, "b"]


def optimizer_of(training: Training) -> optax.GradientTransformation:
  """Return AdamW with warm-up, then cosine decay or a constant rate, and clipped gradients."""
  rate, warm_up = training.learning_rate, min(training.warm_up, training.steps - 1)
  if training.schedule == "cosine":
    after = optax.cosine_decay_schedule(rate, max(1, training.steps - warm_up))
  else:
    after = optax.constant_schedule(rate)
  schedule = optax.join_schedules([optax.linear_schedule(0.0, rate, warm_up), after], [warm_up])
  adamw = optax.adamw(schedule, b1=0.9, b2=0.999, eps=1e-8, weight_decay=training.weight_decay)
  return optax.chain(optax.clip_by_global_norm(1.0), adamw)


def start(row: Float32[Array, "1 d"], training: Training) -> Learner:
  """Return the initial state."""
  row = jnp.asarray(row, jnp.float32)
  return Learner(row, optimizer_of(training).init(row), jnp.zeros((), jnp.float32))


def draw_batch(
  references: References, key: Array, size: int, noise_steps: int, sample_latents: bool
) -> Batch:
  """Draw consecutive references, each with a random view, prompt, noise and time.

  Args:
    references: training data of one token.
    key: random key of the step.
    size: batch size.
    noise_steps: length of the noise schedule.
    sample_latents: whether to sample latents from the autoencoder's distribution.
  """
  keys = jax.random.split(key, 6)
  first = jax.random.randint(keys[0], (), 0, references.num_references)
  index = (first + jnp.arange(size)) % references.num_references
  view = jax.random.randint(keys[1], (size,), 0, references.mean.shape[1])
  prompt = jax.random.randint(keys[2], (size,), 0, references.tokens.shape[1])
  # One time from each of `size` strata of the schedule: the same expectation as independent times,
  # with less variance.
  strata = (jnp.arange(size) + jax.random.uniform(keys[3], (size,))) * (noise_steps / size)
  clean = references.mean[index, view]
  if sample_latents and references.deviation is not None:
    clean += references.deviation[index, view] * jax.random.normal(keys[4], clean.shape)
  label = references.label[index]
  return Batch(
    clean=clean,
    noise=jax.random.normal(keys[5], clean.shape),
    time=jnp.minimum(strata.astype(jnp.int32), noise_steps - 1),
    tokens=references.tokens[label, prompt],
    label=label,
  )


def inversion_loss(
  model: StableDiffusion,
  params: Params,
  row: Float32[Array, "1 d"],
  batch: Batch,
  text_features: Float32[Array, "k d"] | None = None,
  guide: TextEncoder | None = None,
  clip_weight: float = 0.0,
  platform: str | None = None,
) -> Float32[Array, ""]:
  """Compute the mean squared error of the UNet, plus the CLIP-guided loss if there is a guide.

  Args:
    model: the diffusion model.
    params: parameters of the UNet, the text towers, the autoencoder's decoder and the guide
      (`clip`).
    row: embedding of the new token.
    batch: noisy references.
    text_features: unit-norm features of the batch's classes by the guide.
    guide: encoder of the guided loss.
    clip_weight: weight of the guided loss.
    platform: `cpu`, `gpu` or `tpu`, which selects the attention kernel.
  """
  # Forward process: noisy = sqrt(alpha_t) clean + sqrt(1 - alpha_t) noise.
  levels = jnp.asarray(model.schedule.alphas_cumprod, jnp.float32)[batch.time]
  signal, sigma = (jnp.sqrt(x)[:, None, None, None] for x in (levels, 1 - levels))
  noisy = signal * batch.clean + sigma * batch.noise
  tokens = [batch.tokens[:, tower] for tower in range(len(model.towers))]
  texts = apply_text_encoders(model.towers, params, tokens, tower_tables(row, model.towers))
  conditions = conditions_of(model, texts, noisy.shape)
  sample = noisy.astype(model.dtype)
  output = apply_unet(model.unet, params["unet"], sample, batch.time, conditions, platform)
  output = output.astype(jnp.float32)
  velocity = model.schedule.prediction_type == "v_prediction"
  target = signal * batch.noise - sigma * batch.clean if velocity else batch.noise
  loss = jnp.square(output - target).mean()
  if guide is None or text_features is None or not clip_weight:
    return loss
  # Predicted clean latents: invert noisy = signal clean + sigma noise for the model's prediction.
  clean = signal * noisy - sigma * output if velocity else (noisy - sigma * output) / signal
  wanted = text_features[batch.label]
  return loss + clip_weight * clip_loss(model, params, clean, wanted, guide, platform)


def clip_loss(
  model: StableDiffusion,
  params: Params,
  clean: Float32[Array, "b h w c"],
  text_features: Float32[Array, "b d"],
  guide: TextEncoder,
  platform: str | None = None,
) -> Float32[Array, ""]:
  """Compute the mean of 1 - cos(image, text) over matching pairs, on decoded images.

  Args:
    model: the diffusion model.
    params: parameters of the autoencoder's decoder and of the guide (`clip`).
    clean: predicted clean latents.
    text_features: unit-norm features of the matching texts.
    guide: encoder of images and texts.
    platform: `cpu`, `gpu` or `tpu`, which selects the attention kernel.
  """
  latents = model.vae.config.from_diffusion(clean).astype(model.vae_dtype)
  images = apply_decoder(model.vae, params["vae"], latents, platform).astype(jnp.float32)
  # The autoencoder decodes to [-1, 1]; the guide takes [0, 1], normalized.
  unit = jnp.clip(images / 2 + 0.5, 0, 1)
  side = guide.input.size
  unit = jax.image.resize(unit, (len(unit), side, side, 3), "bicubic")
  pixels = (unit - jnp.asarray(guide.input.mean)) / jnp.asarray(guide.input.std)
  features = guide.embed_pixels(params["clip"], pixels)
  cosine = (features * text_features).sum(-1) / jnp.linalg.norm(features, axis=-1)
  return (1 - cosine).mean()


def update(
  model: StableDiffusion,
  params: Params,
  training: Training,
  guide: TextEncoder | None,
  platform: str | None,
  learner: Learner,
  references: References,
  step: Int32[Array, ""],
) -> Learner:
  """Run one training step of one token; its randomness depends on the token and the step.

  Args:
    model, params, guide, platform: see `inversion_loss`.
    training: settings.
    learner: state before the step.
    references: training data of the token.
    step: number of the step.
  """
  # Not split from a running key: a resumed run draws the same numbers.
  key = jax.random.fold_in(jax.random.wrap_key_data(references.key), step)
  noise_steps = len(model.schedule.alphas_cumprod)
  batch = draw_batch(references, key, training.batch, noise_steps, training.sample_latents)

  def loss_of(row: Float32[Array, "1 d"]) -> Float32[Array, ""]:
    guided = (references.text_features, guide, training.clip_weight, platform)
    return inversion_loss(model, params, row, batch, *guided)

  loss, gradient = jax.value_and_grad(loss_of)(learner.row)
  updates, moments = optimizer_of(training).update(gradient, learner.moments, learner.row)
  return Learner(optax.apply_updates(learner.row, updates), moments, loss)


@kept(4)
def training_program(
  model: StableDiffusion, mesh: Mesh, training: Training, guide: TextEncoder | None = None
) -> Any:
  """Return the program that trains tokens, split over the mesh, from step `first` to step `last`.

  Each device trains its own tokens in one vmapped program, without communication.

  Args:
    model: the diffusion model.
    mesh: devices.
    training: settings.
    guide: encoder of the guided loss.
  """
  platform = mesh.devices.flat[0].platform

  def run(
    params: Params,
    learners: Learner,
    references: References,
    first: Int32[Array, ""],
    last: Int32[Array, ""],
  ) -> Learner:
    step_of = functools.partial(update, model, params, training, guide, platform)
    together = jax.vmap(step_of, in_axes=(0, 0, None))
    return jax.lax.fori_loop(first, last, lambda i, old: together(old, references, i), learners)

  everywhere, tokens = PartitionSpec(), PartitionSpec(DATA_AXIS)
  specs = (everywhere, tokens, tokens, everywhere, everywhere)
  return jax.jit(jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=tokens, check_vma=False))


@kept(4)
def encoding_program(model: StableDiffusion, mesh: Mesh) -> Any:
  """Return the program for mean and deviation of the latents of views [t, r, v, H, W, 3]."""

  def encode_view(
    params: Params, view: UInt8[Array, "H W 3"]
  ) -> tuple[Float32[Array, "h w c"], Float32[Array, "h w c"]]:
    pixels = view.astype(jnp.float32) / 127.5 - 1
    pixels = pixels[None].astype(model.vae_dtype)
    mean, log_variance = (x.astype(jnp.float32) for x in apply_encoder(model.vae, params, pixels))
    deviation = jnp.exp(0.5 * log_variance)
    config = model.vae.config
    # The latents' scaling is affine. A deviation is scaled by its slope only, not shifted.
    spread = config.to_diffusion(mean + deviation) - config.to_diffusion(mean)
    return config.to_diffusion(mean)[0], spread[0]

  def encode(params: Params, views: UInt8[Array, "t r v H W 3"]) -> Any:
    rows = views.reshape(-1, *views.shape[3:])
    found = jax.lax.map(functools.partial(encode_view, params), rows, batch_size=ENCODED_AT_ONCE)
    return jax.tree.map(lambda x: x.reshape(*views.shape[:3], *x.shape[1:]), found)

  everywhere, tokens = PartitionSpec(), PartitionSpec(DATA_AXIS)
  return jax.jit(
    jax.shard_map(
      encode, mesh=mesh, in_specs=(everywhere, tokens), out_specs=tokens, check_vma=False
    )
  )


def initial_row(
  model: StableDiffusion, class_names: tuple[str, ...], initializer: str
) -> Float32[np.ndarray, "1 d"]:
  """Return a token's initial embedding: the mean of its class names' tokens, or end-of-text.

  Args:
    model: the diffusion model.
    class_names: names of the classes that share the token.
    initializer: `class_name` or `end_of_text`.
  """
  rows = [
    _initial_row(tower, model.params[part], class_names, initializer)
    for part, tower in zip(TEXT_PARTS, model.towers, strict=False)
  ]
  return np.concatenate(rows, axis=1)


def _initial_row(
  tower: TextTower, params: Params, class_names: tuple[str, ...], initializer: str
) -> Float32[np.ndarray, "1 d"]:
  table = params["text_model"]["embeddings.token_embedding"]["weight"]
  tokenizer = tower.tokenizer
  means = []
  for name in class_names if initializer == "class_name" else ():
    ids = tokenizer(name, add_special_tokens=False, verbose=False)["input_ids"]
    means.append(np.asarray(table[ids or [tokenizer.eos_token_id]], np.float32).mean(axis=0))
  if not means:
    means = [np.asarray(table[tokenizer.eos_token_id], np.float32)]
  return np.asarray(np.mean(means, axis=0, keepdims=True, dtype=np.float32))
