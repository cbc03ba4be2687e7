"""Input pipeline of the image encoders: decode, preprocess, and pad into batches.

Original, generated, retrieved and user images share it. Grain decodes on threads or in worker
processes while the device computes. Workers are spawned, not forked, because JAX is multithreaded.
TensorFlow is not used.
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

from genbench_jax.embedding.preprocess import Resize, square_pixels
from genbench_jax.models.image_input import ImageInput
from genbench_jax.runtime.progress import say
from genbench_jax.store.image_files import decoding_fault, image_formats
from genbench_jax.store.image_pixels import to_rgb

THREADS = 4
# Images decoded per work item; small, to bound the memory.
_CHUNK = 16
# Finished chunks to buffer, per process.
_CHUNKS_AHEAD = 4
# PIL decoders raise dozens of exception types on damaged files, among them struct.error and
# IndexError.
_UNREADABLE = Exception
_PADDING = -1


@runtime_checkable
class Images(Protocol):
  """Stored images by index. Must be picklable to be read by worker processes."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> bytes | Image.Image: ...


@dataclasses.dataclass(frozen=True)
class Batch:
  """A batch of fixed size; the last one is padded.

  Attributes:
    pixels: preprocessed pixels; zero where no image is valid.
    index: index of each image; -1 for padding.
    valid: True for a decoded image; False for a corrupt one and for padding.
  """

  pixels: Float32[np.ndarray, "b h w 3"]
  index: Int[np.ndarray, "b"]
  valid: Bool[np.ndarray, "b"]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """How an encoder takes the images of a dataset.

  Attributes:
    how: image input of the encoder.
    resize: resize method from the dataset's spec.
  """

  how: ImageInput
  resize: Resize = "crop"

  @property
  def size(self) -> int:
    """Side of the input in pixels."""
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
  """Yield preprocessed batches in order, decoded ahead of their use.

  A corrupt image is logged, yields zero pixels and is not `valid`. It does not stop the pipeline,
  and training ignores it.

  Args:
    images: images to read.
    preprocessing: image input of the encoder.
    batch_size: images per batch; the last batch is padded to it.
    rows: indices to read, in order; None for all. Hosts share a dataset by taking different rows.
    workers: decoding processes; 0 decodes on threads of this process, which is as fast on few
      cores.
    threads: decoding threads per process.
    what: name of the images for the log.
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
  """Decodes and preprocesses one chunk, in any thread or process."""

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
    """Write the pixels of an image, 0 to 255, to `out`; return whether it could be read."""
    try:
      with opened(self.images[index]) as image:
        out[:] = square_pixels(to_rgb(image), self.preprocessing.how, self.preprocessing.resize)
    except _UNREADABLE:
      out[:] = 0
      return False
    return True


def normalize(pixels: Float32[np.ndarray, "b h w 3"], preprocessing: Preprocessing) -> None:
  """Normalize pixels of 0 to 255 in place, bit-identical to `preprocess.pixels_of`.

  Working on whole rows of 3 * width values is four times as fast as broadcasting over three
  channels.
  """
  width = pixels.shape[2]
  rows = pixels.reshape(*pixels.shape[:2], 3 * width)
  rows /= np.float32(255)
  rows -= np.tile(np.asarray(preprocessing.how.mean, np.float32), width)
  rows /= np.tile(np.asarray(preprocessing.how.std, np.float32), width)


def _decoded(decoder: _Decoder, workers: int, threads: int) -> Iterator[dict[str, np.ndarray]]:
  """Yield the decoded chunks in order."""
  import grain

  starts = range(0, len(decoder.order), decoder.chunk)
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_CHUNKS_AHEAD)
  dataset = grain.MapDataset.source(starts).map(decoder).to_iter_dataset(options)
  return _from_processes(dataset, workers) if workers else iter(dataset)


def _from_processes(dataset: Any, workers: int) -> Iterator[dict[str, np.ndarray]]:
  import grain

  # Grain reads absl flags when it starts a worker; outside an absl program they are not parsed yet.
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=_CHUNKS_AHEAD)
  yield from dataset.mp_prefetch(options)
  # A reference cycle in Grain's frames keeps the last chunk of each worker. Without a collection,
  # its shared memory leaks at exit.
  gc.collect()


def opened(image: bytes | Image.Image) -> Image.Image:
  """Open a stored image without decoding it."""
  return (
    Image.open(io.BytesIO(image), formats=image_formats()) if isinstance(image, bytes) else image
  )


def _reason(images: Images, index: int) -> str:
  """Return why an image cannot be read, by decoding it again: workers do not report the reason."""
  try:
    with opened(images[index]) as image:
      image.load()
  except _UNREADABLE as error:
    return decoding_fault(error)
  return "it can be decoded but not converted"


def _next_batch(
  parts: Iterator[dict[str, np.ndarray]], chunks: int, batch_size: int
) -> Batch | None:
  """Return the next chunks as one batch, copied: they may be shared memory of a worker."""
  gathered = list(itertools.islice(parts, chunks))
  return _padded(gathered, batch_size) if gathered else None


def _padded(parts: Sequence[dict[str, np.ndarray]], batch_size: int) -> Batch:
  """Concatenate the chunks and pad them to the batch size."""
  # Imported here because worker processes import this module and must not load JAX.
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
