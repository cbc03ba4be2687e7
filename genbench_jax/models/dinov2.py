"""DINOv2 checkpoints: another space for the distances between sets of images, that knows no text.

The Flax module is transformers' own. Two things of it are mended from outside: positions are resampled as PyTorch does
(Flax's bicubic kernel is another one), and the layers' scale counts once (Flax multiplies by the configuration's value twice).

Reference:
  Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", 2023 (arXiv 2304.07193).
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints, upstream
from genbench_jax.models.clip import compute_dtype

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# PyTorch's bicubic kernel; the usual one, of Keys, has -0.5.
SHARPNESS = -0.75


@dataclasses.dataclass(frozen=True, eq=False)
class Dinov2:
  """A DINOv2 ready to embed: the class token after the last norm.

  Attributes:
    module: the Flax module, for images of `image_size`.
    params: its parameters, on the host, in the dtype of the computation.
    image_size: side of the square images, in pixels.
    shorter: what the shorter side is scaled to before the square is cut from its center.
    image_mean, image_std: of the red, green and blue channel, in [0, 1].
    fingerprint: identity of the checkpoint.
  """

  module: Any
  params: checkpoints.Params
  image_size: int
  shorter: int
  image_mean: tuple[float, ...]
  image_std: tuple[float, ...]
  fingerprint: str

  @property
  def width(self) -> int:
    """Of its features."""
    return int(self.module.config.hidden_size)

  def embed_pixels(
    self, params: checkpoints.Params, pixels: Float[Array, "b h w 3"]
  ) -> Float[Array, "b d"]:
    """Image features, not normalized, of preprocessed pixels. Pure: made for `jax.jit`."""
    return self.module.apply({"params": params}, pixels).pooler_output.astype(jnp.float32)


def load_dinov2(folder: Path, dtype: Any = None) -> Dinov2:
  """Loads a DINOv2 from its folder in the Hugging Face layout.

  Raises:
    RunError: the checkpoint is incomplete, corrupt or of another architecture.
  """
  dtype = compute_dtype() if dtype is None else dtype
  size, shorter, mean, std = _preprocessing(folder)
  module = _module(folder, dtype, size)
  params = checkpoints.load_params(folder, parameter_shapes(folder))
  embeddings = params["embeddings"]
  grid = size // module.config.patch_size
  embeddings["position_embeddings"] = resampled(embeddings["position_embeddings"], grid)
  params = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), params)
  return Dinov2(module, params, size, shorter, mean, std, checkpoints.fingerprint(folder))


def parameter_shapes(folder: Path) -> checkpoints.Params:
  """The parameter tree of the DINOv2 whose `config.json` stands in `folder`, as shapes."""
  module = _module(folder, jnp.float32)
  size = module.config.image_size
  return checkpoints.shapes_of(module.init, jax.ShapeDtypeStruct((1, size, size, 3), np.float32))


def resampled(positions: Float32[np.ndarray, "1 n d"], grid: int) -> Float32[np.ndarray, "1 m d"]:
  """Position embeddings of a square of patches for another one, the class token's as it is.

  Bicubic without antialiasing, as `torch.nn.functional.interpolate(..., mode="bicubic")` in the published code.
  """
  own = round((positions.shape[1] - 1) ** 0.5)
  if own == grid:
    return positions
  weights = _bicubic(own, grid)
  patches = positions[0, 1:].reshape(own, own, -1)
  moved = np.einsum("ia,jb,abd->ijd", weights, weights, patches, optimize=True)
  moved = moved.reshape(1, grid * grid, -1).astype(np.float32)
  return np.concatenate([positions[:, :1], moved], axis=1)


def _bicubic(own: int, wanted: int) -> Float[np.ndarray, "wanted own"]:
  """What each of `wanted` points takes from `own` ones: four neighbors, those beyond the edge being the edge."""
  weights = np.zeros((wanted, own))
  for row in range(wanted):
    at = (row + 0.5) * own / wanted - 0.5
    for neighbor in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
      weights[row, min(max(neighbor, 0), own - 1)] += _kernel(abs(at - neighbor))
  return weights


def _kernel(x: float) -> float:
  a = SHARPNESS
  if x <= 1:
    return (a + 2) * x**3 - (a + 3) * x**2 + 1
  return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def _module(folder: Path, dtype: Any, image_size: int | None = None) -> Any:
  upstream.silence()
  from transformers import Dinov2Config, FlaxDinov2Model

  config = checkpoints.read_json(folder / "config.json")
  if config.get("model_type") != "dinov2":
    raise RunError(f"{folder} holds a model of type {config.get('model_type')!r}, not 'dinov2'.")
  config |= {"layerscale_value": 1.0} | ({"image_size": image_size} if image_size else {})
  return FlaxDinov2Model.module_class(Dinov2Config.from_dict(config), dtype=dtype)


def crop_size(folder: Path) -> int:
  """Side of the images that the DINOv2 in `folder` takes."""
  return _preprocessing(folder)[0]


def _preprocessing(folder: Path) -> tuple[int, int, tuple[float, ...], tuple[float, ...]]:
  """Side, shorter side before the cut, mean and std, from `preprocessor_config.json`."""
  path = folder / "preprocessor_config.json"
  config = checkpoints.read_json(path) if path.is_file() else {}
  size = _side(config.get("crop_size", 224), "height")
  shorter = _side(config.get("size", 256), "shortest_edge")
  patch = checkpoints.read_json(folder / "config.json").get("patch_size", 14)
  if size % patch or shorter < size:
    raise RunError(
      f"{path} scales to {shorter} and cuts {size} pixels: wanted a multiple of the patch, {patch}, and no more than the scale."
    )
  mean, std = config.get("image_mean", IMAGENET_MEAN), config.get("image_std", IMAGENET_STD)
  return size, shorter, tuple(map(float, mean)), tuple(map(float, std))


def _side(given: Any, key: str) -> int:
  side: Any = given.get(key, given.get("height", 0)) if isinstance(given, dict) else given
  return int(side)
