"""The one way of images to the encoder: stored bytes, decoded, as CLIP takes them, in padded batches.

Original, generated, retrieved and user images go through it alike. Grain decodes on threads or in worker
processes (started anew, never forked: JAX has threads) while the device computes. No TensorFlow.
"""

import dataclasses
import gc
import io
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from absl import flags
from jaxtyping import Bool, Float32, Int
from PIL import Image

from genbench_jax.embedding.preprocess import Resize, square_pixels, to_rgb
from genbench_jax.models.image_input import ImageInput
from genbench_jax.runtime.progress import say
from genbench_jax.store.image_files import image_formats

THREADS = 4
# Images that are decoded and handed over together, at most: few enough to bound the memory.
_CHUNK = 16
# Chunks that wait to be taken, in each process.
_CHUNKS_AHEAD = 4
# What PIL raises at damaged or hostile files: its decoders have dozens of ways, struct.error and IndexError among them.
_UNREADABLE = Exception
_PADDING = -1


@runtime_checkable
class Images(Protocol):
  """Stored images by index; can be pickled if worker processes are to read them."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> bytes | Image.Image: ...


@dataclasses.dataclass(frozen=True)
class Batch:
  """A batch of images, always of the same size: the last one is padded.

  Attributes:
    pixels: as CLIP takes them; zero where there is no valid image.
    index: which of the images each is; -1 where the batch is padded.
    valid: True for an image that could be decoded; False for a corrupt one, and for padding.
  """

  pixels: Float32[np.ndarray, "b h w 3"]
  index: Int[np.ndarray, "b"]
  valid: Bool[np.ndarray, "b"]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """How an encoder takes the images of a dataset.

  Attributes:
    how: what the encoder asks for.
    resize: `crop` or `squash`, as in the dataset's spec.
  """

  how: ImageInput
  resize: Resize = "crop"

  @property
  def size(self) -> int:
    """Side in pixels."""
    return self.how.size


def image_batches(
  images: Images,
  preprocessing: Preprocessing,
  batch_size: int,
  *,
  rows: Sequence[int] | None = None,
  workers: int = 0,
  threads: int = THREADS,
  what: str = "images",
) -> Iterator[Batch]:
  """Decoded batches, in order, made ahead of their use.

  A corrupt image is named in the log, comes as zeros and is not `valid`: it stops nothing and is never
  trained on.

  Args:
    images: what is read.
    preprocessing: what the encoder asks for.
    batch_size: images in each batch; the last one is padded to it.
    rows: which images, in which order; by default all. Hosts share a dataset by taking different ones.
    workers: processes that decode; 0 decodes on threads of this one, which is as fast on few cores.
    threads: that decode, in each process.
    what: what the images are, for the log.
  """
  order = np.arange(len(images)) if rows is None else np.asarray(rows, np.int64)
  chunk = math.gcd(batch_size, _CHUNK)
  parts = _decoded(_Decoder(images, order, chunk, preprocessing), workers, threads)
  while batch := _next_batch(parts, batch_size // chunk, batch_size):
    for index in batch.index[~batch.valid & (batch.index != _PADDING)]:
      say(f"{what}: image {index} can't be read and is left out ({_reason(images, int(index))})")
    yield batch


@dataclasses.dataclass(frozen=True)
class _Decoder:
  """Makes a chunk of images ready, in whatever thread or process."""

  images: Images
  order: Int[np.ndarray, "n"]
  chunk: int
  preprocessing: Preprocessing

  def __call__(self, start: int) -> dict[str, np.ndarray]:
    index = self.order[start : start + self.chunk]
    size = self.preprocessing.size
    pixels = np.empty((len(index), size, size, 3), np.float32)
    valid = np.array([self._decode(int(i), out) for i, out in zip(index, pixels, strict=True)])
    normalize(pixels, self.preprocessing)
    pixels[~valid] = 0
    return {"pixels": pixels, "index": index, "valid": valid}

  def _decode(self, index: int, out: Float32[np.ndarray, "h w 3"]) -> bool:
    """Writes the pixels of an image, 0 to 255; says whether it could be read."""
    try:
      with opened(self.images[index]) as image:
        out[:] = square_pixels(to_rgb(image), self.preprocessing.how, self.preprocessing.resize)
    except _UNREADABLE:
      out[:] = 0
      return False
    return True


def normalize(pixels: Float32[np.ndarray, "b h w 3"], preprocessing: Preprocessing) -> None:
  """Turns pixels of 0 to 255 in place into what the encoder takes, to the bit as `preprocess` does.

  Whole rows at a time: four times as fast as channels of three.
  """
  width = pixels.shape[2]
  rows = pixels.reshape(*pixels.shape[:2], 3 * width)
  rows /= np.float32(255)
  rows -= np.tile(np.asarray(preprocessing.how.mean, np.float32), width)
  rows /= np.tile(np.asarray(preprocessing.how.std, np.float32), width)


def _decoded(decoder: _Decoder, workers: int, threads: int) -> Iterator[dict[str, np.ndarray]]:
  """The chunks in order."""
  import grain

  starts = range(0, len(decoder.order), decoder.chunk)
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_CHUNKS_AHEAD)
  dataset = grain.MapDataset.source(starts).map(decoder).to_iter_dataset(options)
  return _from_processes(dataset, workers) if workers else iter(dataset)


def _from_processes(dataset: Any, workers: int) -> Iterator[dict[str, np.ndarray]]:
  import grain

  # Grain reads absl's flags when it starts a worker, and this may be no absl program.
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=_CHUNKS_AHEAD)
  yield from dataset.mp_prefetch(options)
  # What each worker sent last hangs in a cycle of Grain's frames: at exit its shared memory would be left behind.
  gc.collect()


def opened(image: bytes | Image.Image) -> Image.Image:
  """A stored image, opened but not yet decoded."""
  return (
    Image.open(io.BytesIO(image), formats=image_formats()) if isinstance(image, bytes) else image
  )


def _reason(images: Images, index: int) -> str:
  """Why an image can't be read: worker processes don't say."""
  try:
    with opened(images[index]) as image:
      image.load()
  except _UNREADABLE as error:
    return str(error)
  return "it can be decoded but not converted"


def _next_batch(
  parts: Iterator[dict[str, np.ndarray]], chunks: int, batch_size: int
) -> Batch | None:
  """The next chunks as one batch. Theirs may be shared memory of a worker: nothing here holds on to it."""
  gathered = list(itertools.islice(parts, chunks))
  return _padded(gathered, batch_size) if gathered else None


def _padded(parts: Sequence[dict[str, np.ndarray]], batch_size: int) -> Batch:
  """The chunks as one batch, padded."""
  # Imported here: worker processes import this module and need no JAX.
  from genbench_jax.runtime.mesh import pad_rows

  pixels, index, valid = (
    np.concatenate([part[key] for part in parts]) for key in ("pixels", "index", "valid")
  )
  missing = batch_size - len(index)
  if not missing:
    return Batch(pixels, index, valid)
  return Batch(
    pad_rows(pixels, batch_size),
    np.concatenate([index, np.full(missing, _PADDING)]),
    pad_rows(valid, batch_size),
  )
