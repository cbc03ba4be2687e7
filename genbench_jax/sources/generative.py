"""Generate image sets with a diffusion model, shard by shard."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from genbench_jax.cells import ImageSetKey
from genbench_jax.config import Generation
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.errors import UsageError
from genbench_jax.prompts.strategies import Prompt
from genbench_jax.run import Run
from genbench_jax.runtime.throughput import Meter
from genbench_jax.sources import inversion, prompting, selection
from genbench_jax.sources.backend import backend_shards, open_backend
from genbench_jax.sources.batches import ImageOrder, made_shards
from genbench_jax.sources.source import ImageSource, Need, NeededValues, ShardRecords
from genbench_jax.store.image_set import ImageSetLayout


class Generative(ImageSource):
  """Images from a diffusion model, equally many of every class."""

  def needs(self, run: Run, key: ImageSetKey) -> tuple[Need, ...]:
    if run.config.selection.is_on:
      return (*selection.needs(run, key), *inversion.needs(run, key))
    return inversion.needs(run, key)

  def prepare(self, run: Run, key: ImageSetKey, given: NeededValues) -> None:
    if run.config.selection.is_on:
      return  # the candidates have been prepared as a separate image set
    if run.hosts.is_first:
      prompting.write_class_sentences(run, key)
    if key.references:
      inversion.learn_share(run, key, given)

  def made_from(self, run: Run, key: ImageSetKey) -> dict[str, Any]:
    settings = run.config.generation
    tokens = inversion.made_from(run, key) if key.references else {}
    return (
      tokens
      | selection.made_from(run)
      | prompting.made_from(run, key)
      | {
        "model": run.diffusion_fingerprint,
        "templates": run.config.spec(key.dataset).templates,
        "steps": settings.steps,
        "guidance_scale": settings.guidance_scale,
        "scheduler": settings.scheduler,
        "height": settings.height,
        "width": settings.width,
      }
      | _more_settings(settings)
    )

  def size(self, run: Run, key: ImageSetKey) -> int:
    return run.per_class * run.config.spec(key.dataset).num_classes

  def shot_sizes(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    return {shots: shots * run.config.spec(key.dataset).num_classes for shots in run.config.shots}

  def real_images(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    seen = inversion.real_images(run, key) if key.references else 0
    return dict.fromkeys(run.config.shots, seen)

  def records(
    self,
    run: Run,
    key: ImageSetKey,
    layout: ImageSetLayout,
    shards: Sequence[int],
    given: NeededValues = (),
  ) -> ShardRecords:
    if run.config.generation.backend:
      return _from_backend(run, key, layout, shards)
    if run.config.selection.is_on:
      return selection.chosen_shards(run, key, layout, shards, given)
    sampler, order = sampler_and_order(run, key, run.sampler, given)
    return generate_shards(sampler, layout, shards, order, run.meter(key))


def _more_settings(settings: Generation) -> dict[str, Any]:
  """Return settings that change the images, if they differ from the defaults.

  LoRAs are missing because the model's fingerprint covers them.
  """
  usual = Generation()
  names = (
    "implementation", "backend", "backend_dtype", "eta", "guidance_rescale", "timesteps", "scheduler_settings", "negative_prompt",
  )  # fmt: skip
  found = {name: getattr(settings, name) for name in names}
  return {name: value for name, value in found.items() if value != getattr(usual, name)}


def _from_backend(
  run: Run, key: ImageSetKey, layout: ImageSetLayout, shards: Sequence[int]
) -> ShardRecords:
  settings = run.config.generation
  if run.config.selection.is_on or key.references or settings.keep_images != "all":
    raise UsageError(
      "a backend can't be combined with selection, textual inversion or keep_images."
    )
  sentences, names = prompting.class_sentences(run, key), run.config.spec(key.dataset).names
  prompts = with_negatives(
    prompting.prompts_of_set(run.config, key, run.per_class, lambda text: True, sentences, names),
    settings,
  )
  order = ImageOrder(prompts, key.seed, key.dataset, prompting.prompt_strategy(key))
  size = (settings.height, settings.width) if settings.height and settings.width else None
  # Operations are not counted, because those of another program are unknown.
  meter, batch = run.meter(key), settings.batch_per_device or 1
  return backend_shards(open_backend(settings), layout, shards, order, batch, size, meter)


def sampler_and_order(
  run: Run, key: ImageSetKey, sampler: Sampler, given: NeededValues
) -> tuple[Sampler, ImageOrder]:
  """Return the sampler and the order of a generated image set.

  Args:
    run: a config on its work folder.
    key: the image set.
    sampler: sampler of the set's model; learned tokens are added if the key asks for them.
    given: values of the set's needs, see `source.ImageSource.needs`.
  """
  names = run.config.spec(key.dataset).names
  if key.references:
    tokens = inversion.class_tokens(run, key, given)
    sampler, names = sampler.with_learned_embeddings(tokens.learned), tokens.names
  prompts = class_prompts(run, key, names)
  return sampler, ImageOrder(prompts, key.seed, key.dataset, prompting.prompt_strategy(key))


def class_prompts(run: Run, key: ImageSetKey, names: Sequence[str]) -> list[list[Prompt]]:
  """Return class -> shot -> prompt.

  Args:
    run: a config on its work folder.
    key: the image set.
    names: name of each class in its own prompts: the class name, or learned token and class name.
  """
  model, sentences = run.diffusion, prompting.class_sentences(run, key)
  fits = prompting.within(model.tokenizer, model.max_tokens)
  if key.references:
    sentences = inversion.renamed(sentences, run.config.spec(key.dataset).names, names)
  prompts = prompting.prompts_of_set(run.config, key, run.per_class, fits, sentences, names)
  return with_negatives(prompts, run.config.generation)


def with_negatives(prompts: list[list[Prompt]], settings: Generation) -> list[list[Prompt]]:
  """Append the generator's negative prompt to those of the strategy."""
  if not settings.negative_prompt:
    return prompts

  def both(prompt: Prompt) -> Prompt:
    parts = (prompt.negative, settings.negative_prompt)
    return dataclasses.replace(prompt, negative=", ".join(part for part in parts if part))

  return [[both(prompt) for prompt in of_class] for of_class in prompts]


def generate_shards(
  sampler: Sampler,
  layout: ImageSetLayout,
  shards: Sequence[int],
  order: ImageOrder,
  meter: Meter | None = None,
) -> ShardRecords:
  """Yield the records of each shard, in order; see `batches.made_shards`.

  Args:
    sampler: generates the images.
    layout: layout of the image set.
    shards: shards to make.
    order: prompts and random keys of the images.
    meter: records every batch; a new one by default.
  """
  meter = Meter(sampler.mesh.size) if meter is None else meter
  for made in made_shards(sampler, layout, shards, order, layout.num_images, meter):
    yield made.shard, made.records
