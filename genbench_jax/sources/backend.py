"""Generate image sets with another program, shard by shard, in our index space; see `diffusion.backends`."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import UInt32

from genbench_jax.diffusion import backends
from genbench_jax.diffusion.backends import Backend, Size
from genbench_jax.models import checkpoints
from genbench_jax.runtime.throughput import Meter
from genbench_jax.sources.batches import ImageOrder
from genbench_jax.sources.index_space import Part, class_shot, image_keys, parts_of
from genbench_jax.store.image_set import ImageRecord, ImageSetLayout, encode_png


def open_backend(settings: Any) -> Backend:
  """Open the backend that a config's generation settings name.

  Raises:
    UsageError: the backend does not exist.
    RunError: it can't be loaded.
  """
  if backends.is_function(settings.backend):
    return backends.load_function(settings.backend)
  backends.check_backend(settings.backend)
  asked = (settings.checkpoint, settings.revision or None, backends.DOWNLOADS)
  folder = str(checkpoints.locate(*asked))
  where = (settings.backend_dtype, settings.backend_device)
  return backends.load_pipeline(folder, settings.steps, settings.guidance_scale, *where)


def image_seeds(keys: UInt32[np.ndarray, "n 2"]) -> list[int]:
  """Return a 31-bit seed per image, which every library accepts; `genbench prompts` writes the same ones."""
  return [int(seed) for seed in keys[:, 1] & 0x7FFFFFFF]


def backend_shards(
  backend: Backend,
  layout: ImageSetLayout,
  shards: Sequence[int],
  order: ImageOrder,
  batch: int,
  size: Size,
  meter: Meter,
) -> Iterator[tuple[int, list[ImageRecord]]]:
  """Yield the records of each shard, in order.

  Each call of the backend is for images of one shard, and always for the same ones, so that the result does
  not depend on which shards were missing.

  Args:
    backend: generates the images.
    layout: layout of the image set.
    shards: shards to make.
    order: prompts and random keys of the images.
    batch: maximum number of images per call.
    size: height and width in pixels; None for the backend's default.
    meter: records every batch.
  """
  with ThreadPoolExecutor(thread_name_prefix="encode") as encoding:
    for shard in shards:
      records = []
      for part in parts_of(layout, [shard], batch):
        meter.launched()
        records += _records(backend, part, order, len(layout.class_names), size, encoding)
        meter.ended(len(part.indices))
      yield shard, [record.result() for record in records]


def _records(
  backend: Backend,
  part: Part,
  order: ImageOrder,
  num_classes: int,
  size: Size,
  encoding: ThreadPoolExecutor,
) -> list[Any]:
  places = [class_shot(index, num_classes) for index in part.indices]
  prompts = [order.prompts[label][shot] for label, shot in places]
  keys = image_keys(order.seed, order.dataset, order.strategy, places)
  texts, negatives = [prompt.text for prompt in prompts], [prompt.negative for prompt in prompts]
  images = backend(texts, negatives, image_seeds(keys), size)

  def record(row: int, index: int) -> ImageRecord:
    prompt = prompts[row]
    about = (places[row].label, index, prompt.text, prompt.negative, order.seed)
    return ImageRecord(encode_png(images[row]), *about)

  return [encoding.submit(record, row, index) for row, index in enumerate(part.indices)]
