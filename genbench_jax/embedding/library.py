"""Features of images and texts in one call, without a config."""

import functools
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, UnidentifiedImageError

from genbench_jax.embedding.embedder import ImageEmbedder, fitting_batch, text_features
from genbench_jax.embedding.preprocess import Resize, pixels_of
from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.models import checkpoints
from genbench_jax.models.image_encoder import ImageEncoder, load_image_encoder, with_texts
from genbench_jax.store.image_files import MOST_BYTES, image_formats
from genbench_jax.store.reading import read_file

# Images of one call may differ in size, so that their axes bind no names.
AnyImage: TypeAlias = (
  UInt8[np.ndarray, "_ _ 3"] | UInt8[np.ndarray, "_ _"] | Image.Image | str | os.PathLike[str]
)
AnyImages: TypeAlias = Sequence[AnyImage] | UInt8[np.ndarray, "_ _ _ 3"]
Checkpoint: TypeAlias = str | os.PathLike[str]


def _loaded(checkpoint: str, revision: str | None) -> ImageEncoder:
  """Return the last encoder, or load another; one whose files have changed is another."""
  return _loaded_once(checkpoint, revision, checkpoints.file_states(checkpoint))


@functools.lru_cache(maxsize=1)
def _loaded_once(checkpoint: str, revision: str | None, unchanged: Any) -> ImageEncoder:
  return load_image_encoder(checkpoint, revision)


def forget_encoder() -> None:
  """Release the encoder of the last call."""
  _loaded_once.cache_clear()


def open_image(image: AnyImage) -> Image.Image:
  """Return a PIL image from a uint8 array [h, w, 3] or [h, w], a path, or a PIL image.

  Raises:
    UsageError: the array has another dtype or shape, or the file cannot be read as an image.
  """
  if isinstance(image, Image.Image):
    return image
  if isinstance(image, str | os.PathLike):
    return _open_file(Path(image))
  array = np.asarray(image)
  if array.dtype != np.uint8 or array.shape[2:] not in ((), (3,)) or array.ndim < 2:
    raise UsageError(f"an image must be uint8 [h, w, 3], got {array.dtype} {list(array.shape)}.")
  return Image.fromarray(array)


def _open_file(path: Path) -> Image.Image:
  try:
    content = read_file(path.expanduser(), MOST_BYTES, follow=True)
    with Image.open(io.BytesIO(content), formats=image_formats()) as image:
      image.load()
      return image
  except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
    raise UsageError(f"{path} can't be read as an image: {error}.") from error


def embed_images(
  images: AnyImages | AnyImage,
  checkpoint: Checkpoint,
  revision: str | None = None,
  resize: Resize | None = None,
) -> Float32[np.ndarray, "n d"]:
  """Compute image features with any encoder; they are not normalized.

  The encoder stays in memory for the next call; `gb.forget_models` releases it.

  Args:
    images: uint8 arrays of any size, paths, or PIL images; a single one is a batch of one.
    checkpoint: folder or hub id of a CLIP, SigLIP, DINOv2 or DINOv3 in the Hugging Face layout, or
      the name of a registered encoder.
    revision: commit, tag or branch of a hub id.
    resize: `crop`, the encoder's own method, or `squash`, which scales both sides to its square.
      For Inception `clean`, as in clean-fid, or `legacy`, as in the reference code of FID. None
      takes the first method of the encoder.

  Raises:
    UsageError: an image cannot be read, the checkpoint does not exist, or the encoder does not
      support the resize method.
    RunError: the checkpoint is incomplete, corrupt or of another architecture.
  """
  images = _as_sequence(images)
  encoder = _loaded(str(checkpoint), revision)
  embedder = _embedder(encoder, len(images))
  return _embedded(images, embedder, resize)


def _embedded(
  images: AnyImages, embedder: ImageEmbedder, resize: Resize | None
) -> Float32[np.ndarray, "n d"]:
  """Compute the features of images that are decoded on threads while the device computes."""
  encoder = embedder.encoder
  ways = encoder.input.ways
  if resize is not None and resize not in ways:
    raise unknown_name("resize method for this encoder", resize, ways)
  way: Any = resize or ways[0]

  def pixels(image: AnyImage) -> Float32[np.ndarray, "h w 3"]:
    return pixels_of(open_image(image), encoder.input, way)

  def batches() -> Iterator[Float32[np.ndarray, "n h w 3"]]:
    with ThreadPoolExecutor() as pool:
      for start in range(0, len(images), embedder.batch_size):
        yield np.stack(list(pool.map(pixels, images[start : start + embedder.batch_size])))

  none = np.zeros((0, encoder.width), np.float32)
  return np.concatenate([none, *embedder.stream(batches())])


def _as_sequence(images: Any) -> AnyImages:
  """Return a sequence of images: wrap a single path or array, whose items are not images."""
  is_one = isinstance(images, str | os.PathLike | Image.Image)
  if isinstance(images, np.ndarray):
    is_one = images.ndim == 2 or (images.ndim == 3 and images.shape[-1] == 3)
  return [images] if is_one else images


def _embedder(encoder: ImageEncoder, images: int) -> ImageEmbedder:
  devices = ImageEmbedder(encoder).mesh.size
  return ImageEmbedder(encoder, batch_per_device=fitting_batch(images, devices, 32) // devices)


def embed_texts(
  texts: str | Sequence[str], checkpoint: Checkpoint, revision: str | None = None
) -> Float32[np.ndarray, "n d"]:
  """Compute text features with a CLIP or SigLIP; they are not normalized.

  The encoder stays in memory for the next call; `gb.forget_models` releases it.

  Args:
    texts: texts, or a single one; texts that exceed the model's context are truncated.
    checkpoint: folder or hub id of a CLIP or SigLIP in the Hugging Face layout.
    revision: commit, tag or branch of a hub id.

  Raises:
    UsageError: the checkpoint does not exist, or an item is not a string.
    RunError: the checkpoint has no text tower.
  """
  texts = [texts] if isinstance(texts, str) else list(texts)
  for text in texts:
    if not isinstance(text, str):
      raise UsageError(f"a text must be a string, got {type(text).__name__}: {text!r:.60}.")
  encoder = _loaded(str(checkpoint), revision)
  return text_features(with_texts(encoder, str(checkpoint)), texts)
