"""Training and testing of cells, shared by all recognizers that train on images."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int, UInt8

from genbench_jax.errors import ModelError
from genbench_jax.metrics.accuracy import Metric
from genbench_jax.recognizers.engine import TrainingResult, predict, train
from genbench_jax.recognizers.linear_probe import external_summary, score_summary
from genbench_jax.recognizers.method import Method, Place
from genbench_jax.recognizers.problem import Model
from genbench_jax.recognizers.splits import NEVER_HELD_OUT, can_hold_out, stratified_folds
from genbench_jax.recognizers.train_step import check_recipe
from genbench_jax.recognizers.training import all_finite
from genbench_jax.recognizers.training_report import Report, watcher
from genbench_jax.recognizers.training_set import Curriculum, TrainingSet

# One in five external images is held out for model selection.
HELD_OUT_SHARE = 5


@dataclasses.dataclass(frozen=True)
class Fit:
  """A trained cell: the model to test, the chosen settings, and the losses of this call's steps."""

  model: Model
  about: dict[str, Any]
  losses: Float[np.ndarray, "s"]


def fit_cells(
  method: Method, sets: Sequence[TrainingSet], places: Sequence[Place], protocol: str
) -> list[Fit | ModelError]:
  """Choose the settings of each cell and train it; cells of equal shape are trained side by side.

  If the training of a cell diverges, its error takes the place of the result, and the others
  continue.

  Args:
    method: how to train.
    sets: training data of each cell.
    places: where and under which name each cell is trained.
    protocol: `strict` chooses rate and length on held-out external images; `reference` uses the
      recipe as given.

  Raises:
    UsageError: the recipe is invalid.
  """
  check_recipe(method.recipe)
  found: list[Fit | ModelError] = []
  curricula, abouts = [], []
  for data, place in zip(sets, places, strict=True):
    curriculum, about = chosen(method, data, place, protocol)
    curricula.append(curriculum)
    abouts.append(about)
  for members in side_by_side(curricula, [len(data.images[0]) for data in sets], places[0].at_once):
    trained = _trained_together(
      method, [sets[i] for i in members], [curricula[i] for i in members], [places[i] for i in members]
    )  # fmt: skip
    found += [
      result
      if isinstance(result, ModelError)
      else Fit(method.finish(result.model), abouts[i], result.losses)
      for i, result in zip(members, trained, strict=True)
    ]
  return found


def side_by_side(
  curricula: Sequence[Curriculum], sizes: Sequence[int], at_once: int
) -> list[list[int]]:
  """Group neighboring cells of equal length and recipe, at most `at_once` per group.

  Only neighbors are grouped, so that results keep the order of the cells.

  Args:
    curricula: order of each cell.
    sizes: side of each cell's images.
    at_once: maximal size of a group.
  """
  groups: list[list[int]] = []
  for index, curriculum in enumerate(curricula):
    last = groups[-1] if groups else []
    same = last and (
      curricula[last[0]].num_steps == curriculum.num_steps
      and sizes[last[0]] == sizes[index]
      and curricula[last[0]].phases[0].shape[0] > 0
    )
    if same and len(last) < at_once:
      last.append(index)
    else:
      groups.append([index])
  return groups


def _trained_together(
  method: Method,
  sets: Sequence[TrainingSet],
  curricula: Sequence[Curriculum],
  places: Sequence[Place],
) -> list[TrainingResult | ModelError]:
  models = [method.start(data.seed) for data in sets]
  place = places[0]
  name = place.name if len(sets) == 1 else f"{place.name} and {len(sets) - 1} more"
  steps, batch = curricula[0].num_steps, curricula[0].recipe.batch_size
  with Report(method, name, steps * len(sets), batch, place.mesh) as report:
    try:
      trained = train(
        method.problem, models, sets, curricula, place.mesh, place.directory, place.save_every,
        watch=watcher(report, len(sets)),
      )  # fmt: skip
    except ModelError as error:
      return [error]
  return [
    _checked(result, f"{method.name} {where.name}", steps)
    for result, where in zip(trained, places, strict=True)
  ]


def _checked(trained: TrainingResult, name: str, steps: int) -> TrainingResult | ModelError:
  """Return the trained cell, or the error of one that diverged beside others."""
  diverged = np.flatnonzero(~np.isfinite(trained.losses))
  if len(diverged):
    # A resumed training has only the losses of its last steps.
    step = steps - len(trained.losses) + diverged[0] + 1
    return ModelError(f"{name}: the loss is not a number from step {step} on.")
  if not all_finite((trained.model.variables, trained.model.stats)):
    return ModelError(f"{name}: the last of {steps} steps made the weights infinite.")
  return trained


def chosen(
  method: Method, data: TrainingSet, place: Place, protocol: str
) -> tuple[Curriculum, dict[str, Any]]:
  """Choose order, rate and length of a training; also return what led to the choice.

  `strict` trains on four fifths of the external images with each rate and length of the recipe's
  search, and takes the pair with the smallest loss on the held-out fifth (ties: the first). If
  nothing can be held out, the recipe is used as given.

  Args:
    method: how to train.
    data: training data of the cell.
    place: where and under which name.
    protocol: `strict` or `reference`.
  """
  recipe = method.recipe
  full = data.curriculum(recipe)
  pairs = list(itertools.product(recipe.search_epochs, recipe.search_rates))
  if protocol == "reference" or not pairs:
    return full, _about(full, "given")
  if len(pairs) == 1 or not can_hold_out(data.targets):
    length, rate = pairs[0] if len(pairs) == 1 else (1.0, 1.0)
    curriculum = full.scaled(rate, length)
    return curriculum, _about(curriculum, "given")
  # One of five folds; a class with a single image is never held out. Two images of a class are in
  # two of the folds, so that with few classes the first fold may be empty.
  folds = stratified_folds(data.targets, HELD_OUT_SHARE, data.seed)
  held_out = folds == folds[folds != NEVER_HELD_OUT].min()
  losses = [held_out_loss(method, data, held_out, place, *pair) for pair in pairs]
  if not np.isfinite(losses).any():
    return full, _about(full, "given")  # the full training then fails and reports the error
  length, rate = pairs[int(np.nanargmin(losses))]
  curriculum = full.scaled(rate, length)
  tried = {f"rate x{r:g}, steps x{s:g}": loss for (s, r), loss in zip(pairs, losses, strict=True)}
  return curriculum, _about(curriculum, "held-out external images") | {"held_out_losses": tried}


def _about(curriculum: Curriculum, by: str) -> dict[str, Any]:
  return {
    "learning_rate": curriculum.recipe.learning_rate,
    "steps": curriculum.num_steps,
    "chosen_by": by,
  }


def held_out_loss(
  method: Method,
  data: TrainingSet,
  held_out: Bool[np.ndarray, "n"],
  place: Place,
  length: float,
  rate: float,
) -> float:
  """Train on the other images; return the mean loss on the held-out ones, infinite if it diverges.

  Args:
    method: how to train.
    data: training data of the cell.
    held_out: which images are held out.
    place: where and under which name.
    length, rate: factors on the number of steps and on the learning rate.
  """
  kept = np.flatnonzero(~held_out)
  curriculum = data.curriculum(method.recipe, kept).scaled(rate, length)
  name = f"{place.name}, rate x{rate:g}, steps x{length:g}"
  search = dataclasses.replace(place, name=name, directory=None)
  trained = _trained_together(method, [data], [curriculum], [search])[0]
  if isinstance(trained, ModelError):
    return float("inf")
  rows = np.flatnonzero(held_out)
  scores = predict(method.problem, method.finish(trained.model), data.images[rows], place.mesh)
  return score_loss(scores, data.targets[rows], data.multi_label)


def score_loss(
  scores: Float[np.ndarray, "n k"], targets: Float[np.ndarray, "n k"], multi_label: bool
) -> float:
  """Return the mean cross-entropy of probabilities; the binary one for several labels.

  Args:
    scores: probabilities.
    targets: shares of the classes, or multi-hot labels.
    multi_label: whether an image may have several labels.
  """
  # Clipping bounds the loss of a confident error, which float32 probabilities of exactly 0 would
  # make infinite.
  scores = np.clip(np.asarray(scores, np.float64), 1e-12, 1 - 1e-12)
  if multi_label:
    return float(-(targets * np.log(scores) + (1 - targets) * np.log1p(-scores)).mean())
  return float(-(targets * np.log(scores)).sum(axis=1).mean())


def evaluated(
  method: Method,
  fit: Fit,
  data: TrainingSet,
  test_images: UInt8[np.ndarray, "m s s 3"],
  test_labels: Int[np.ndarray, "m"] | Bool[np.ndarray, "m k"],
  metric: Metric,
  mesh: Mesh,
) -> dict[str, Any]:
  """Return the scores of the test images, their summary, and details of the training.

  Args:
    method: how the cell was trained.
    fit: the trained cell.
    data: its training data.
    test_images: decoded squares.
    test_labels: class indices, or multi-hot.
    metric: recognition score.
    mesh: devices that share every batch.

  Raises:
    ModelError: a score is not a number.
  """
  scores = predict(method.problem, fit.model, test_images, mesh)
  summary = score_summary(scores, test_labels, metric, data.seed)
  last = {"train_loss": float(fit.losses[-1])} if len(fit.losses) else {}
  return summary | external_summary(data.targets) | fit.about | last
