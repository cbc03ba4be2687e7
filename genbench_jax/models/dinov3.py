"""Load DINOv3 checkpoints: image features without a text encoder, for distances between image sets."""

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
from genbench_jax.models.dinov3_network import Dinov3Network, Dinov3Sizes
from genbench_jax.models.image_input import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  ImageInput,
  read_image_input,
)
from genbench_jax.models.layers import compute_dtype


@dataclasses.dataclass(frozen=True, eq=False)
class Dinov3:
  """A DINOv3 model with its parameters and preprocessing. Features are the normed class token.

  Attributes:
    network: the network.
    params: its parameters, on the host, in the dtype of the computation.
    input: image preprocessing.
    fingerprint: digest of the checkpoint.
  """

  network: Dinov3Network
  params: weights.Params
  input: ImageInput
  fingerprint: str

  @property
  def width(self) -> int:
    """Width of the features."""
    return self.network.sizes.width

  def embed_pixels(
    self, params: weights.Params, pixels: Float[Array, "b h w 3"]
  ) -> Float[Array, "b d"]:
    """Compute unnormalized image features of preprocessed pixels. Pure, for `jax.jit`."""
    return jnp.asarray(self.network.apply({"params": params}, pixels))


def load_dinov3(folder: Path, dtype: Any = None) -> Dinov3:
  """Load a DINOv3 vision transformer from its folder in the Hugging Face layout.

  Images are resized in 8 bits, as in the published code. transformers resizes in floating point; the
  results differ by at most half a step of 255.

  Raises:
    RunError: the checkpoint is incomplete, corrupt or of another architecture.
  """
  dtype = compute_dtype() if dtype is None else dtype
  network = read_network(folder, dtype)
  image = image_input(folder)
  tensors, shapes = checkpoints.read_weights(folder), parameter_shapes(folder)
  params = weights.load(tensors, shapes, folder, dtype)
  return Dinov3(network, params, image, checkpoints.fingerprint(folder))


def read_network(folder: Path, dtype: Any = jnp.float32) -> Dinov3Network:
  """Create the network that `config.json` in `folder` describes.

  Raises:
    RunError: the configuration is missing, damaged or of another model.
  """
  path = folder / "config.json"
  settings = Settings(checkpoints.read_json(path), path)
  refuse_other_models(settings, ("dinov3_vit",))
  return Dinov3Network(Dinov3Sizes.read(settings), dtype)


def parameter_shapes(folder: Path) -> weights.Params:
  """Return the shapes of the parameters of the DINOv3 whose `config.json` is in `folder`."""
  network = read_network(folder)
  size = network.sizes.patch_size  # rotary positions: parameters do not depend on the image size
  return weights.parameter_shapes(
    network.init, jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
  )


def image_input(folder: Path) -> ImageInput:
  """Return the image preprocessing; by default, resize both sides bilinearly to the training resolution.

  Raises:
    RunError: the crop is not a multiple of the patch size, or a setting is not supported.
  """
  sizes = read_network(folder).sizes
  defaults = ImageInput(
    sizes.image_size,
    keep_aspect=False,
    filter="bilinear",
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
  )
  found = read_image_input(folder, defaults)
  if found.size % sizes.patch_size:
    raise RunError(
      f"{folder / 'preprocessor_config.json'} cuts {found.size} pixels: expected a multiple of the patch, {sizes.patch_size}."
    )
  return found
