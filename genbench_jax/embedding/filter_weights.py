"""The weights of PIL's resizing filters, as matrices."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Float64

# PIL stores its filter weights in fixed point with 22 fractional bits.
PRECISION = 1 << 22


def _bicubic(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
  """Evaluate Keys' cubic convolution kernel with a = -1/2 (1981)."""
  x = np.abs(x)
  near = (1.5 * x - 2.5) * x * x + 1
  far = ((-0.5 * x + 2.5) * x - 4) * x + 2
  return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _box(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
  return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _bilinear(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
  return np.maximum(1 - np.abs(x), 0)


def _hamming(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
  """Evaluate a sinc with a Hamming window."""
  return np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0.0)


def _lanczos(x: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
  """Evaluate a sinc windowed by the main lobe of a sinc three times as wide."""
  return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


# Filter -> radius in pixels of the coarser grid, and kernel.
_KERNELS: dict[str, tuple[float, Callable[..., Float64[np.ndarray, "..."]]]] = {
  "box": (0.5, _box),
  "bilinear": (1.0, _bilinear),
  "hamming": (1.0, _hamming),
  "bicubic": (2.0, _bicubic),
  "lanczos": (3.0, _lanczos),
}


def filter_weights(length: int, size: int, name: str) -> Float32[np.ndarray, "size length"]:
  """Return the weights of the source pixels: antialiased, rounded like PIL's.

  Args:
    length: number of source pixels along an axis.
    size: number of resized pixels.
    name: name of the filter.
  """
  if length == size:  # PIL skips an axis that keeps its length
    return np.eye(size, dtype=np.float32)
  scale = length / size
  centers = (np.arange(size)[:, None] + 0.5) * scale
  pixels = np.arange(length)[None]
  if name == "nearest":
    return (np.floor(centers) == pixels).astype(np.float32)
  reach, kernel = _KERNELS[name]
  # Antialiasing: when shrinking, the filter is stretched to cover the source pixels of one output
  # pixel.
  stretch = max(scale, 1.0)
  first = np.floor(np.maximum(centers - reach * stretch + 0.5, 0))
  last = np.floor(np.minimum(centers + reach * stretch + 0.5, length))
  weights = np.where(
    (first <= pixels) & (pixels < last), kernel((pixels - centers + 0.5) / stretch), 0.0
  )
  weights /= weights.sum(axis=1, keepdims=True)
  return (np.round(weights * PRECISION) / PRECISION).astype(np.float32)
