"""Load DINOv2 checkpoints, with and without registers: image features without a text encoder.

They give distances between image sets that do not depend on CLIP.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints, weights
from genbench_jax.models.configuration import Settings, refuse_other_models
from genbench_jax.models.dinov2_network import Dinov2Network, Dinov2Sizes
from genbench_jax.models.image_input import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  ImageInput,
  read_image_input,
)
from genbench_jax.models.layers import compute_dtype
from genbench_jax.models.positions import resampled

KINDS = ("dinov2", "dinov2_with_registers")
POSITIONS = "embeddings.position_embeddings"


@dataclasses.dataclass(frozen=True, eq=False)
class Dinov2:
  """A DINOv2 model with its parameters and preprocessing. Features are the normed class token.

  Attributes:
    module: the network.
    params: its parameters, on the host, in the dtype of the computation; positions fit `input.size`.
    input: image preprocessing.
    fingerprint: digest of the checkpoint.
  """

  module: Dinov2Network
  params: weights.Params
  input: ImageInput
  fingerprint: str

  @property
  def image_size(self) -> int:
    """Side of the square images, in pixels."""
    return self.input.size

  @property
  def width(self) -> int:
    """Width of the features."""
    return self.module.sizes.width

  def embed_pixels(
    self, params: weights.Params, pixels: Float[Array, "b h w 3"]
  ) -> Float[Array, "b d"]:
    """Compute unnormalized image features of preprocessed pixels. Pure, for `jax.jit`."""
    return jnp.asarray(self.module.apply({"params": params}, pixels))


def load_dinov2(folder: Path, dtype: Any = None) -> Dinov2:
  """Load a DINOv2 from its folder in the Hugging Face layout.

  Raises:
    RunError: the checkpoint is incomplete, corrupt or of another architecture.
  """
  dtype = compute_dtype() if dtype is None else dtype
  network, image = read_network(folder, dtype), image_input(folder)
  params = weights.load(checkpoints.read_weights(folder), parameter_shapes(folder), folder, None)
  # Positions are stored for the pretraining resolution (518 pixels for the published models); resampling
  # them once here, in float32, keeps it out of the jitted forward pass.
  grid = image.size // network.sizes.patch_size
  stored = np.asarray(params[POSITIONS], np.float32)
  params[POSITIONS] = resampled(stored, grid, antialias=network.sizes.registers > 0)
  params = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), params)
  return Dinov2(network, params, image, checkpoints.fingerprint(folder))


def read_network(folder: Path, dtype: Any = jnp.float32) -> Dinov2Network:
  """Create the network that `config.json` in `folder` describes.

  Raises:
    RunError: the configuration is missing, damaged or of another model.
  """
  path = folder / "config.json"
  settings = Settings(checkpoints.read_json(path), path)
  refuse_other_models(settings, KINDS)
  return Dinov2Network(Dinov2Sizes.read(settings), dtype)


def parameter_shapes(folder: Path) -> weights.Params:
  """Return the shapes of the parameters of the DINOv2 whose `config.json` is in `folder`."""
  network = read_network(folder)
  size = network.sizes.image_size
  return weights.parameter_shapes(
    network.init, jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
  )


def image_input(folder: Path) -> ImageInput:
  """Return the image preprocessing; by default, resize the shorter side to 256 and crop to 224 pixels.

  Raises:
    RunError: the crop is not a multiple of the patch size, or a setting is not supported.
  """
  defaults = ImageInput(224, 256, mean=IMAGENET_MEAN, std=IMAGENET_STD)
  found = read_image_input(folder, defaults)
  patch = read_network(folder).sizes.patch_size
  if found.size % patch:
    raise RunError(
      f"{folder / 'preprocessor_config.json'} cuts {found.size} pixels: expected a multiple of the patch, {patch}."
    )
  return found
