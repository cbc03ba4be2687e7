"""Stored images to features: decoding on threads while the device embeds."""

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from genbench_jax.clip.features import ImageEmbedder
from genbench_jax.clip.preprocess import Resize, preprocess
from genbench_jax.progress import Progress, say

THREADS = 4


def embed_encoded(
  embedder: ImageEmbedder,
  count: int,
  image: Callable[[int], bytes | Image.Image],
  resize: Resize,
  progress: Progress,
  what: str,
) -> tuple[Float32[np.ndarray, "n d"], UInt8[np.ndarray, "n"]]:
  """Features of `count` images, not normalised, and which of them could be read.

  An image that can't be decoded is named, counted, and has the features of a blank one.
  """
  valid = np.ones(count, np.uint8)
  with ThreadPoolExecutor(THREADS) as pool:
    batches = _decoded(embedder, count, image, resize, valid, what, pool)
    features = []
    for part in embedder.stream(batches):
      features.append(part)
      progress.advance(len(part))
  return np.concatenate(features), valid


def _decoded(
  embedder: ImageEmbedder,
  count: int,
  image: Callable[[int], bytes | Image.Image],
  resize: Resize,
  valid: UInt8[np.ndarray, "n"],
  what: str,
  pool: ThreadPoolExecutor,
) -> Iterator[Float32[np.ndarray, "b h w 3"]]:
  clip = embedder.clip
  blank = np.zeros((clip.image_size, clip.image_size, 3), np.float32)

  def pixels(index: int) -> Float32[np.ndarray, "h w 3"]:
    try:
      with _opened(image(index)) as opened:
        return preprocess(opened, clip.image_size, clip.image_mean, clip.image_std, resize)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
      valid[index] = 0
      say(f"{what}: image {index} can't be read and is left out ({error})")
      return blank

  for begin in range(0, count, embedder.batch_size):
    rows = range(begin, min(begin + embedder.batch_size, count))
    yield np.stack(list(pool.map(pixels, rows)))


def _opened(image: bytes | Image.Image) -> Image.Image:
  return Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
