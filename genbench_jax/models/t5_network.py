"""T5: an encoder, a decoder with key-value cache, and sampling.

Follows transformers' `T5ForConditionalGeneration`.

Reference:
  Raffel et al., "Exploring the limits of transfer learning with a unified text-to-text transformer", 2020 (arXiv 1910.10683).
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32

from genbench_jax.models.configuration import (
  MOST_HEADS,
  MOST_LAYERS,
  MOST_VOCABULARY,
  Settings,
)
from genbench_jax.models.layers import (
  ACTIVATIONS,
  Dtype,
  Embed,
  Linear,
  RmsNorm,
  activation,
  attend,
)

# Score of masked positions; finite, so that a row of only padding does not give NaN.
HIDDEN = -1e9


@dataclasses.dataclass(frozen=True)
class T5Sizes:
  """Architecture of a T5.

  Attributes:
    vocabulary: number of token ids.
    width: width of the hidden states.
    head_width: width of an attention head; heads * head_width may differ from `width`.
    heads: attention heads per layer.
    mlp_width: width of the MLP's hidden layer.
    layers: number of encoder layers.
    decoder_layers: number of decoder layers.
    buckets: number of relative-position buckets, each with a learned bias per head.
    max_distance: distance from which all positions share a bucket.
    activation: name of the MLP's activation.
    gated: whether the MLP is gated, act(a) b, instead of act(a).
    own_logits: whether the output layer has its own table instead of the embeddings'.
    scaled: whether states are scaled before the output layer, as in T5 1.0, which shares the table.
    eps: epsilon of the norms.
  """

  vocabulary: int
  width: int
  head_width: int
  heads: int
  mlp_width: int
  layers: int
  decoder_layers: int
  buckets: int
  max_distance: int
  activation: str
  gated: bool
  own_logits: bool
  scaled: bool
  eps: float

  @classmethod
  def read(cls, settings: Settings) -> "T5Sizes":
    """Read the architecture from a configuration.

    Raises:
      RunError: a setting is out of bounds.
    """
    layers = settings.integer("num_layers", 6, high=MOST_LAYERS)
    form = settings.values.get("feed_forward_proj") or "relu"
    name = form.removeprefix("gated-") if isinstance(form, str) else ""
    # The published "gated-gelu" models were trained with the tanh approximation.
    name = "gelu_new" if form == "gated-gelu" else name
    if name not in ACTIVATIONS:
      raise settings.error(
        "feed_forward_proj", f"supported: {', '.join(ACTIVATIONS)}, with or without 'gated-'"
      )
    return cls(
      vocabulary=settings.integer("vocab_size", 32128, high=MOST_VOCABULARY),
      width=settings.integer("d_model", 512),
      head_width=settings.integer("d_kv", 64),
      heads=settings.integer("num_heads", 8, high=MOST_HEADS),
      mlp_width=settings.integer("d_ff", 2048),
      layers=layers,
      decoder_layers=settings.integer("num_decoder_layers", layers, high=MOST_LAYERS),
      buckets=settings.integer("relative_attention_num_buckets", 32, low=4, high=4096),
      max_distance=settings.integer("relative_attention_max_distance", 128, high=1 << 20),
      activation=name,
      gated=form.startswith("gated-"),
      own_logits=not settings.flag("tie_word_embeddings", True),
      scaled=settings.flag("tie_word_embeddings", True),
      eps=settings.number("layer_norm_epsilon", 1e-6, high=1.0),
    )


class KeysValues(NamedTuple):
  """Keys and values of an attention layer."""

  keys: Float[Array, "b l h e"]
  values: Float[Array, "b l h e"]


class T5Network(nn.Module):
  """T5's encoder and decoder.

  Attributes:
    sizes: architecture.
    dtype: dtype of the computation.
  """

  sizes: T5Sizes
  dtype: Dtype = jnp.float32

  def setup(self) -> None:
    sizes = self.sizes
    self.shared = Embed(sizes.vocabulary, sizes.width, self.dtype)
    self.encoder = _Stack(sizes, sizes.layers, False, self.dtype)
    self.decoder = _Stack(sizes, sizes.decoder_layers, True, self.dtype)
    if sizes.own_logits:
      self.lm_head = Linear(sizes.vocabulary, use_bias=False, dtype=self.dtype)

  def __call__(
    self, tokens: Int[Array, "b l"], mask: Bool[Array, "b l"], written: Int[Array, "b m"]
  ) -> Float[Array, "b m v"]:
    """Return the logits of the token after each token of `written`.

    Args:
      tokens: input tokens.
      mask: True where the input is not padding.
      written: output tokens, beginning with the start token.
    """
    crossed = self.cross(self.encode(tokens, mask))
    length = written.shape[1]
    bias = self.decoder.position_bias(jnp.arange(length), length)
    # Causal: token i sees tokens 0 to i. Cross-attention, in `rest`, has no position bias.
    seen = jnp.tril(jnp.ones((length, length), bool))
    bias = bias + jnp.where(seen, 0.0, HIDDEN)
    hidden = self.shared(written)
    for layer, cross in zip(self.decoder.blocks, crossed, strict=True):
      normed = layer.norm_self(hidden)
      own = layer.attention.keys_values(normed)
      hidden = layer.rest(hidden + layer.attention(normed, own, bias), cross, _unseen(mask))
    return self._logits(hidden)

  def encode(self, tokens: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
    """Return the encoder's output states."""
    length = tokens.shape[1]
    bias = self.encoder.position_bias(jnp.arange(length), length) + _unseen(mask)
    hidden = self.shared(tokens)
    for layer in self.encoder.blocks:
      normed = layer.norm_self(hidden)
      hidden = layer.mix(
        hidden + layer.attention(normed, layer.attention.keys_values(normed), bias)
      )
    return self.encoder.final_layer_norm(hidden)

  def cross(self, states: Float[Array, "b l d"]) -> list[KeysValues]:
    """Compute keys and values of the encoder's states for each decoder layer, once per sequence."""
    return [layer.cross_attention.keys_values(states) for layer in self.decoder.blocks]

  def step(
    self,
    token: Int[Array, "b"],
    place: Int[Array, ""],
    cache: list[KeysValues],
    crossed: list[KeysValues],
    mask: Bool[Array, "b l"],
  ) -> tuple[Float[Array, "b v"], list[KeysValues]]:
    """Return the logits of the token after `token`, and the cache with its keys and values added.

    Args:
      token: latest token of each sequence.
      place: its position.
      cache: keys and values of the preceding tokens, see `empty_cache`.
      crossed: keys and values of the encoder's states, see `cross`.
      mask: True where the input is not padding.
    """
    length = cache[0].keys.shape[1]
    bias = self.decoder.position_bias(place[None], length)
    # The cache has its full length from the start, so that shapes are static; later places are hidden.
    bias = bias + jnp.where(jnp.arange(length) <= place, 0.0, HIDDEN)
    hidden, grown = self.shared(token)[:, None], []
    for layer, old, cross in zip(self.decoder.blocks, cache, crossed, strict=True):
      normed = layer.norm_self(hidden)
      new = layer.attention.keys_values(normed)
      own = KeysValues(*(old[i].at[:, place].set(new[i][:, 0]) for i in range(2)))
      grown.append(own)
      hidden = layer.rest(hidden + layer.attention(normed, own, bias), cross, _unseen(mask))
    return self._logits(hidden)[:, 0], grown

  def empty_cache(self, count: int, length: int) -> list[KeysValues]:
    """Return an empty cache for `count` sequences of `length` tokens."""
    sizes = self.sizes
    shape = (count, length, sizes.heads, sizes.head_width)
    empty = KeysValues(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype))
    return [empty] * sizes.decoder_layers

  def _logits(self, hidden: Float[Array, "b m d"]) -> Float[Array, "b m v"]:
    hidden = self.decoder.final_layer_norm(hidden)
    if self.sizes.scaled:  # the shared table has the scale of embeddings, not of output weights
      hidden = hidden * self.sizes.width**-0.5
    logits = self.lm_head(hidden) if self.sizes.own_logits else hidden @ self.shared.table.T
    return logits.astype(jnp.float32)


def _unseen(mask: Bool[Array, "b l"]) -> Float[Array, "b 1 1 l"]:
  return jnp.where(mask, 0.0, HIDDEN)[:, None, None]


class _Stack(nn.Module):
  """The layers of an encoder or decoder. The first layer's relative position bias is used by all."""

  sizes: T5Sizes
  layers: int
  decoder: bool
  dtype: Dtype

  def setup(self) -> None:
    sizes = self.sizes
    self.blocks = [
      _Layer(sizes, self.decoder, self.dtype, name=f"block.{index}") for index in range(self.layers)
    ]
    # In checkpoints, only the first layer has this table.
    self.biases = Embed(
      sizes.buckets,
      sizes.heads,
      name="block.0.layer.0.SelfAttention.relative_attention_bias",
    )
    self.final_layer_norm = RmsNorm(sizes.eps)

  def position_bias(self, rows: Int[Array, "q"], length: int) -> Float[Array, "1 h q k"]:
    """Return the score biases for query positions `rows` and `length` key positions."""
    distance = jnp.arange(length)[None] - rows[:, None]
    buckets = relative_position_bucket(
      distance, not self.decoder, self.sizes.buckets, self.sizes.max_distance
    )
    return self.biases(buckets).transpose(2, 0, 1)[None].astype(jnp.float32)


class _Layer(nn.Module):
  """Self-attention, in a decoder cross-attention, and an MLP, each with a pre-norm and a residual."""

  sizes: T5Sizes
  decoder: bool
  dtype: Dtype

  def setup(self) -> None:
    sizes, last = self.sizes, 2 if self.decoder else 1
    self.norm_self = RmsNorm(sizes.eps, name="layer.0.layer_norm")
    self.attention = _Attention(sizes, self.dtype, name="layer.0.SelfAttention")
    if self.decoder:
      self.norm_cross = RmsNorm(sizes.eps, name="layer.1.layer_norm")
      self.cross_attention = _Attention(sizes, self.dtype, name="layer.1.EncDecAttention")
    self.norm_mix = RmsNorm(sizes.eps, name=f"layer.{last}.layer_norm")
    self.mlp = _Mlp(sizes, self.dtype, name=f"layer.{last}.DenseReluDense")

  def rest(
    self, hidden: Float[Array, "b m d"], cross: KeysValues, unseen: Float[Array, "b 1 1 l"]
  ) -> Float[Array, "b m d"]:
    """Apply what follows self-attention in a decoder layer: cross-attention and the MLP."""
    attended = self.cross_attention(self.norm_cross(hidden), cross, unseen)
    return self.mix(hidden + attended)

  def mix(self, hidden: Float[Array, "b m d"]) -> Float[Array, "b m d"]:
    """Apply the MLP with its norm."""
    return hidden + self.mlp(self.norm_mix(hidden))


class _Attention(nn.Module):
  """Attention without biases and without the scale 1 / sqrt(d), which T5 folds into its initialization."""

  sizes: T5Sizes
  dtype: Dtype

  def setup(self) -> None:
    inner = self.sizes.heads * self.sizes.head_width
    self.q, self.k, self.v = (Linear(inner, use_bias=False, dtype=self.dtype) for _ in range(3))
    self.o = Linear(self.sizes.width, use_bias=False, dtype=self.dtype)

  def _heads(self, projected: Float[Array, "b l i"]) -> Float[Array, "b l h e"]:
    return projected.reshape(*projected.shape[:2], self.sizes.heads, self.sizes.head_width)

  def keys_values(self, states: Float[Array, "b l d"]) -> KeysValues:
    """Compute the keys and values of the attended states."""
    return KeysValues(self._heads(self.k(states)), self._heads(self.v(states)))

  def __call__(
    self, hidden: Float[Array, "b m d"], seen: KeysValues, bias: Float[Array, "#b #h #m l"]
  ) -> Float[Array, "b m d"]:
    mixed = attend(self._heads(self.q(hidden)), seen.keys, seen.values, bias, scale=1.0)
    return self.o(mixed.reshape(*hidden.shape[:2], -1))


class _Mlp(nn.Module):
  """An MLP without biases, gated since T5 1.1. Published checkpoints name both forms `DenseReluDense`."""

  sizes: T5Sizes
  dtype: Dtype

  @nn.compact
  def __call__(self, hidden: Float[Array, "b m d"]) -> Float[Array, "b m d"]:
    sizes, act = self.sizes, activation(self.sizes.activation)

    def linear(width: int, name: str) -> Linear:
      return Linear(width, use_bias=False, dtype=self.dtype, name=name)

    if sizes.gated:
      inner = act(linear(sizes.mlp_width, "wi_0")(hidden)) * linear(sizes.mlp_width, "wi_1")(hidden)
    else:
      inner = act(linear(sizes.mlp_width, "wi")(hidden))
    return linear(sizes.width, "wo")(inner)


def relative_position_bucket(
  relative_position: Int[Array, "q k"],
  bidirectional: bool = True,
  num_buckets: int = 32,
  max_distance: int = 128,
) -> Int32[Array, "q k"]:
  """Return the bucket of the relative position of two tokens: exact for near ones, logarithmic for far ones.

  Args:
    relative_position: position of the key minus that of the query.
    bidirectional: whether keys after the query get separate buckets, as in an encoder; otherwise they
      share the bucket of distance 0.
    num_buckets: total number of buckets; if bidirectional, half for each direction.
    max_distance: distance from which all positions share a bucket.

  Reference:
    Raffel et al., 2020, section 2.1 (arXiv 1910.10683).
  """
  first = jnp.zeros((), jnp.int32)
  if bidirectional:
    num_buckets //= 2
    first = jnp.where(relative_position > 0, num_buckets, 0)
    distance = jnp.abs(relative_position)
  else:
    distance = -jnp.minimum(relative_position, 0)
  exact = num_buckets // 2
  # The first half of the buckets counts single distances, the second half is spaced logarithmically.
  log_share = jnp.log(jnp.maximum(distance, 1) / exact) / np.log(max_distance / exact)
  far = jnp.minimum(exact + (log_share * (num_buckets - exact)).astype(jnp.int32), num_buckets - 1)
  return (first + jnp.where(distance < exact, distance, far)).astype(jnp.int32)


class SamplingSettings(NamedTuple):
  """Sampling settings.

  Attributes:
    start: first token of every output.
    end: token that ends an output.
    pad: padding token, after the end.
    length: tokens per output, including the start token.
    likeliest: number of most likely tokens to sample from (top-k).
  """

  start: int
  end: int
  pad: int
  length: int
  likeliest: int


def sample(
  network: T5Network,
  params: dict[str, Any],
  tokens: Int[Array, "b l"],
  mask: Bool[Array, "b l"],
  key: Array,
  sampling: SamplingSettings,
) -> Int32[Array, "b m"]:
  """Sample outputs at temperature 1 from the `likeliest` tokens. Pure, for `jax.jit`.

  Args:
    network: the T5.
    params: its parameters.
    tokens: input tokens.
    mask: True where an input is not padding.
    key: random key.
    sampling: sampling settings.
  """

  def prepare(network: T5Network) -> tuple[list[KeysValues], list[KeysValues]]:
    crossed = network.cross(network.encode(tokens, mask))
    return crossed, network.empty_cache(len(tokens), sampling.length)

  crossed, cache = network.apply({"params": params}, method=prepare)

  def write(state: tuple, place: Int[Array, ""]) -> tuple[tuple, Int[Array, "b"]]:
    token, ended, cache = state
    logits, cache = network.apply(
      {"params": params}, token, place, cache, crossed, mask, method="step"
    )
    values, ids = jax.lax.top_k(logits, min(sampling.likeliest, logits.shape[-1]))
    drawn = jax.random.categorical(jax.random.fold_in(key, place), values)
    token = jnp.take_along_axis(ids, drawn[:, None], axis=1)[:, 0].astype(jnp.int32)
    token = jnp.where(ended, sampling.pad, token)
    return (token, ended | (token == sampling.end), cache), token

  start = jnp.full(len(tokens), sampling.start, jnp.int32)
  state = (start, jnp.zeros(len(tokens), bool), cache)
  _, written = jax.lax.scan(write, state, jnp.arange(sampling.length - 1))
  return jnp.concatenate([start[None], written]).T
