"""The images of a cell, as features: those of an image set, or originals and external ones together."""

import dataclasses

from genbench_jax import plan
from genbench_jax.artefacts import image_set_path
from genbench_jax.features import load_embeddings
from genbench_jax.measure import External, Mixture
from genbench_jax.plan import ImageSetKey
from genbench_jax.run import FeatureSpace, Run
from genbench_jax.sources.registry import SOURCES


def external_images(run: Run, key: ImageSetKey, space: FeatureSpace | None = None) -> External:
  """The readable images of an image set or a mixture, in the run's features or in others."""
  if key.source != "combined":
    source = SOURCES[key.source]
    images = load_embeddings(image_set_path(run, key, space)).readable()
    return External(key, images, source.shot_sizes(run, key), source.real_images(run, key))
  budgets = {
    cell.shots: plan.mixture_budget(cell.shots, run.config.mixture)
    for cell in plan.cells_of(key, run.config)
  }
  original, others = (
    _part(run, part, {shots: budget[place] for shots, budget in budgets.items()}, space)
    for place, part in enumerate(plan.mixtures(run.config)[key])
  )
  real_images = {
    shots: original.real_images[shots] + others.real_images[shots] for shots in budgets
  }
  return Mixture(key, original.images, original.shot_sizes, real_images, others)


def _part(
  run: Run, key: ImageSetKey, budgets: dict[int, int], space: FeatureSpace | None
) -> External:
  """An image set, of which a mixture of so many shots takes so many images a class."""
  config = dataclasses.replace(run.config, shots=tuple(sorted(set(budgets.values()))))
  source, at_budgets = SOURCES[key.source], run.with_config(config)
  sizes, real = source.shot_sizes(at_budgets, key), source.real_images(at_budgets, key)
  return External(
    key,
    load_embeddings(image_set_path(run, key, space)).readable(),
    {shots: sizes[budget] for shots, budget in budgets.items()},
    {shots: real[budget] for shots, budget in budgets.items()},
  )
