"""Features of stored images, through the input pipeline."""

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
  """Return how an encoder takes the images of a dataset."""
  return Preprocessing(encoder.input, resize)


def embed_stored(
  embedder: ImageEmbedder,
  images: Images,
  rows: Sequence[int],
  resize: Resize,
  progress: Progress,
  what: str,
) -> tuple[Float32[np.ndarray, "n d"], UInt8[np.ndarray, "n"]]:
  """Compute the features of stored images, not normalized.

  An image that cannot be decoded is logged and gets the features of a blank image.

  Args:
    embedder: image encoder on a mesh.
    images: stored images.
    rows: indices to embed, in order.
    resize: resize method.
    progress: advanced by the number of finished images.
    what: name of the images for the log.

  Returns:
    Features [n, d], and 1 for each image that could be read, else 0.
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
    # The last batch is padded; count real images only.
    progress.advance(len(part) - max(0, done - len(rows)))
  read = np.concatenate(valid)[: len(rows)].astype(np.uint8)
  return np.concatenate(features)[: len(rows)], read


def refuse_non_finite(embeddings: EmbeddingSet, name: str) -> None:
  """Reject features with NaN or infinite values.

  Raises:
    ModelError: there are some; the message names the first rows.
  """
  bad = np.flatnonzero(~np.isfinite(embeddings.features).all(axis=1))
  if len(bad):
    rows = ", ".join(str(row) for row in embeddings.ids[bad[:5]])
    more = "" if len(bad) <= 5 else ", ..."
    raise ModelError(
      f"{name}: the encoder returned NaN or infinity for {len(bad)} of {len(embeddings)} rows ({rows}{more})."
    )
