"""Images from a diffusion model, shard by shard."""

from collections.abc import Sequence
from typing import Any

from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.cells import ImageSetKey
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.prompts.strategies import Prompt
from genbench_jax.run import Run
from genbench_jax.runtime.throughput import Meter
from genbench_jax.sources import inversion, prompting, selection
from genbench_jax.sources.batches import ImageOrder, made_shards
from genbench_jax.sources.source import ShardRecords
from genbench_jax.store.image_set import ImageSetLayout


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
    sampler, order = sampler_and_order(run, key, run.sampler)
    return generate_shards(sampler, layout, shards, order, run.meter(key))


def sampler_and_order(run: Run, key: ImageSetKey, sampler: Sampler) -> tuple[Sampler, ImageOrder]:
  """What makes a generated image set, and what it is made of: the sampler with new tokens where they are asked for."""
  names = dataset_spec(key.dataset).names
  if key.references:
    tokens = inversion.class_tokens(run, key)
    sampler, names = sampler.with_learned_embeddings(tokens.learned), tokens.names
  prompts = class_prompts(run, key, names)
  return sampler, ImageOrder(prompts, key.seed, key.dataset, prompting.prompt_strategy(key))


def class_prompts(run: Run, key: ImageSetKey, names: Sequence[str]) -> list[list[Prompt]]:
  """class -> shot -> prompt.

  Args:
    names: what each class is called in its own prompts: its name, or new token and name.
  """
  model, sentences = run.diffusion, prompting.class_sentences(run, key)
  fits = prompting.within(model.tokenizer, model.max_tokens)
  if key.references:
    sentences = inversion.renamed(sentences, dataset_spec(key.dataset).names, names)
  return prompting.prompts_of_set(run.config, key, run.per_class, fits, sentences, names)


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
