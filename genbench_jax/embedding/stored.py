"""Stored images to features: decoding ahead of the device, through the one input pipeline."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from genbench_jax.embedding.embedder import ImageEmbedder
from genbench_jax.embedding.input_pipeline import Images, Preprocessing, image_batches
from genbench_jax.embedding.preprocess import Resize
from genbench_jax.errors import ModelError
from genbench_jax.models.image_encoder import ImageEncoder
from genbench_jax.runtime.progress import Progress
from genbench_jax.store.embedding_set import EmbeddingSet


def preprocessing_of(encoder: ImageEncoder, resize: Resize) -> Preprocessing:
  """How an encoder takes the images of a dataset."""
  return Preprocessing(encoder.input, resize)


def embed_stored(
  embedder: ImageEmbedder,
  images: Images,
  rows: Sequence[int],
  resize: Resize,
  progress: Progress,
  what: str,
) -> tuple[Float32[np.ndarray, "n d"], UInt8[np.ndarray, "n"]]:
  """Features of the images of the given rows, not normalized, and which of them could be read.

  An image that can't be decoded is named in the log and has the features of a blank one.
  """
  if not len(rows):
    return np.zeros((0, embedder.encoder.width), np.float32), np.zeros(0, np.uint8)
  preprocessing, valid = preprocessing_of(embedder.encoder, resize), []

  def pixels() -> Iterator[Float32[np.ndarray, "b h w 3"]]:
    for batch in image_batches(images, preprocessing, embedder.batch_size, rows=rows, what=what):
      valid.append(batch.valid)
      yield batch.pixels

  features: list[Float32[np.ndarray, "b d"]] = []
  for part in embedder.stream(pixels()):
    features.append(part)
    done = sum(map(len, features))
    progress.advance(len(part) - max(0, done - len(rows)))
  read = np.concatenate(valid)[: len(rows)].astype(np.uint8)
  return np.concatenate(features)[: len(rows)], read


def refuse_non_finite(embeddings: EmbeddingSet, name: str) -> None:
  """Stops where an encoder gave anything but numbers.

  Raises:
    ModelError: it names the first such rows.
  """
  bad = np.flatnonzero(~np.isfinite(embeddings.features).all(axis=1))
  if len(bad):
    rows = ", ".join(str(row) for row in embeddings.ids[bad[:5]])
    raise ModelError(
      f"{name}: the encoder gave NaN or infinity for {len(bad)} of {len(embeddings)} rows ({rows}{'' if len(bad) <= 5 else ', ...'})."
    )
