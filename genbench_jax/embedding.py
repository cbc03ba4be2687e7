"""Stored images to features: decoding ahead of the device, through the one input pipeline."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32, UInt8

from genbench_jax.benchmark.input_pipeline import Images, Preprocessing, image_batches
from genbench_jax.clip.features import ImageEmbedder
from genbench_jax.clip.preprocess import Resize
from genbench_jax.errors import RunError
from genbench_jax.progress import Progress


def embed_stored(
  embedder: ImageEmbedder, images: Images, resize: Resize, progress: Progress, what: str
) -> tuple[Float32[np.ndarray, "n d"], UInt8[np.ndarray, "n"]]:
  """Features of all images, not normalised, and which of them could be read.

  An image that can't be decoded is named in the log and has the features of a blank one.
  """
  clip, valid = embedder.clip, []
  preprocessing = Preprocessing(clip.image_size, clip.image_mean, clip.image_std, resize)

  def pixels() -> Iterator[Float32[np.ndarray, "b h w 3"]]:
    for batch in image_batches(images, preprocessing, embedder.batch_size, what=what):
      valid.append(batch.valid)
      yield batch.pixels

  features = []
  for part in embedder.stream(pixels()):
    features.append(part)
    progress.advance(min(len(part), len(images) - progress.done))
  read = np.concatenate(valid)[: len(images)].astype(np.uint8)
  return np.concatenate(features)[: len(images)], read


def refuse_non_finite(features: Float32[np.ndarray, "n d"], what: str) -> None:
  """Stops where an encoder gave anything but numbers.

  Raises:
    RunError: it says of how many rows.
  """
  bad = int((~np.isfinite(features)).any(axis=1).sum())
  if bad:
    raise RunError(f"{what}: the encoder gave NaN or infinity for {bad} of {len(features)} rows.")
