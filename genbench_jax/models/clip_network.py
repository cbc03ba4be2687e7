"""CLIP's two towers: OpenAI's, OpenCLIP's, and the text encoders of Stable Diffusion.

Follows transformers' `CLIPModel`, `CLIPTextModel` and `CLIPTextModelWithProjection`.

Reference:
  Radford et al., "Learning transferable visual models from natural language supervision", 2021 (arXiv 2103.00020).
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from genbench_jax.models.configuration import MOST_PIXELS, MOST_TOKENS, MOST_VOCABULARY, Settings
from genbench_jax.models.layers import Dtype, Embed, LayerNorm, Linear, causal_bias
from genbench_jax.models.transformer import Encoder, PatchEmbedding, encoder_layers

# Defaults for settings that a configuration omits: those of transformers.
TEXT_DEFAULTS = Encoder(512, 12, 8, 2048, "quick_gelu", 1e-5)
VISION_DEFAULTS = Encoder(768, 12, 12, 3072, "quick_gelu", 1e-5)


@dataclasses.dataclass(frozen=True)
class TextSizes:
  """Architecture of a text tower.

  Attributes:
    encoder: its transformer.
    vocabulary: number of token ids.
    positions: longest text, in tokens.
  """

  encoder: Encoder
  vocabulary: int
  positions: int

  @classmethod
  def read(cls, settings: Settings) -> "TextSizes":
    """Read the architecture from the configuration of a text tower.

    Raises:
      RunError: a setting is out of bounds.
    """
    return cls(
      encoder=Encoder.read(settings, TEXT_DEFAULTS),
      vocabulary=settings.integer("vocab_size", 49408, high=MOST_VOCABULARY),
      positions=settings.integer("max_position_embeddings", 77, high=MOST_TOKENS),
    )


@dataclasses.dataclass(frozen=True)
class VisionSizes:
  """Architecture of a vision tower.

  Attributes:
    encoder: its transformer.
    image_size: side of the square images, in pixels.
    patch_size: side of a patch, in pixels.
  """

  encoder: Encoder
  image_size: int
  patch_size: int

  @classmethod
  def read(
    cls, settings: Settings, defaults: Encoder = VISION_DEFAULTS, patch: int = 32
  ) -> "VisionSizes":
    """Read the architecture from the configuration of a vision tower.

    Args:
      settings: the configuration.
      defaults: encoder settings to use for those that the configuration omits.
      patch: default side of a patch, in pixels.

    Raises:
      RunError: a setting is out of bounds, or the image is smaller than a patch.
    """
    settings.refuse_all_but({"num_channels": 3})
    size = settings.integer("image_size", 224, high=MOST_PIXELS)
    return cls(
      encoder=Encoder.read(settings, defaults),
      image_size=size,
      patch_size=settings.integer("patch_size", patch, high=size),
    )

  @property
  def patches(self) -> int:
    """Number of patches per image."""
    return (self.image_size // self.patch_size) ** 2


class TextStates(NamedTuple):
  """Outputs of a text tower. Under jit, unused ones cost nothing.

  Attributes:
    hidden: states after the embeddings and after each layer, without the final norm. `hidden[-2]` is the
      penultimate layer's output, which Stable Diffusion 2 and XL use.
    last: states after the last layer and the final norm.
  """

  hidden: tuple[Float[Array, "b l w"], ...]
  last: Float[Array, "b l w"]


class TextTransformer(nn.Module):
  """CLIP's text tower without projection. Causal: a token attends to itself and its predecessors.

  Attributes:
    sizes: architecture.
    dtype: dtype of the computation.
    remat: whether to recompute each layer's activations in the backward pass.
  """

  sizes: TextSizes
  dtype: Dtype = jnp.float32
  remat: bool = False

  def setup(self) -> None:
    sizes, width = self.sizes, self.sizes.encoder.width
    self.token_embedding = Embed(
      sizes.vocabulary, width, self.dtype, name="embeddings.token_embedding"
    )
    self.position_embedding = Embed(
      sizes.positions, width, self.dtype, name="embeddings.position_embedding"
    )
    self.layers = encoder_layers(sizes.encoder, self.dtype, self.remat)
    self.norm = LayerNorm(sizes.encoder.eps, name="final_layer_norm")

  def embed(
    self, tokens: Int[Array, "b l"], learned: Float[Array, "n w"] | None = None
  ) -> Float[Array, "b l w"]:
    """Look up the embeddings of token ids, without positions.

    Args:
      tokens: ids; an id >= the vocabulary's size v refers to row id - v of `learned`.
      learned: embeddings of new tokens. The checkpoint's table is neither copied nor changed, so that
        gradients reach only these rows.
    """
    if learned is None:
      return self.token_embedding(tokens)
    vocabulary = self.sizes.vocabulary
    # Both lookups are clipped into range, so that the row which `where` discards is valid, too.
    known = self.token_embedding(jnp.minimum(tokens, vocabulary - 1))
    new = jnp.asarray(learned)[jnp.clip(tokens - vocabulary, 0, len(learned) - 1)]
    return jnp.where((tokens >= vocabulary)[..., None], new.astype(known.dtype), known)

  def __call__(self, embeddings: Float[Array, "b l w"]) -> TextStates:
    """Compute the hidden states from token embeddings, see `embed`."""
    length = embeddings.shape[1]
    hidden = [(embeddings + self.position_embedding.table[:length]).astype(self.dtype)]
    # Padding needs no mask: it follows the end-of-text token, which does not see later tokens.
    bias = causal_bias(length)
    for layer in self.layers:
      hidden.append(layer(hidden[-1], bias))
    return TextStates(tuple(hidden), self.norm(hidden[-1]))


class VisionTransformer(nn.Module):
  """CLIP's vision tower without projection.

  Attributes:
    sizes: architecture.
    dtype: dtype of the computation.
    remat: whether to recompute each layer's activations in the backward pass.
  """

  sizes: VisionSizes
  dtype: Dtype = jnp.float32
  remat: bool = False

  def setup(self) -> None:
    sizes, width = self.sizes, self.sizes.encoder.width
    self.class_embedding = self.param(
      "embeddings.class_embedding", nn.initializers.normal(width**-0.5), (width,)
    )
    self.patch_embedding = PatchEmbedding(
      width, sizes.patch_size, use_bias=False, dtype=self.dtype, name="embeddings.patch_embedding"
    )
    self.position_embedding = Embed(
      sizes.patches + 1, width, self.dtype, name="embeddings.position_embedding"
    )
    # "layrnorm" is misspelled in the published checkpoints.
    self.pre_norm = LayerNorm(sizes.encoder.eps, name="pre_layrnorm")
    self.layers = encoder_layers(sizes.encoder, self.dtype, self.remat)
    self.post_norm = LayerNorm(sizes.encoder.eps, name="post_layernorm")

  def __call__(
    self, pixels: Float[Array, "b h w 3"], prompts: Float[Array, "j m d"] | None = None
  ) -> Float[Array, "b d"]:
    """Return the class token after the last layer and the final norm.

    Args:
      pixels: preprocessed images.
      prompts: m prompt tokens for each of the first j layers, inserted between the class token and the
        patches. With j = 1 (shallow prompts) the first layer's outputs flow on; with j > 1 (deep
        prompts) each further layer replaces them by its own.
    """
    # Unlike other vision transformers, CLIP also normalizes before the first layer.
    hidden = self.pre_norm(self._embedded(pixels))
    count = 0 if prompts is None else prompts.shape[1]
    for index, layer in enumerate(self.layers):
      if prompts is not None and index < len(prompts):
        hidden = _with_prompts(hidden, prompts[index], count if index else 0)
      hidden = layer(hidden)
    return self.post_norm(hidden[:, 0])

  def _embedded(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b l d"]:
    """Return the class token and the patches, with their positions: l = 1 + patches."""
    patches = self.patch_embedding(pixels)
    first = jnp.asarray(self.class_embedding, patches.dtype)
    first = jnp.broadcast_to(first, (len(patches), 1, patches.shape[-1]))
    return jnp.concatenate([first, patches], axis=1) + self.position_embedding.table


def _with_prompts(
  hidden: Float[Array, "b l w"], prompts: Float[Array, "m w"], old: int
) -> Float[Array, "b k w"]:
  """Insert prompt tokens after the class token, replacing the `old` previous ones.

  As in visual prompt tuning (arXiv 2203.12119), prompt tokens have no positions.
  """
  tokens = jnp.broadcast_to(prompts, (len(hidden), *prompts.shape)).astype(hidden.dtype)
  return jnp.concatenate([hidden[:, :1], tokens, hidden[:, 1 + old :]], axis=1)


class ClipText(nn.Module):
  """A text tower with optional projection: the text encoder of a diffusion model.

  Attributes:
    sizes: architecture of the tower.
    projection: width of the projected features; 0 without projection.
    dtype: dtype of the computation.
  """

  sizes: TextSizes
  projection: int = 0
  dtype: Dtype = jnp.float32

  def setup(self) -> None:
    self.text_model = TextTransformer(self.sizes, self.dtype)
    if self.projection:
      self.text_projection = Linear(self.projection, use_bias=False, dtype=self.dtype)

  def __call__(
    self, tokens: Int[Array, "b l"], learned: Float[Array, "n w"] | None = None
  ) -> TextStates:
    """Compute the hidden states of token ids; see `TextTransformer.embed` for `learned`."""
    states = self.text_model(self.text_model.embed(tokens, learned))
    # `init` must create the projection's parameters, which this path does not use.
    if self.projection and self.is_initializing():
      self.text_projection(states.last)
    return states

  def pooled(self, states: TextStates, ends: Int[Array, "b"]) -> Float[Array, "b d"]:
    """Project the states of the end-of-text tokens, at the positions `ends`."""
    return self.text_projection(at(states.last, ends))


class ClipNetwork(nn.Module):
  """Both towers with their projections.

  Attributes:
    text: architecture of the text tower.
    vision: architecture of the vision tower.
    projection: width of the features.
    dtype: dtype of the computation.
    remat: whether to recompute each layer's activations in the backward pass. Use
      `network.clone(remat=True)`.
  """

  text: TextSizes
  vision: VisionSizes
  projection: int
  dtype: Dtype = jnp.float32
  remat: bool = False

  def setup(self) -> None:
    self.text_model = TextTransformer(self.text, self.dtype, self.remat)
    self.vision_model = VisionTransformer(self.vision, self.dtype, self.remat)
    self.text_projection = Linear(self.projection, use_bias=False, dtype=self.dtype)
    self.visual_projection = Linear(self.projection, use_bias=False, dtype=self.dtype)
    # exp(2.6592) = 1 / 0.07, the initial temperature of the paper (section 2.5).
    self.logit_scale = self.param("logit_scale", nn.initializers.constant(2.6592), ())

  def __call__(
    self, pixels: Float[Array, "b h w 3"], tokens: Int[Array, "k l"], ends: Int[Array, "k"]
  ) -> tuple[Float[Array, "b d"], Float[Array, "k d"], Float[Array, ""]]:
    """Return image features, text features and the logit scale exp(`logit_scale`)."""
    images = self.image_features(pixels)
    texts = self.text_features(self.token_embeddings(tokens), ends)
    return images, texts, jnp.exp(jnp.asarray(self.logit_scale, jnp.float32))

  def image_features(
    self, pixels: Float[Array, "b h w 3"], prompts: Float[Array, "j m width"] | None = None
  ) -> Float[Array, "b d"]:
    """Compute unnormalized image features; see `VisionTransformer` for `prompts`."""
    return self.visual_projection(self.vision_model(pixels, prompts)).astype(jnp.float32)

  def token_embeddings(
    self, tokens: Int[Array, "k l"], learned: Float[Array, "n w"] | None = None
  ) -> Float[Array, "k l w"]:
    """Look up token embeddings, see `TextTransformer.embed`."""
    return self.text_model.embed(tokens, learned)

  def text_features(
    self, embeddings: Float[Array, "k l w"], ends: Int[Array, "k"]
  ) -> Float[Array, "k d"]:
    """Compute unnormalized text features of token embeddings, read at the end-of-text tokens."""
    return self.text_projection(at(self.text_model(embeddings).last, ends)).astype(jnp.float32)


def end_positions(tokens: Int[Array, "b l"], end: int) -> Int[Array, "b"]:
  """Return the position of the first `end` token of each text. Padding may use the same token after it.

  `end` must come from the tokenizer. Configurations carry wrong ids (2 for OpenAI's checkpoints, 49407 by
  default for any vocabulary), with which every text would be read at its first token.
  """
  return jnp.argmax(tokens == end, axis=1)


def at(states: Float[Array, "b l w"], places: Int[Array, "b"]) -> Float[Array, "b w"]:
  """Select the state at one position of each sequence."""
  # Indexing by row numbers instead would send indices and states between the devices that share the batch.
  return jnp.take_along_axis(states, places[:, None, None], axis=1)[:, 0]
