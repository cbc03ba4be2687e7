"""Learned positions of a square of patches, resampled for images of another size."""

import jax
import numpy as np
from jax.image import ResizeMethod
from jaxtyping import Float32


def resampled(
  positions: Float32[np.ndarray, "1 n d"], grid: int, antialias: bool = False
) -> Float32[np.ndarray, "1 m d"]:
  """Return the positions of a class token, as it is, and of `grid` x `grid` patches.

  Args:
    positions: of the class token and of a square of patches, row by row.
    grid: patches along a side.
    antialias: as in PyTorch's `interpolate`, whose bicubic kernel has -0.75 without and -0.5 with antialiasing.
      DINOv2's published code takes it without, the variant with registers with.
  """
  own = round((positions.shape[1] - 1) ** 0.5)
  if own == grid:
    return positions
  patches = positions[0, 1:].reshape(own, own, -1)
  method = ResizeMethod.CUBIC if antialias else ResizeMethod.CUBIC_PYTORCH
  shape = (grid, grid, patches.shape[-1])
  # Once, when a checkpoint is loaded, and on the CPU: accelerators multiply float32 in fewer digits by default.
  with jax.default_device(jax.local_devices(backend="cpu")[0]):
    moved = jax.image.resize(patches, shape, method, antialias=antialias)
  moved = np.asarray(moved, np.float32).reshape(1, grid * grid, -1)
  return np.concatenate([positions[:, :1], moved], axis=1)
