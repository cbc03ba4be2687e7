"""Turn generated images on the devices into complete shards, without idle devices.

The next batch is always queued on the devices. One thread fetches finished batches, others encode their
images as PNG. Shards are yielded complete and in order.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from genbench_jax.diffusion.program import GeneratedBatch
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.errors import ModelError, RunError
from genbench_jax.prompts.strategies import Prompt
from genbench_jax.runtime.throughput import Meter
from genbench_jax.sources.index_space import Part, class_shot, image_keys, parts_of
from genbench_jax.store.image_set import ImageRecord, ImageSetLayout, encode_png

# Batches in flight (computed, fetched or encoded) while the inputs of the next one are prepared.
IN_FLIGHT = 2


class ImageOrder(NamedTuple):
  """What to generate: prompts by class and shot, and the three parts of the random keys."""

  prompts: Sequence[Sequence[Prompt]]
  seed: int
  dataset: str
  strategy: str


class ImageShard(NamedTuple):
  """A complete shard: records of the kept images, and features of all if the sampler embeds."""

  shard: int
  records: list[ImageRecord]
  features: Float32[np.ndarray, "n d"] | None


class _ImagePart(NamedTuple):
  part: Part
  records: list[Future[ImageRecord]]
  features: Float32[np.ndarray, "n d"] | None


def made_shards(
  sampler: Sampler,
  layout: ImageSetLayout,
  shards: Sequence[int],
  order: ImageOrder,
  kept: int,
  meter: Meter,
) -> Iterator[ImageShard]:
  """Yield the given shards, in order.

  A device's batch contains images of one shard only, and always the same ones, so that an image does not
  depend on which shards were missing.

  Args:
    sampler: generates the images, and embeds them if it has an encoder.
    layout: layout of the image set.
    shards: shards to make.
    order: prompts and random keys of the images.
    kept: images with an index below this are fetched and encoded; others stay on the devices.
    meter: records every batch.
  """
  batches = _Batches(sampler, len(layout.class_names), order, kept, meter)
  parts = parts_of(layout, shards, batches.rows)
  meter.count_flops()  # compiles once more, so do it before a batch is waiting
  with (
    ThreadPoolExecutor(1, "fetch") as fetching,
    ThreadPoolExecutor(thread_name_prefix="encode") as encoding,
  ):

    def in_turn() -> Iterator[_ImagePart]:
      under_way: deque[Future[list[_ImagePart]]] = deque()
      for begin in range(0, len(parts), batches.devices):
        batch = parts[begin : begin + batches.devices]
        under_way.append(fetching.submit(batches.finish, batch, batches.start(batch), encoding))
        if len(under_way) > IN_FLIGHT:
          yield from under_way.popleft().result()
      while under_way:
        yield from under_way.popleft().result()

    yield from _whole_shards(in_turn(), layout)


class _Batches:
  """Start and finish single batches."""

  def __init__(
    self, sampler: Sampler, num_classes: int, order: ImageOrder, kept: int, meter: Meter
  ) -> None:
    self.sampler, self.order = sampler, order
    self.num_classes, self.kept, self.meter = num_classes, kept, meter
    self.devices = sampler.mesh.size
    self.rows = sampler.batch_size // self.devices

  def start(self, parts: Sequence[Part]) -> GeneratedBatch:
    """Launch a batch, one part per device, without waiting for it."""
    prompts, seed, dataset, strategy = self.order
    indices = [index for part in parts for index in _filled(part.indices, self.rows)]
    where = [class_shot(index, self.num_classes) for index in indices]
    wanted = [prompts[label][shot] for label, shot in where]
    keys = image_keys(seed, dataset, strategy, where)
    inputs = self.sampler.prepare([p.text for p in wanted], [p.negative for p in wanted], keys)
    self.meter.launched()
    return self.sampler.launch(inputs)

  def finish(
    self, parts: Sequence[Part], made: GeneratedBatch, encoding: ThreadPoolExecutor
  ) -> list[_ImagePart]:
    """Wait for a batch, fetch what is needed of it, and submit its images for encoding."""
    jax.block_until_ready(made)
    self.meter.ended(sum(len(part.indices) for part in parts))
    self._refuse_broken(parts, np.asarray(made.are_finite).reshape(self.devices, -1))
    kept = [range(part.indices[0], min(part.indices[-1] + 1, self.kept)) for part in parts]
    images = self._by_device(made.images if any(kept) else None)
    features = self._by_device(made.features)
    return [
      _ImagePart(
        part,
        [
          encoding.submit(self._record, index, image)
          for index, image in zip(indices, () if pixels is None else pixels, strict=False)
        ],
        None if rows is None else rows[: len(part.indices)],
      )
      for part, indices, pixels, rows in zip(parts, kept, images, features, strict=False)
    ]

  def _refuse_broken(
    self, parts: Sequence[Part], are_finite: Bool[np.ndarray, "devices rows"]
  ) -> None:
    for part, finite in zip(parts, are_finite, strict=False):
      for index, is_finite in zip(part.indices, finite, strict=False):
        if not is_finite:
          label, shot = class_shot(index, self.num_classes)
          raise ModelError(
            f"the diffusion model gave NaN or infinity for image {index} (class {label}, prompt"
            f" {self.order.prompts[label][shot].text!r}). Half precision may overflow: try another dtype or scheduler."
          )

  def _by_device(self, rows: jax.Array | None) -> Sequence[Any]:
    """Return each device's rows on the host [rows, ...]; None for each if there are none."""
    if rows is None:
      return [None] * self.devices
    return list(np.asarray(rows).reshape(self.devices, self.rows, *rows.shape[1:]))

  def _record(self, index: int, image: UInt8[np.ndarray, "h w 3"]) -> ImageRecord:
    label, shot = class_shot(index, self.num_classes)
    prompt = self.order.prompts[label][shot]
    encoded = encode_png(image)
    return ImageRecord(encoded, label, index, prompt.text, prompt.negative, self.order.seed)


def _filled(indices: range, size: int) -> list[int]:
  """Repeat the last index up to `size` entries."""
  return [*indices, *[indices[-1]] * (size - len(indices))]


def _whole_shards(parts: Iterator[_ImagePart], layout: ImageSetLayout) -> Iterator[ImageShard]:
  """Join parts to shards."""
  records: list[ImageRecord] = []
  features: list[Float32[np.ndarray, "n d"]] = []
  done = 0
  for made in parts:
    shard, indices = made.part
    records += [record.result() for record in made.records]
    features += [] if made.features is None else [made.features]
    done += len(indices)
    if done == len(layout.shard_range(shard)):
      yield ImageShard(shard, records, np.concatenate(features) if features else None)
      records, features, done = [], [], 0
  if done:
    raise RunError(f"a shard of {layout.name} ended after {done} images")
