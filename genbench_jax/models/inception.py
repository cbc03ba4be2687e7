"""Load the Inception-v3 of FID, from safetensors.

The published file is a pickle, which is never opened here. `tools/convert_inception.py` converts it to
safetensors with a reader that accepts only tensors.
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
from genbench_jax.store.image_files import visible

# (x - 128) / 128 for x in 0..255, expressed for pixels in 0..1.
HALF = (128 / 255, 128 / 255, 128 / 255)
INPUT = ImageInput(SIDE, keep_aspect=False, mean=HALF, std=HALF, ways=("clean", "legacy"))
# PyTorch's step counters of batch norms; no result depends on them.
COUNTERS = r"\.num_batches_tracked$"


@dataclasses.dataclass(frozen=True, eq=False)
class Inception:
  """An Inception-v3 with its parameters: 2,048 features or 1,008 logits per image.

  Attributes:
    network: the network.
    params: its parameters, on the host.
    fingerprint: digest of the checkpoint.
    input: image preprocessing: `clean` or `legacy`, see `embedding.fid_resize`.
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
    """Compute unnormalized image features of preprocessed pixels. Pure, for `jax.jit`."""
    return self.outputs(params, pixels).features

  def outputs(self, params: weights.Params, pixels: Float[Array, "b 299 299 3"]) -> InceptionOutput:
    """Compute features and logits.

    On CPU, images are computed one after another: activations of a single image fit into the cache, which saves
    a quarter of the time.
    """
    if jax.default_backend() != "cpu":
      return self._network_outputs(params, pixels)
    alone = lambda image: self._network_outputs(params, image[None])  # noqa: E731
    return jax.tree.map(lambda found: found[:, 0], jax.lax.map(alone, pixels))

  def _network_outputs(
    self, params: weights.Params, pixels: Float[Array, "b 299 299 3"]
  ) -> InceptionOutput:
    found = self.network.apply({"params": params}, pixels)
    assert isinstance(found, InceptionOutput)
    return found


def load_inception(place: Path, dtype: Any = None) -> Inception:
  """Load an Inception-v3 from a safetensors file, or from a folder that contains one.

  Computes in float32 on every device, as FID implementations do, unless another dtype is given.

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
  """Return the shapes of the parameters."""
  pixels = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), np.float32)
  return weights.parameter_shapes(InceptionNetwork().init, pixels)


def _file(place: Path) -> Path:
  if place.is_file():
    if place.suffix != ".safetensors":
      raise RunError(
        f"{place} is no safetensors file; pickles are never opened: convert it with tools/convert_inception.py."
      )
    return place
  found = visible(place, "**/*.safetensors")  # the hub repository keeps it in a subfolder
  if len(found) != 1:
    raise RunError(
      f"{place} has {len(found)} safetensors files, expected one, with Inception's weights."
    )
  return found[0]
