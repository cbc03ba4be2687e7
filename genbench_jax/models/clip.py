"""Load CLIP checkpoints: network, parameters, tokenizer and image preprocessing."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints, weights
from genbench_jax.models.clip_network import ClipNetwork, TextSizes, VisionSizes, end_positions
from genbench_jax.models.configuration import Settings, refuse_other_models
from genbench_jax.models.image_input import ImageInput, read_image_input
from genbench_jax.models.layers import compute_dtype
from genbench_jax.models.tokenizer import load_tokenizer, refuse_ids_beyond, tokenize

# Files of OpenCLIP's own layout, see `open_clip`.
OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
OPEN_CLIP_DOWNLOADS = (
  OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, "vocab.json", "merges.txt", "tokenizer*.json", "special_tokens_map.json",
)  # fmt: skip
DOWNLOADS = ("*.json", "merges.txt", "spiece.model", "model*.safetensors", "flax_model.msgpack")


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
  """A CLIP model with its parameters, tokenizer and preprocessing.

  Attributes:
    module: the network.
    params: its parameters, on the host, in the dtype of the computation.
    tokenizer: a `CLIPTokenizer`.
    max_tokens: length of a tokenized text.
    input: image preprocessing.
    fingerprint: digest of the checkpoint.
  """

  module: ClipNetwork
  params: weights.Params
  tokenizer: Any
  max_tokens: int
  input: ImageInput
  fingerprint: str

  @property
  def image_size(self) -> int:
    """Side of the square images, in pixels."""
    return self.input.size

  @property
  def image_mean(self) -> tuple[float, float, float]:
    """Channel means to subtract from pixels in 0..1."""
    return self.input.mean

  @property
  def image_std(self) -> tuple[float, float, float]:
    """Channel standard deviations to divide by, for pixels in 0..1."""
    return self.input.std

  @property
  def width(self) -> int:
    """Width of the features."""
    return self.module.projection

  @property
  def logit_scale(self) -> float:
    """Factor on the cosines before a softmax, exp(`logit_scale` of the checkpoint)."""
    return float(np.exp(np.asarray(self.params["logit_scale"], np.float32)))

  def embed_pixels(
    self, params: weights.Params, pixels: Float[Array, "b h w 3"]
  ) -> Float[Array, "b d"]:
    """Compute unnormalized image features of preprocessed pixels. Pure, for `jax.jit`."""
    return jnp.asarray(self.module.apply({"params": params}, pixels, method="image_features"))

  def embed_tokens(
    self, params: weights.Params, tokens: Int32[Array, "b l"]
  ) -> Float[Array, "b d"]:
    """Compute unnormalized text features of token ids. Pure, for `jax.jit`."""
    # A text's feature is the state at its end token; the tokenizer knows that token's id.
    ends = end_positions(tokens, self.tokenizer.eos_token_id)

    def embed(network: ClipNetwork) -> Float[Array, "b d"]:
      return network.text_features(network.token_embeddings(tokens), ends)

    return jnp.asarray(self.module.apply({"params": params}, method=embed))

  def tokenize(self, texts: Sequence[str]) -> Int32[np.ndarray, "n l"]:
    """Return the token ids of texts; long texts are truncated."""
    return tokenize(self.tokenizer, texts, self.max_tokens)


def load_clip(checkpoint: str | Path, revision: str | None = None, dtype: Any = None) -> Clip:
  """Load a CLIP from a folder or hub id, in the Hugging Face layout.

  These are OpenAI's and MetaCLIP's checkpoints, and converted ones of OpenCLIP. For OpenCLIP's own layout see
  `open_clip`.

  Args:
    checkpoint: local folder, or hub id such as `openai/clip-vit-base-patch32`.
    revision: commit, tag or branch of a hub id.
    dtype: dtype of parameters and computation; by default bfloat16 on accelerators and float32 on CPU.

  Raises:
    UsageError: there is no such checkpoint.
    RunError: the checkpoint is incomplete, corrupt or of another architecture.
  """
  folder = checkpoints.locate(str(checkpoint), revision, DOWNLOADS)
  dtype = compute_dtype() if dtype is None else dtype
  network = read_network(_settings(folder), dtype)
  tokenizer = load_tokenizer(folder)
  refuse_ids_beyond(tokenizer, network.text.vocabulary, folder)
  return Clip(
    module=network,
    input=_image_input(folder, network.vision.image_size),
    params=weights.load(checkpoints.read_weights(folder), parameter_shapes(folder), folder, dtype),
    tokenizer=tokenizer,
    # A tokenizer without a limit states a huge one; positions beyond the table do not exist.
    max_tokens=min(tokenizer.model_max_length, network.text.positions),
    fingerprint=checkpoints.fingerprint(folder),
  )


def _settings(folder: Path) -> Settings:
  path = folder / "config.json"
  return Settings(checkpoints.read_json(path), path)


def read_network(settings: Settings, dtype: Any = jnp.float32) -> ClipNetwork:
  """Create the network that a `config.json` describes.

  Raises:
    RunError: the configuration is damaged or of another model.
  """
  refuse_other_models(settings, ("clip",))
  return ClipNetwork(
    text=TextSizes.read(settings.section("text_config")),
    vision=VisionSizes.read(settings.section("vision_config")),
    projection=settings.integer("projection_dim", 512),
    dtype=dtype,
  )


def parameter_shapes(folder: Path) -> weights.Params:
  """Return the shapes of the parameters of the CLIP whose `config.json` is in `folder`."""
  return shapes_of(read_network(_settings(folder)))


def shapes_of(network: ClipNetwork) -> weights.Params:
  """Return the shapes of a network's parameters."""
  side, length = network.vision.image_size, network.text.positions
  pixels = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
  tokens = jax.ShapeDtypeStruct((1, length), np.int32)
  return weights.parameter_shapes(
    network.init, pixels, tokens, jax.ShapeDtypeStruct((1,), np.int32)
  )


def _image_input(folder: Path, image_size: int) -> ImageInput:
  found = read_image_input(folder, ImageInput(image_size))
  if found.size != image_size:
    raise RunError(
      f"{folder / 'preprocessor_config.json'} crops to {found.size} pixels, but the model takes {image_size}."
    )
  return found


def load_clip_folder(folder: Path, dtype: Any = None) -> Clip:
  """Load a CLIP from a folder, see `load_clip`. For the registry of encoders."""
  return load_clip(folder, None, dtype)
