"""The strict linear probe: convex, regularization chosen on held-out external images.

Cells that share their classes (shots, seeds, sources) run in one program. It walks along the
penalties from strong to weak and starts each fold from its solution at the previous penalty. It
stops where the held-out loss rises, because weak penalties cost most and help least. Then all
images are fitted, starting from the mean of the folds' solutions. Small problems run side by side
(`vmap`); large ones run one after another, so that none waits for the slowest.
"""

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.metrics.inputs import fetch
from genbench_jax.recognizers.logistic import (
  Axes,
  active_classes,
  principal_axes,
  row_losses,
  solve,
)
from genbench_jax.recognizers.splits import NEVER_HELD_OUT, stratified_folds
from genbench_jax.runtime.mesh import DATA_AXIS, data_mesh, padded_size
from genbench_jax.runtime.programs import ProgramMemory

# From almost only the prior to almost no regularization; the inverse is scikit-learn's C. The weak
# end is reached only if the held-out loss keeps falling.
PENALTIES = tuple(10.0**power for power in (2, 1, 0, -1, -2, -3, -4, -5, -6))
# Held-out losses that differ by less than this many nats are treated as equal: the strongest such
# penalty is chosen. If the loss rises by more, weaker penalties are not tried.
MEANINGLESS_LOSS = 1e-3
# Folds only select the penalty: a relative error of 1e-5 of the objective cannot change the choice.
FOLD_TOLERANCE = 3e-3
# Candidate scales of the zero-shot logits, relative to the given scale. It is the only parameter
# fitted beforehand.
PRIOR_SCALES = tuple(2.0 ** (-step / 2) for step in range(13))
# Used if nothing can be held out: each logit may move by about 1 from its prior.
DEFAULT_PENALTY = 1.0
# Few images: three folds, each held out once. Many images: one fifth is held out.
FEW_IMAGES = 2048
FOLDS_OF_FEW, FOLDS_OF_MANY = 3, 5
# Logit of a class with neither image nor text; it is never predicted.
UNKNOWN_CLASS_LOGIT = -1e4
LEAST_ROWS = 64
# Cells run side by side while their logits total less than this; above, work outweighs overhead.
CELLS_AT_ONCE, FEW_LOGITS = 16, 2**18
# Rows x classes x features up to which a cell is padded to the shape of a larger cell. A step on so
# few numbers takes a millisecond, a program four seconds to compile.
FREE_WORK = 2**20


class StrictFit(NamedTuple):
  """Fit of one cell; `weights` act on the features as given (unit-norm or raw).

  Attributes:
    weights: one row per class; logits are features @ weights.T + bias.
    bias: one number per class.
    prior_scale: scale of the prior relative to the given one.
    penalty: chosen penalty, the inverse of scikit-learn's C.
    validation_losses: mean held-out loss at each penalty; NaN if it was not tried.
    iterations: L-BFGS iterations of the final fit.
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
  """External images of one cell: features, targets, seed of the folds, loss weights."""

  features: Float[np.ndarray, "n d"]
  targets: Float[np.ndarray, "n k"]
  seed: int
  weights: Float[np.ndarray, "n"] | None = None


class Cells(NamedTuple):
  """Padded training data of several cells. Padding rows have zero `weights` and fold -1."""

  features: Float[Array, "c n d"]
  targets: Float[Array, "c n k"]
  weights: Float[Array, "c n"]
  folds: Int[Array, "c n"]


def bucket_rows(size: int) -> int:
  """Return the row count to pad to: 64, 96, 128, 192, ...; at most one padding row per two rows."""
  bucket = LEAST_ROWS
  while bucket < size:
    # Alternately times 3/2 and 4/3: powers of two and 1.5 times them.
    bucket = bucket * 3 // 2 if bucket & (bucket - 1) == 0 else bucket * 4 // 3
  return bucket


def pad_cells(training_sets: list[TrainingSet], rows: int, num_cells: int, mesh: Mesh) -> Cells:
  """Pack cells of different sizes into one block of `num_cells` x `rows` on the mesh.

  Several cells are sharded by cell, a single one by its rows.

  Args:
    training_sets: at most `num_cells` cells.
    rows: padded number of rows.
    num_cells: padded number of cells.
    mesh: devices.
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
    weights[cell, :count] = 1 if training_set.weights is None else training_set.weights
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
  """Fit all cells. The fields of the result have a leading axis c.

  Args:
    cells: padded training data.
    prior: weights towards which the penalty pulls: logit scale x text prototypes, or zeros.
    penalties: from the strongest to the weakest.
    has_text: whether the prior knows classes without images.
    mesh: devices; several cells run on them side by side, without communication.
    num_folds: number of folds to hold out; a cell without any takes the default penalty.
    multi_label: multi-hot targets with binary cross-entropies.
  """

  def fit(cells: Cells, prior: Array, penalties: Array, has_text: Array) -> StrictFit:
    return _each(
      lambda cell: _fit_cell(cell, prior, penalties, has_text, num_folds, multi_label),
      cells,
      side_by_side=len(cells.features) > 1,
    )

  if len(cells.features) > 1:
    split, whole = PartitionSpec(DATA_AXIS), PartitionSpec()
    # The checker of varying axes does not support loops whose initial value is a constant.
    fit = jax.shard_map(
      fit, mesh=mesh, in_specs=(split, whole, whole, whole), out_specs=split, check_vma=False
    )
  with jax.default_matmul_precision("highest"):
    return fit(cells, prior, penalties, has_text)


def _each(function: Callable[..., Any], trees: Any, side_by_side: bool) -> Any:
  """Map a function over a leading axis, all at once or one after another."""
  return jax.vmap(function)(trees) if side_by_side else jax.lax.map(function, trees)


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
  # The appended constant is 0 for padding, so that padded rows vanish from the axes.
  axes = principal_axes(jnp.append(cell.features, cell.weights[:, None] > 0, axis=1), num_rows)

  choice = _choose_penalty(cell, axes, offsets, penalties, num_folds, multi_label)
  penalty = penalties[choice.which]
  solution = solve(axes, offsets, cell.targets, cell.weights, penalty, choice.start, multi_label)

  # [k, r] -> [k, d + 1]: the last column is the bias.
  departure = solution.departure @ axes.basis.T
  unknown = ~active_classes(cell.targets, cell.weights) & ~has_text
  return StrictFit(
    weights=prior + departure[:, :-1],
    bias=prior_bias + departure[:, -1] + jnp.where(unknown, UNKNOWN_CLASS_LOGIT, 0),
    prior_scale=scale,
    penalty=penalty,
    validation_losses=choice.losses,
    iterations=solution.iterations,
    converged=solution.converged,
  )


# Step, losses, departures of the folds, and their mean at each penalty.
Walk = tuple[Array, Array, Array, Array]


class Choice(NamedTuple):
  """Index of the penalty, held-out loss of each tried penalty, and a departure to start from."""

  which: Int[Array, ""]
  losses: Float[Array, "p"]
  start: Float[Array, "k r"]


def _choose_penalty(
  cell: Cells,
  axes: Axes,
  offsets: Float[Array, "n k"],
  penalties: Float[Array, "p"],
  num_folds: int,
  multi_label: bool,
) -> Choice:
  # [f, n]: loss weights of the held-out rows of each fold.
  held_out = jnp.stack([cell.folds == fold for fold in range(num_folds)]) * cell.weights
  has_folds = held_out.sum() > 0
  side_by_side = offsets.size <= FEW_LOGITS

  def fold(penalty: Array, lane: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return the solution without the held-out images, and the sum of their losses."""
    held, start = lane
    kept = cell.weights - held
    departure = solve(
      axes, offsets, cell.targets, kept, penalty, start, multi_label, FOLD_TOLERANCE
    ).departure
    logits = offsets + axes.rotated @ departure.T
    active = active_classes(cell.targets, kept)
    return departure, held @ row_losses(logits, cell.targets, active, multi_label)

  def falling(walk: Walk) -> Bool[Array, ""]:
    step, losses, _, _ = walk
    # One rise beyond the threshold ends the walk; step 0 has no previous loss.
    risen = losses[step - 1] > jnp.nanmin(losses) + MEANINGLESS_LOSS
    return has_folds & (step < len(penalties)) & ~((step > 0) & risen)

  def walk_on(walk: Walk) -> Walk:
    step, losses, departures, means = walk
    fit_fold = functools.partial(fold, penalties[step])
    departures, sums = _each(fit_fold, (held_out, departures), side_by_side)
    losses = losses.at[step].set(sums.sum() / held_out.sum())
    return step + 1, losses, departures, means.at[step].set(departures.mean(axis=0))

  shape = offsets.shape[1], axes.rotated.shape[1]
  begin = (
    jnp.zeros((), jnp.int32), jnp.full(len(penalties), jnp.nan), jnp.zeros((num_folds, *shape)),
    jnp.zeros((len(penalties), *shape)),
  )  # fmt: skip
  _, losses, _, means = jax.lax.while_loop(falling, walk_on, begin)
  # The first, and thus strongest, penalty that is as good as the best.
  best = jnp.argmax(losses <= jnp.nanmin(losses) + MEANINGLESS_LOSS)
  usual = jnp.argmin(jnp.abs(jnp.log(penalties / DEFAULT_PENALTY)))
  # Without folds, `means` are zeros: the fit then starts from the prior.
  index = jnp.where(has_folds, best, usual)
  return Choice(index, losses, means[index])


def _prior_bias(
  cell: Cells, prior: Float[Array, "k d"], num_rows: Float[Array, ""]
) -> Float[Array, "k"]:
  """Return biases that make the mean zero-shot logit 0: a scaled cosine is not a log-odds."""
  return -(cell.weights @ cell.features) @ prior.T / num_rows


def _prior_scale(cell: Cells, logits: Float[Array, "n k"], multi_label: bool) -> Float[Array, ""]:
  """Return the scale of the zero-shot logits that maximizes the likelihood of the external images.

  An overconfident prior would otherwise have to be corrected class by class. At one shot the scale
  stays 1, because a few wrong labels must not shrink it.
  """
  active = active_classes(cell.targets, cell.weights)
  scales = jnp.asarray(PRIOR_SCALES)

  def loss(scale: Float[Array, ""]) -> Float[Array, ""]:
    return cell.weights @ row_losses(scale * logits, cell.targets, active, multi_label)

  likeliest = scales[jnp.argmin(jax.lax.map(loss, scales))]
  return jnp.where((cell.folds >= 0).any(), likeliest, 1.0)


def fit_strict(
  training_sets: list[TrainingSet],
  prior: Float[Array, "k d"],
  multi_label: bool,
  has_text: bool,
  mesh: Mesh | None = None,
  penalties: tuple[float, ...] = PENALTIES,
) -> list[StrictFit]:
  """Fit every cell, in blocks of equal shape; results are in the order of the cells.

  Args:
    training_sets: the cells.
    prior, multi_label, has_text: see `fit_cells`.
    mesh: devices; None for the first device.
    penalties: from the strongest to the weakest.
  """
  mesh = data_mesh(jax.devices()[:1]) if mesh is None else mesh
  fits: list[StrictFit | None] = [None] * len(training_sets)
  programs = ProgramMemory()
  for shape, members in _blocks(training_sets, mesh.size):
    block = fit_cells(
      pad_cells([training_sets[i] for i in members], shape.rows, shape.cells, mesh),
      prior,
      jnp.asarray(penalties, jnp.float32),
      jnp.asarray(has_text),
      mesh=mesh,
      num_folds=shape.num_folds,
      multi_label=multi_label,
    )
    block = fetch(mesh, block)
    for cell, index in enumerate(members):
      fits[index] = jax.tree.map(operator.itemgetter(cell), block)
    programs.drop_if_large()  # compiling the search takes 100 MB, once for each shape
  return [fit for fit in fits if fit is not None]


class BlockShape(NamedTuple):
  """Shape of a compiled program: padded rows, cells at once, held-out folds."""

  rows: int
  cells: int
  num_folds: int


def _blocks(
  training_sets: list[TrainingSet], devices: int
) -> Iterator[tuple[BlockShape, list[int]]]:
  """Yield the shape and the cells of each block; few shapes, and not too many cells at once."""
  groups: dict[BlockShape, list[int]] = {}
  sizes = [len(training_set.features) for training_set in training_sets]
  # From large to small: the last shape is the smallest so far.
  for index in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
    training_set, last = training_sets[index], next(reversed(groups), None)
    shape = _block_shape(training_set, devices)
    if last and last.num_folds == shape.num_folds and _work(training_set, last.rows) <= FREE_WORK:
      shape = last
    groups.setdefault(shape, []).append(index)
  for shape, members in groups.items():
    cells = min(shape.cells, padded_size(1 << (len(members) - 1).bit_length(), devices))
    shape = shape._replace(cells=1 if len(members) == 1 else cells)
    for start in range(0, len(members), shape.cells):
      yield shape, sorted(members)[start : start + shape.cells]


def _work(training_set: TrainingSet, rows: int) -> int:
  """Return the number of products of one pass over padded features."""
  return rows * training_set.targets.shape[1] * training_set.features.shape[1]


def _block_shape(training_set: TrainingSet, devices: int) -> BlockShape:
  rows = padded_size(bucket_rows(len(training_set.features)), devices)
  cells = min(CELLS_AT_ONCE, FEW_LOGITS // (rows * training_set.targets.shape[1]))
  return BlockShape(
    rows,
    padded_size(cells, devices) if cells > 1 else 1,
    FOLDS_OF_FEW if rows <= FEW_IMAGES else 1,
  )
