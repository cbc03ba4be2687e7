"""Resample learned position embeddings of a square grid of patches for another image size."""

import jax
import numpy as np
from jax.image import ResizeMethod
from jaxtyping import Float32


def resampled(
  positions: Float32[np.ndarray, "1 n d"], grid: int, antialias: bool = False
) -> Float32[np.ndarray, "1 m d"]:
  """Resample the positions of the patches to `grid` x `grid`; the class token's stays unchanged.

  Args:
    positions: position embeddings of the class token and of a square of patches, row by row.
    grid: patches along a side.
    antialias: as in PyTorch's `interpolate`, whose bicubic kernel has a = -0.75 without antialiasing and
      a = -0.5 with it. DINOv2's published code does not use it; the variant with registers does.
  """
  own = round((positions.shape[1] - 1) ** 0.5)
  if own == grid:
    return positions
  patches = positions[0, 1:].reshape(own, own, -1)
  method = ResizeMethod.CUBIC if antialias else ResizeMethod.CUBIC_PYTORCH
  shape = (grid, grid, patches.shape[-1])
  # On the CPU, once at loading: accelerators multiply float32 at reduced precision by default.
  with jax.default_device(jax.local_devices(backend="cpu")[0]):
    moved = jax.image.resize(patches, shape, method, antialias=antialias)
  moved = np.asarray(moved, np.float32).reshape(1, grid * grid, -1)
  return np.concatenate([positions[:, :1], moved], axis=1)
