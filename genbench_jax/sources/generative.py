"""Images from a diffusion model: one index space for every machine.

Image j of class c has the index j * K + c, so that the first s * K images are the s-shot set, and a key
folded from (seed, dataset, strategy, c, j), so that it is the same image on any number of devices.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int, UInt8, UInt32

from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.errors import ModelError, RunError
from genbench_jax.plan import ImageSetKey
from genbench_jax.prompts.strategies import Prompt
from genbench_jax.run import Run
from genbench_jax.sources import inversion, prompting, selection
from genbench_jax.sources.source import ShardRecords
from genbench_jax.store.image_set import ImageRecord, ImageSetLayout, encode_png


class Generative:
  """Images from a diffusion model, as many of every class."""

  def made_from(self, run: Run, key: ImageSetKey) -> dict[str, Any]:
    settings = run.config.generation
    tokens = inversion.made_from(run, key) if key.references else {}
    return (
      tokens
      | selection.made_from(run)
      | prompting.made_from(run, key)
      | {
        "model": run.diffusion_fingerprint,
        "templates": dataset_spec(key.dataset).templates,
        "steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "scheduler": settings.scheduler,
        "height": settings.height,
        "width": settings.width,
      }
    )

  def size(self, run: Run, key: ImageSetKey) -> int:
    return run.per_class * dataset_spec(key.dataset).num_classes

  def multi_label(self, run: Run, key: ImageSetKey) -> bool:
    return False

  def shot_sizes(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    return {shots: shots * dataset_spec(key.dataset).num_classes for shots in run.config.shots}

  def real_images(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    seen = inversion.real_images(run, key) if key.references else 0
    return dict.fromkeys(run.config.shots, seen)

  def records(
    self, run: Run, key: ImageSetKey, layout: ImageSetLayout, shards: Sequence[int]
  ) -> ShardRecords:
    if run.config.selection.is_on:
      return selection.chosen_shards(self, run, key, layout, shards)
    sampler, names = run.sampler, dataset_spec(key.dataset).names
    if key.references:
      tokens = inversion.class_tokens(run, key)
      sampler, names = sampler.with_learned_embeddings(tokens.learned), tokens.names
    prompts = class_prompts(run, key, names)
    where = (key.seed, key.dataset, prompting.prompt_strategy(key))
    return generate_shards(sampler, layout, shards, prompts, *where)


def class_prompts(run: Run, key: ImageSetKey, names: Sequence[str]) -> list[list[Prompt]]:
  """class -> shot -> prompt.

  Args:
    names: what each class is called in its own prompts: its name, or new token and name.
  """
  model, sentences = run.sampler.model, prompting.class_sentences(run, key)
  fits = prompting.within(model.tokenizer, model.max_tokens)
  if key.references:
    sentences = inversion.renamed(sentences, dataset_spec(key.dataset).names, names)
  return prompting.prompts_of_set(run.config, key, run.per_class, fits, sentences, names)


class ClassShot(NamedTuple):
  """Which image: the `shot`-th, from 0, of a class."""

  label: int
  shot: int


class _Part(NamedTuple):
  """Images of one shard that share a device's batch."""

  shard: int
  indices: range


def class_shot(index: int, num_classes: int) -> ClassShot:
  """The class and shot of an index."""
  shot, label = divmod(index, num_classes)
  return ClassShot(label, shot)


def image_keys(
  seed: int, dataset: str, strategy: str, class_shots: Sequence[ClassShot]
) -> UInt32[np.ndarray, "n 2"]:
  """The random key of each image, as key data."""
  key = jax.random.key(seed)
  for word in (dataset, strategy):
    key = jax.random.fold_in(key, zlib.crc32(word.encode()))
  labels, shots = np.asarray(class_shots, np.uint32).reshape(-1, 2).T
  return np.asarray(_fold(key, labels, shots))


@jax.jit
def _fold(key: Array, labels: Int[Array, "n"], shots: Int[Array, "n"]) -> UInt32[Array, "n 2"]:
  def fold(label: Array, shot: Array) -> Array:
    return jax.random.key_data(jax.random.fold_in(jax.random.fold_in(key, label), shot))

  return jax.vmap(fold)(labels, shots)


def generate_shards(
  sampler: Sampler,
  layout: ImageSetLayout,
  shards: Sequence[int],
  prompts: Sequence[Sequence[Prompt]],
  seed: int,
  dataset: str,
  strategy: str,
) -> ShardRecords:
  """The records of each shard, in order.

  Every device's batch holds images of one shard only, always the same ones: an image does not depend on
  what else was left to make. The next batch computes while the last one is encoded.

  Args:
    prompts: class -> shot -> prompt.
  """
  num_classes = len(layout.class_names)
  devices = sampler.mesh.size
  parts = _parts(layout, shards, sampler.batch_size // devices)
  keys_of = lambda where: image_keys(seed, dataset, strategy, where)  # noqa: E731

  def start(some: Sequence[_Part]) -> tuple[UInt8[Array, "b h w 3"], Bool[Array, "b"]]:
    rows = [
      index for part in some for index in _filled(part.indices, sampler.batch_size // devices)
    ]
    where = [class_shot(index, num_classes) for index in rows]
    wanted = [prompts[label][shot] for label, shot in where]
    texts, negatives = [p.text for p in wanted], [p.negative for p in wanted]
    images, latents = sampler.run(texts, negatives, keys_of(where))
    return images, _are_finite(latents)

  def finish(
    some: Sequence[_Part], images: Array, finite: Array
  ) -> Iterator[tuple[int, list[ImageRecord]]]:
    made = np.asarray(images).reshape(devices, -1, *images.shape[1:])
    # An autoencoder that overflows makes NaN of finite latents, and NaN becomes black.
    good = np.asarray(finite).reshape(devices, -1) & made.any(axis=(2, 3, 4))
    for part, pixels, are_good in zip(some, made, good, strict=False):
      _refuse_non_finite(part.indices, are_good, num_classes, prompts)
      pairs = zip(part.indices, pixels, strict=False)
      yield (
        part.shard,
        [_record(index, image, num_classes, prompts, seed) for index, image in pairs],
      )

  def in_turn() -> Iterator[tuple[int, list[ImageRecord]]]:
    waiting = None
    for begin in range(0, len(parts), devices):
      some = parts[begin : begin + devices]
      started = (some, *start(some))
      if waiting:
        yield from finish(*waiting)
      waiting = started
    if waiting:
      yield from finish(*waiting)

  yield from _whole_shards(in_turn(), layout)


@jax.jit
def _are_finite(latents: Float32[Array, "b h w c"]) -> Bool[Array, "b"]:
  return jnp.isfinite(latents).all(axis=(1, 2, 3))


def _refuse_non_finite(
  indices: range,
  good: Bool[np.ndarray, "b"],
  num_classes: int,
  prompts: Sequence[Sequence[Prompt]],
) -> None:
  for index, is_good in zip(indices, good, strict=False):
    if not is_good:
      label, shot = class_shot(index, num_classes)
      raise ModelError(
        f"the diffusion model gave NaN or infinity for image {index} (class {label}, prompt"
        f" {prompts[label][shot].text!r}). Half precision may overflow: try another dtype or scheduler."
      )


def _parts(layout: ImageSetLayout, shards: Sequence[int], size: int) -> list[_Part]:
  return [
    _Part(shard, indices[begin : begin + size])
    for shard in shards
    for indices in [layout.shard_range(shard)]
    for begin in range(0, len(indices), size)
  ]


def _filled(indices: range, size: int) -> list[int]:
  """The indices, the last one repeated up to `size`."""
  return [*indices, *[indices[-1]] * (size - len(indices))]


def _record(
  index: int,
  image: UInt8[np.ndarray, "h w 3"],
  num_classes: int,
  prompts: Sequence[Sequence[Prompt]],
  seed: int,
) -> ImageRecord:
  label, shot = class_shot(index, num_classes)
  prompt = prompts[label][shot]
  return ImageRecord(encode_png(image), label, index, prompt.text, prompt.negative, seed)


def _whole_shards(
  parts: Iterator[tuple[int, list[ImageRecord]]], layout: ImageSetLayout
) -> Iterator[tuple[int, list[ImageRecord]]]:
  """Parts joined to shards."""
  records: list[ImageRecord] = []
  for shard, some in parts:
    records += some
    if len(records) == len(layout.shard_range(shard)):
      yield shard, records
      records = []
  if records:
    raise RunError(f"a shard of {layout.name} ended after {len(records)} images")
