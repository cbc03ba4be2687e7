"""Training and testing a recognizer on a cell: what is chosen, how it goes, what comes out. The same for all that train on images."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int, UInt8

from genbench_jax.errors import ModelError, UsageError, unknown_name
from genbench_jax.metrics.accuracy import Metric, check_metric, check_test_labels
from genbench_jax.models.image_input import ImageInput
from genbench_jax.recognizers.engine import (
  Model,
  Outcome,
  Problem,
  TrainingResult,
  View,
  check_recipe,
  predict,
  train,
)
from genbench_jax.recognizers.linear_probe import PROTOCOLS, external_summary, score_summary
from genbench_jax.recognizers.settings import Recipe
from genbench_jax.recognizers.splits import can_hold_out, class_targets, stratified_folds
from genbench_jax.recognizers.training_set import Curriculum, TrainingSet, make_training_set
from genbench_jax.runtime.mesh import data_mesh
from genbench_jax.runtime.peak import peak_of
from genbench_jax.runtime.progress import Progress, tell_curve

# A fifth of the external images is held out to choose by.
HELD_OUT_SHARE = 5
CURVE_EVERY = 10


@dataclasses.dataclass(frozen=True)
class Method:
  """A way to train on images.

  Attributes:
    name: of the recognizer.
    problem: what decides its program.
    start: seed -> the model to begin with.
    recipe: how it is trained.
    flops: of one image in one training step.
    finish: what becomes of the trained model before it is tested, such as a mean with the zero-shot model.
  """

  name: str
  problem: Problem
  start: Callable[[int], Model]
  recipe: Recipe
  flops: float = 0.0
  finish: Callable[[Model], Model] = lambda model: model


@dataclasses.dataclass(frozen=True)
class Place:
  """Where and under which name a cell is trained.

  Attributes:
    mesh: its devices share every batch.
    name: of the cell, for people.
    directory: of its checkpoints, or none.
    save_every: steps between them.
    at_once: cells in one program at most.
  """

  mesh: Mesh
  name: str = "images"
  directory: Path | None = None
  save_every: int = 100
  at_once: int = 1


@dataclasses.dataclass(frozen=True)
class Fit:
  """A trained cell: the model to test, what was chosen, and the losses of the steps that this call has run."""

  model: Model
  about: dict[str, Any]
  losses: Float[np.ndarray, "s"]


def fit_cells(
  method: Method, sets: Sequence[TrainingSet], places: Sequence[Place], protocol: str
) -> list[Fit | ModelError]:
  """Chooses where there is a choice, and trains each cell; equal ones side by side.

  A cell whose training diverges has the error in its place, and the others go on.

  Args:
    method: how.
    sets: the images of each cell.
    places: where and under which name.
    protocol: `strict` chooses rate and length on held-out external images; `reference` takes the recipe as it is.
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
      one if isinstance(one, ModelError) else Fit(method.finish(one.model), abouts[i], one.losses)
      for i, one in zip(members, trained, strict=True)
    ]
  return found


def side_by_side(
  curricula: Sequence[Curriculum], sizes: Sequence[int], at_once: int
) -> list[list[int]]:
  """Neighboring cells of equal length and recipe, so many at once at most: results keep their order."""
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
    _checked(one, where.name, method.name) for one, where in zip(trained, places, strict=True)
  ]


def watcher(report: "Report", lanes: int) -> Callable[[int, Outcome], None]:
  """What the loop tells of each step: NaN stops a single cell at once; of several the others go on."""

  def watch(number: int, outcome: Outcome) -> None:
    loss, accuracy = np.asarray(outcome.loss), np.asarray(outcome.accuracy)
    if lanes == 1 and not np.isfinite(loss):
      raise ModelError(
        f"{report.method.name} {report.name}: the loss is {loss} at step {number + 1}. A lower learning rate may help."
      )
    report.step(number, float(np.nanmean(loss)), float(accuracy.mean()), lanes)

  return watch


def _checked(trained: TrainingResult, name: str, method: str) -> TrainingResult | ModelError:
  finite = all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(trained.model.variables))
  if finite and np.isfinite(trained.losses).all():
    return trained
  step = int(np.argmin(np.isfinite(trained.losses))) + 1
  return ModelError(f"{method} {name}: the loss is not a number from step {step} on.")


class Report:
  """Tells of a training: images a second, loss, accuracy, and the share of the devices' peak that is used."""

  def __init__(self, method: Method, name: str, steps: int, batch_size: int, mesh: Mesh) -> None:
    self.method, self.name, self.batch_size = method, name, batch_size
    self._note, self._mesh, self._began = "", mesh, 0.0
    self._images = 0
    self._progress = Progress(
      f"{method.name} {name}", steps * batch_size, "images", lambda: self._note
    )

  def __enter__(self) -> "Report":
    self._began = time.monotonic()
    self._progress.__enter__()
    return self

  def __exit__(self, *error: Any) -> None:
    self._progress.__exit__(*error)

  def step(self, number: int, loss: float, accuracy: float, lanes: int) -> None:
    """A step of so many cells is done."""
    self._images += lanes * self.batch_size
    self._note = f"loss {loss:.3f}, accuracy {accuracy:.2f}{self._utilization()}"
    self._progress.advance(lanes * self.batch_size)
    if number % CURVE_EVERY == 0:
      tell_curve(f"{self.method.name}/{self.name}/loss", loss, number)
      tell_curve(f"{self.method.name}/{self.name}/accuracy", accuracy, number)

  def _utilization(self) -> str:
    """MFU: operations of the network, three passes each, over what the devices could do meanwhile."""
    seconds = time.monotonic() - self._began
    device = self._mesh.devices.flat[0]
    if not self.method.flops or seconds < 1 or device.platform == "cpu":
      return ""
    peak = peak_of(device).flops * self._mesh.size
    return f", MFU {self._images * self.method.flops / seconds / peak:.0%}"


def chosen(
  method: Method, data: TrainingSet, place: Place, protocol: str
) -> tuple[Curriculum, dict[str, Any]]:
  """The order, rate and length of a training, and what led to them.

  `strict` trains on four fifths of the external images with each rate and length of the recipe's search, and takes the pair
  with the least loss on the held-out fifth (of equals the first). Where nothing can be held out the recipe stands.
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
  held_out = stratified_folds(data.targets, HELD_OUT_SHARE, data.seed) == 0
  losses = [held_out_loss(method, data, held_out, place, *pair) for pair in pairs]
  if not np.isfinite(losses).any():
    return full, _about(full, "given")  # let it fail where it is told of
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
  """Mean loss on the held-out images after a training on the others; infinite where it diverges."""
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
  """Mean cross-entropy of probabilities; of several labels the binary one."""
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
  """Scores of the test images, their summary, and what is to be said of the training.

  Args:
    method: how it was trained.
    fit: what came out.
    data: what it was trained on.
    test_images: decoded squares.
    test_labels: class indices, or multi-hot.
    metric: how they are scored.
    mesh: its devices share every batch.
  """
  scores = predict(method.problem, fit.model, test_images, mesh)
  summary = score_summary(scores, test_labels, metric, data.seed)
  last = {"train_loss": float(fit.losses[-1])} if len(fit.losses) else {}
  return summary | external_summary(data.targets) | fit.about | last


# ---- as a library -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Arrays:
  """Images and labels as a caller gave them, checked: squares of the view's stored size."""

  data: TrainingSet
  test_images: UInt8[np.ndarray, "m s s 3"]
  test_labels: Int[np.ndarray, "m"] | Bool[np.ndarray, "m k"]


def checked_arrays(
  images: Any,
  labels: Any,
  test_images: Any,
  test_labels: Any,
  view: View,
  num_classes: int,
  metric: Metric,
  seed: int = 0,
  loss_weights: Any = None,
  later: Any = None,
) -> Arrays:
  """What a caller gave, as a training set and test images.

  Raises:
    UsageError: shapes that do not fit, images that aren't uint8 RGB, labels out of range, an unknown metric.
  """
  check_metric(metric)
  images, test_images = (
    stored_squares(name, array, view.stored_size)
    for name, array in (("images", images), ("test_images", test_images))
  )
  labels, test_labels = np.asarray(labels), np.asarray(test_labels)
  for name, given, count in (
    ("labels", labels, len(images)),
    ("test_labels", test_labels, len(test_images)),
  ):
    if len(given) != count or given.ndim not in (1, 2):
      raise UsageError(f"{name} have shape {given.shape}, but there are {count} images.")
    if given.ndim == 1 and len(given) and not 0 <= given.min() <= given.max() < num_classes:
      raise UsageError(f"{name} must be class indices below {num_classes}.")
    if given.ndim == 2 and given.shape[1] != num_classes:
      raise UsageError(f"{name} have {given.shape[1]} columns, wanted {num_classes}.")
  if not len(images):
    raise UsageError("there are no images to train on.")
  check_test_labels(test_labels, num_classes, metric)
  targets = class_targets(labels, num_classes)
  multi_label = labels.ndim == 2
  data = make_training_set(images, targets, loss_weights, later, multi_label, seed)
  return Arrays(data, test_images, test_labels)


def fit_arrays(
  make: Callable[[int, bool, str], Method],
  images: Any,
  labels: Any,
  test_images: Any,
  test_labels: Any,
  protocol: str,
  seed: int,
  metric: Metric,
  num_classes: int | None,
  loss_weights: Any,
  later: Any,
  mesh: Mesh | None,
  place: Place | None,
) -> dict[str, Any]:
  """Trains one cell on arrays and tests it: what the library's functions share.

  Args:
    make: (number of classes, whether an image may have several, protocol) -> how it is trained.
    images: external images, uint8 [n, h, w, 3].
    labels: class indices, or multi-hot.
    test_images: they choose nothing.
    test_labels: like `labels`.
    protocol: `strict` or `reference`.
    seed: of everything random.
    metric: how the test images are scored.
    num_classes: k; by default what the labels show.
    loss_weights: of each image.
    later: images of a second phase.
    mesh: devices to use; by default the first one.
    place: name and checkpoints, in place of `mesh`.

  Raises:
    UsageError: arrays that do not fit, or an unknown protocol.
    ModelError: the training diverged.
  """
  check_protocol(protocol)
  count = class_count(labels, test_labels, num_classes)
  how = make(count, np.ndim(labels) == 2, protocol)
  arrays = checked_arrays(
    images, labels, test_images, test_labels, how.problem.view, count, metric, seed, loss_weights, later
  )  # fmt: skip
  place = place or Place(data_mesh(jax.devices()[:1]) if mesh is None else mesh)
  fit = fit_cells(how, [arrays.data], [place], protocol)[0]
  if isinstance(fit, ModelError):
    raise fit
  return evaluated(
    how, fit, arrays.data, arrays.test_images, arrays.test_labels, metric, place.mesh
  )


def class_count(labels: Any, test_labels: Any, num_classes: int | None) -> int:
  """How many classes there are: as told, or as the labels show."""
  if num_classes is not None:
    return num_classes
  arrays = [np.asarray(array) for array in (labels, test_labels)]
  return max(a.shape[1] if a.ndim == 2 else int(a.max(initial=0)) + 1 for a in arrays)


def check_protocol(protocol: str) -> None:
  """Refuses an unknown protocol.

  Raises:
    UsageError: it names the known ones.
  """
  if protocol not in PROTOCOLS:
    raise unknown_name("protocol", protocol, PROTOCOLS)


def stored_squares(name: str, images: Any, size: int) -> UInt8[np.ndarray, "n s s 3"]:
  """Images as decoded squares of a size: the shorter side is scaled, the middle cut.

  Raises:
    UsageError: they are not uint8 [n, h, w, 3].
  """
  from PIL import Image

  from genbench_jax.embedding.preprocess import to_square

  images = np.asarray(images)
  if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
    raise UsageError(f"{name} are {images.dtype} {list(images.shape)}, wanted uint8 [n, h, w, 3].")
  if images.shape[1:3] == (size, size):
    return images
  how = ImageInput(size)
  squares = [np.asarray(to_square(Image.fromarray(image), how)) for image in images]
  return np.stack(squares) if squares else np.zeros((0, size, size, 3), np.uint8)
