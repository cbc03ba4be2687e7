"""Load SigLIP and SigLIP 2 checkpoints: transformers' format, or big_vision's .npz.

A sigmoid model scores each pair of image and text separately, by sigmoid(scale cosine + bias). Class
prototypes are made as for CLIP: the mean over templates of unit-norm text features, normalized again.
Zero-shot picks the largest cosine, which is also the largest probability, because scale and bias are
shared by all classes. Texts are lowercased and padded to the training length; padding is attended to.
"""

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
from genbench_jax.models.big_vision import read_big_vision
from genbench_jax.models.configuration import Settings, refuse_other_models
from genbench_jax.models.image_input import HALF, ImageInput, read_image_input
from genbench_jax.models.layers import compute_dtype
from genbench_jax.models.siglip_network import SiglipNetwork, SiglipTextSizes, read_vision
from genbench_jax.models.siglip_tokenizer import SiglipTokenizer, load_siglip_tokenizer
from genbench_jax.store.image_files import visible


@dataclasses.dataclass(frozen=True, eq=False)
class Siglip:
  """A SigLIP model with its parameters, tokenizer and preprocessing.

  Attributes:
    network: the network.
    params: its parameters, on the host, in the dtype of the computation.
    tokenizer: maps texts to ids of a fixed length.
    input: image preprocessing.
    fingerprint: digest of the checkpoint.
  """

  network: SiglipNetwork
  params: weights.Params
  tokenizer: SiglipTokenizer
  input: ImageInput
  fingerprint: str

  @property
  def width(self) -> int:
    """Width of the features."""
    return self.network.vision.encoder.width

  @property
  def logit_scale(self) -> float:
    """Factor on the cosines before a sigmoid, or before a softmax over classes."""
    return float(np.exp(np.asarray(self.params["logit_scale"], np.float32)[0]))

  @property
  def logit_bias(self) -> float:
    """Constant to add before a sigmoid."""
    return float(np.asarray(self.params["logit_bias"], np.float32)[0])

  def embed_pixels(
    self, params: weights.Params, pixels: Float[Array, "b h w 3"]
  ) -> Float[Array, "b d"]:
    """Compute unnormalized image features of preprocessed pixels. Pure, for `jax.jit`."""
    return jnp.asarray(self.network.apply({"params": params}, pixels, method="image_features"))

  def embed_tokens(
    self, params: weights.Params, tokens: Int32[Array, "b l"]
  ) -> Float[Array, "b d"]:
    """Compute unnormalized text features of token ids. Pure, for `jax.jit`."""
    return jnp.asarray(self.network.apply({"params": params}, tokens, method="text_features"))

  def tokenize(self, texts: Sequence[str]) -> Int32[np.ndarray, "n l"]:
    """Return the token ids of texts; long texts are truncated but keep their end token."""
    return self.tokenizer(texts)


def load_siglip(folder: Path, dtype: Any = None) -> Siglip:
  """Load a SigLIP from a folder with the hub's `config.json` and tokenizer.

  Raises:
    RunError: the checkpoint is incomplete, corrupt or of another architecture.
  """
  dtype = compute_dtype() if dtype is None else dtype
  network = read_network(folder, dtype)
  # The vision tower has no projection: its own width must be that of the text features.
  if network.text.projection != network.vision.encoder.width:
    raise RunError(f"{folder}: texts and images have features of different widths.")
  tokenizer = load_siglip_tokenizer(folder, network.text.positions, network.text.vocabulary)
  arrays = visible(folder, "*.npz")
  tensors = read_big_vision(arrays[0]) if arrays else checkpoints.read_weights(folder)
  return Siglip(
    network=network,
    params=weights.load(tensors, parameter_shapes(folder), folder, dtype),
    tokenizer=tokenizer,
    input=_image_input(folder, network.vision.image_size),
    fingerprint=checkpoints.fingerprint(folder),
  )


def read_network(folder: Path, dtype: Any = jnp.float32) -> SiglipNetwork:
  """Create the network that `config.json` in `folder` describes.

  Raises:
    RunError: the configuration is missing, damaged or of another model.
  """
  path = folder / "config.json"
  settings = Settings(checkpoints.read_json(path), path)
  refuse_other_models(settings, ("siglip",))
  text = SiglipTextSizes.read(settings.section("text_config"))
  return SiglipNetwork(text, read_vision(settings.section("vision_config")), dtype)


def parameter_shapes(folder: Path) -> weights.Params:
  """Return the shapes of the parameters of the SigLIP whose `config.json` is in `folder`."""
  network = read_network(folder)
  side, length = network.vision.image_size, network.text.positions
  pixels = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
  return weights.parameter_shapes(network.init, pixels, jax.ShapeDtypeStruct((1, length), np.int32))


def _image_input(folder: Path, size: int) -> ImageInput:
  # As published: both sides are resized to the square, and pixels are mapped to -1..1.
  found = read_image_input(folder, ImageInput(size, keep_aspect=False, mean=HALF, std=HALF))
  if found.size != size:
    raise RunError(
      f"{folder / 'preprocessor_config.json'} resizes to {found.size} pixels, but the model takes {size}."
    )
  return found
