"""The strict linear probe: convex, regularisation chosen on held-out external images, one refit.

Many cells (shots, seeds, sources) that share their classes are one program: `vmap` over cells and
over the folds, a scan over the penalties. The fit to all images is one more lane beside the folds,
so that the chosen model is there when the choice is made.
"""

import functools
import operator
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.parallel.mesh import DATA_AXIS, data_mesh, padded_size, replicated
from genbench_jax.recognizers.logistic import (
  active_classes,
  principal_axes,
  row_losses,
  solve_path,
)
from genbench_jax.recognizers.splits import NEVER_HELD_OUT, stratified_folds

# From almost the prior to almost no regularisation; the inverse is scikit-learn's C.
PENALTIES = tuple(10.0**power for power in (2, 1, 0, -1, -2, -3))
# Of penalties whose held-out losses differ by less than this many nats the strongest is chosen.
MEANINGLESS_LOSS = 1e-3
# The scale of the zero-shot logits as a share of the one given: the one number that is fitted before.
PRIOR_SCALES = tuple(2.0 ** (-step / 2) for step in range(13))
# Where nothing can be held out: each logit may move by about 1 from its prior.
DEFAULT_PENALTY = 1.0
# Few images: three folds, each held out once. Many: a fifth is held out once.
FEW_IMAGES = 2048
FOLDS_OF_FEW, FOLDS_OF_MANY = 3, 5
# Logit of a class about which nothing is known, neither image nor text: never predicted.
UNKNOWN_CLASS_LOGIT = -1e4
CELLS_AT_ONCE = 16
LEAST_ROWS = 64

# How often each program was traced: one compile per shape is asserted by tests.
trace_counts = {"strict": 0}


class StrictFit(NamedTuple):
  """The fit of one cell. `weights` act on unit-norm or raw features as they were given.

  Attributes:
    weights: one row a class; logits are features @ weights.T + bias.
    bias: one number a class.
    prior_scale: the prior's scale as a share of the one given.
    penalty: the chosen penalty, the inverse of scikit-learn's C.
    validation_losses: mean held-out loss at each penalty; all NaN where nothing was held out.
    iterations: L-BFGS iterations over the whole path of the final fit.
    converged: whether the final fit met the tolerance.
  """

  weights: Float[Array, "k d"]
  bias: Float[Array, "k"]
  prior_scale: Float[Array, ""]
  penalty: Float[Array, ""]
  validation_losses: Float[Array, "p"]
  iterations: Int[Array, ""]
  converged: Bool[Array, ""]


class TrainingSet(NamedTuple):
  """The external images of one cell: features, one-hot or multi-hot targets, seed of the folds."""

  features: Float[np.ndarray, "n d"]
  targets: Float[np.ndarray, "n k"]
  seed: int


class Cells(NamedTuple):
  """Padded training data of several cells. Padding rows have zero `weights`; folds are -1 there."""

  features: Float[Array, "c n d"]
  targets: Float[Array, "c n k"]
  weights: Float[Array, "c n"]
  folds: Int[Array, "c n"]


def bucket_rows(size: int) -> int:
  """Rows to pad to: 64, 96, 128, 192, ...: few shapes, at most a half of the rows padding."""
  bucket = LEAST_ROWS
  while bucket < size:
    bucket = bucket * 3 // 2 if bucket & (bucket - 1) == 0 else bucket * 4 // 3
  return bucket


def pad_cells(training_sets: list[TrainingSet], rows: int, num_cells: int, mesh: Mesh) -> Cells:
  """Cells of different sizes as one block of `num_cells` x `rows`, the rest empty, on the mesh.

  Several cells are split over the devices by cells, a single one by its rows.
  """
  width, num_classes = training_sets[0].features.shape[1], training_sets[0].targets.shape[1]
  features = np.zeros((num_cells, rows, width), np.float32)
  targets = np.zeros((num_cells, rows, num_classes), np.float32)
  weights = np.zeros((num_cells, rows), np.float32)
  folds = np.full((num_cells, rows), NEVER_HELD_OUT, np.int32)
  num_folds = FOLDS_OF_FEW if rows <= FEW_IMAGES else FOLDS_OF_MANY
  for cell, training_set in enumerate(training_sets):
    count = len(training_set.features)
    features[cell, :count] = training_set.features
    targets[cell, :count] = training_set.targets
    weights[cell, :count] = 1
    folds[cell, :count] = stratified_folds(training_set.targets, num_folds, training_set.seed)
  spec = PartitionSpec(None, DATA_AXIS) if num_cells == 1 else PartitionSpec(DATA_AXIS)
  placed = jax.device_put((features, targets, weights, folds), NamedSharding(mesh, spec))
  return Cells(*placed)


@functools.partial(jax.jit, static_argnames=("mesh", "num_folds", "multi_label"))
def fit_cells(
  cells: Cells,
  prior: Float[Array, "k d"],
  penalties: Float[Array, "p"],
  has_text: Bool[Array, ""],
  mesh: Mesh,
  num_folds: int,
  multi_label: bool,
) -> StrictFit:
  """Fits all cells. The fields of the result have a leading axis c.

  Args:
    cells: padded training data.
    prior: weights that regularisation pulls to: logit scale x text prototypes, or zeros.
    penalties: from the strongest to the weakest.
    has_text: whether the prior knows classes that have no image.
    mesh: several cells run on its devices side by side, each at its own pace: nothing is exchanged.
    num_folds: how many of the folds are held out, each once.
    multi_label: multi-hot targets, binary cross-entropies.
  """
  trace_counts["strict"] += 1

  def fit(cells: Cells, prior: Array, penalties: Array, has_text: Array) -> StrictFit:
    return jax.vmap(
      lambda cell: _fit_cell(cell, prior, penalties, has_text, num_folds, multi_label)
    )(cells)

  if len(cells.features) > 1:
    split, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
    # The checker does not follow loops whose start is a constant.
    fit = jax.shard_map(
      fit, mesh=mesh, in_specs=(split, whole, whole, whole), out_specs=split, check_vma=False
    )
  with jax.default_matmul_precision("highest"):
    return jax.lax.with_sharding_constraint(
      fit(cells, prior, penalties, has_text), replicated(mesh)
    )


def _fit_cell(
  cell: Cells,
  prior: Float[Array, "k d"],
  penalties: Float[Array, "p"],
  has_text: Bool[Array, ""],
  num_folds: int,
  multi_label: bool,
) -> StrictFit:
  num_rows = jnp.maximum(cell.weights.sum(), 1)
  prior_bias = _prior_bias(cell, prior, num_rows) if multi_label else jnp.zeros(len(prior))
  scale = _prior_scale(cell, cell.features @ prior.T + prior_bias, multi_label)
  prior, prior_bias = scale * prior, scale * prior_bias
  offsets = cell.features @ prior.T + prior_bias
  axes = principal_axes(jnp.append(cell.features, cell.weights[:, None], axis=1), num_rows)

  held_out = jnp.stack([cell.folds == fold for fold in range(num_folds)]) * cell.weights
  lanes = jnp.concatenate([cell.weights - held_out, cell.weights[None]])
  solutions = jax.vmap(
    lambda weights: solve_path(axes, offsets, cell.targets, weights, penalties, multi_label)
  )(lanes)

  def held_out_loss(departure: Array, weights: Array, held: Array) -> Float[Array, ""]:
    logits = offsets + axes.rotated @ departure.T
    active = active_classes(cell.targets, weights)
    return held @ row_losses(logits, cell.targets, active, multi_label)

  over_path = jax.vmap(held_out_loss, in_axes=(0, None, None))
  sums = jax.vmap(over_path)(solutions.departures[:-1], lanes[:-1], held_out).sum(axis=0)
  losses = sums / held_out.sum()
  default = jnp.argmin(jnp.abs(jnp.log(penalties / DEFAULT_PENALTY)))
  good_enough = losses <= losses.min() + MEANINGLESS_LOSS
  chosen = jnp.where(held_out.sum() > 0, jnp.argmax(good_enough), default)

  departure = solutions.departures[-1, chosen] @ axes.basis.T
  unknown = ~active_classes(cell.targets, cell.weights) & ~has_text
  return StrictFit(
    weights=prior + departure[:, :-1],
    bias=prior_bias + departure[:, -1] + jnp.where(unknown, UNKNOWN_CLASS_LOGIT, 0),
    prior_scale=scale,
    penalty=penalties[chosen],
    validation_losses=losses,
    iterations=solutions.iterations[-1].sum(),
    converged=solutions.converged[-1, chosen],
  )


def _prior_bias(
  cell: Cells, prior: Float[Array, "k d"], num_rows: Float[Array, ""]
) -> Float[Array, "k"]:
  """A scaled cosine is no log-odds: for multi-label sets the mean zero-shot logit is taken as zero."""
  return -(cell.weights @ cell.features) @ prior.T / num_rows


def _prior_scale(cell: Cells, logits: Float[Array, "n k"], multi_label: bool) -> Float[Array, ""]:
  """The share of the zero-shot logits under which the external images are likeliest.

  An overconfident prior would have to be argued down class by class. At one shot it stays as it is: a
  few wrong labels must not talk it down.
  """
  active = active_classes(cell.targets, cell.weights)
  scales = jnp.asarray(PRIOR_SCALES)

  def loss(scale: Float[Array, ""]) -> Float[Array, ""]:
    return cell.weights @ row_losses(scale * logits, cell.targets, active, multi_label)

  likeliest = scales[jnp.argmin(jax.vmap(loss)(scales))]
  return jnp.where((cell.folds >= 0).any(), likeliest, 1.0)


def fit_strict(
  training_sets: list[TrainingSet],
  prior: Float[Array, "k d"],
  multi_label: bool,
  has_text: bool,
  mesh: Mesh | None = None,
  penalties: tuple[float, ...] = PENALTIES,
) -> list[StrictFit]:
  """Fits every cell, in blocks of equal shape. The order of the results is that of the cells."""
  mesh = data_mesh(jax.devices()[:1]) if mesh is None else mesh
  fits: list[StrictFit | None] = [None] * len(training_sets)
  for rows, members in _blocks(training_sets, mesh.size):
    at_once = 1 if len(members) == 1 else padded_size(CELLS_AT_ONCE, mesh.size)
    block = fit_cells(
      pad_cells([training_sets[index] for index in members], rows, at_once, mesh),
      prior,
      jnp.asarray(penalties, jnp.float32),
      jnp.asarray(has_text),
      mesh=mesh,
      num_folds=FOLDS_OF_FEW if rows <= FEW_IMAGES else 1,
      multi_label=multi_label,
    )
    block = jax.tree.map(np.asarray, block)
    for cell, index in enumerate(members):
      fits[index] = jax.tree.map(operator.itemgetter(cell), block)
  return [fit for fit in fits if fit is not None]


def _blocks(training_sets: list[TrainingSet], devices: int) -> Iterator[tuple[int, list[int]]]:
  """Padded number of rows and the cells of each block: equal shapes, not too many at once."""
  groups: dict[int, list[int]] = {}
  for index, training_set in enumerate(training_sets):
    rows = padded_size(bucket_rows(len(training_set.features)), devices)
    groups.setdefault(rows, []).append(index)
  at_once = padded_size(CELLS_AT_ONCE, devices)
  for rows, members in groups.items():
    for start in range(0, len(members), at_once):
      yield rows, members[start : start + at_once]
