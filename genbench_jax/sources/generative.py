"""Images from a diffusion model, shard by shard."""

from collections.abc import Sequence
from typing import Any

from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.plan import ImageSetKey
from genbench_jax.prompts.strategies import Prompt, prompts_of_class
from genbench_jax.run import Run
from genbench_jax.sources.batches import ImageOrder, made_shards
from genbench_jax.sources.source import ShardRecords
from genbench_jax.store.image_set import ImageSetLayout
from genbench_jax.throughput import Meter


class Generative:
  """Images from a diffusion model, as many of every class."""

  def made_from(self, run: Run, key: ImageSetKey) -> dict[str, Any]:
    settings = run.config.generation
    return {
      "model": run.diffusion_fingerprint,
      "templates": dataset_spec(key.dataset).templates,
      "steps": settings.steps,
      "guidance_scale": settings.guidance_scale,
      "scheduler": settings.scheduler,
      "height": settings.height,
      "width": settings.width,
    }

  def size(self, run: Run, key: ImageSetKey) -> int:
    return run.per_class * dataset_spec(key.dataset).num_classes

  def multi_label(self, run: Run, key: ImageSetKey) -> bool:
    return False

  def shot_sizes(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    return {shots: shots * dataset_spec(key.dataset).num_classes for shots in run.config.shots}

  def real_images(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    return dict.fromkeys(run.config.shots, 0)

  def records(
    self, run: Run, key: ImageSetKey, layout: ImageSetLayout, shards: Sequence[int]
  ) -> ShardRecords:
    return generate_shards(run.sampler, layout, shards, image_order(run, key), run.meter(key))


def image_order(run: Run, key: ImageSetKey) -> ImageOrder:
  """What a generated image set is made of."""
  return ImageOrder(class_prompts(run, key), key.seed, key.dataset, key.strategy)


def class_prompts(run: Run, key: ImageSetKey) -> list[list[Prompt]]:
  """class -> shot -> prompt."""
  spec, model = dataset_spec(key.dataset), run.diffusion
  fits = lambda text: len(model.tokenizer(text, verbose=False)["input_ids"]) <= model.max_tokens  # noqa: E731
  return [
    prompts_of_class(key.strategy, label, spec.names, spec.templates, run.per_class, key.seed, fits)
    for label in range(spec.num_classes)
  ]


def generate_shards(
  sampler: Sampler,
  layout: ImageSetLayout,
  shards: Sequence[int],
  order: ImageOrder,
  meter: Meter | None = None,
) -> ShardRecords:
  """The records of each shard, in order; see `batches.made_shards`."""
  meter = Meter(sampler.mesh.size) if meter is None else meter
  for made in made_shards(sampler, layout, shards, order, layout.num_images, meter):
    yield made.shard, made.records
