"""Inception-v3 of the FID papers, from safetensors.

The published file is a pickle, which is never opened here: `tools/convert_inception.py` writes it as safetensors with a reader
that admits tensors and nothing else.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints, weights
from genbench_jax.models.image_input import ImageInput
from genbench_jax.models.inception_network import FEATURES, SIDE, InceptionNetwork, InceptionOutput

# (0..255 - 128) / 128, written for pixels in 0..1.
HALF = (128 / 255, 128 / 255, 128 / 255)
INPUT = ImageInput(SIDE, keep_aspect=False, mean=HALF, std=HALF, ways=("clean", "legacy"))
# Steps that batch norms counted in training.
COUNTERS = r"\.num_batches_tracked$"


@dataclasses.dataclass(frozen=True, eq=False)
class Inception:
  """An Inception-v3 ready to embed: 2,048 features, or 1,008 logits.

  Attributes:
    network: the network.
    params: its parameters, on the host.
    fingerprint: identity of the checkpoint.
    input: how it takes images: `clean` or `legacy`, see `embedding.fid_resize`.
  """

  network: InceptionNetwork
  params: weights.Params
  fingerprint: str
  input: ImageInput = INPUT

  @property
  def width(self) -> int:
    """Width of the features."""
    return FEATURES

  def embed_pixels(
    self, params: weights.Params, pixels: Float[Array, "b 299 299 3"]
  ) -> Float[Array, "b 2048"]:
    """Image features, not normalized, of preprocessed pixels. Pure: made for `jax.jit`."""
    return self.outputs(params, pixels).features

  def embed_logits(
    self, params: weights.Params, pixels: Float[Array, "b 299 299 3"]
  ) -> Float[Array, "b 1008"]:
    """Logits of the classes, for the Inception score. Pure: made for `jax.jit`."""
    return self.outputs(params, pixels).logits

  def outputs(self, params: weights.Params, pixels: Float[Array, "b 299 299 3"]) -> InceptionOutput:
    """Features and logits."""
    found = self.network.apply({"params": params}, pixels)
    assert isinstance(found, InceptionOutput)
    return found


def load_inception(place: Path, dtype: Any = None) -> Inception:
  """Load an Inception-v3 from a safetensors file, or from the folder that holds it.

  It is computed in float32 on every device, as in the papers, unless another dtype is asked for.

  Raises:
    RunError: the file is missing, corrupt or of another network.
  """
  dtype = jnp.float32 if dtype is None else dtype
  path = _file(place)
  network = InceptionNetwork(dtype)
  params = weights.load(
    checkpoints.read_safetensors(path), parameter_shapes(), path, np.float32, COUNTERS
  )
  with path.open("rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
  return Inception(network, params, digest)


def parameter_shapes() -> weights.Params:
  """The parameter tree, as shapes."""
  pixels = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), np.float32)
  return weights.parameter_shapes(InceptionNetwork().init, pixels)


def _file(place: Path) -> Path:
  if place.is_file():
    if place.suffix != ".safetensors":
      raise RunError(
        f"{place} is no safetensors file; pickles are never opened: convert it with tools/convert_inception.py."
      )
    return place
  found = sorted(place.rglob("*.safetensors"))  # the hub's stands in a folder of its own
  if len(found) != 1:
    raise RunError(f"{place} has {len(found)} safetensors files, wanted one: Inception's weights.")
  return found[0]
