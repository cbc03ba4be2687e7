"""A training that is stopped and resumed ends with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genbench_jax.errors import ModelError
from genbench_jax.recognizers import training
from genbench_jax.recognizers.prompt_tuning import CoopSettings, learn_context
from genbench_jax.recognizers.settings import VptSettings
from genbench_jax.recognizers.training import batch_rows, run_steps
from genbench_jax.recognizers.visual_prompts import learn_visual_prompts
from genbench_jax.zoo.tiny import pixel_reader

STEPS, SAVE_EVERY = 14, 4


class StoppedError(Exception):
  """Raised in the middle of a training."""


def coop(clip, directory=None):
  """Return context vectors per class, and the losses of the executed steps."""
  generator = np.random.default_rng(0)
  features = generator.normal(size=(20, 16)).astype(np.float32)
  targets = np.eye(3, dtype=np.float32)[np.arange(20) % 3]
  settings = CoopSettings(context_length=2, per_class=True, steps=STEPS, batch_size=8, warmup=2)
  names = ("cat", "dog", "owl")
  found = learn_context(clip, names, features, targets, settings, None, directory, SAVE_EVERY)
  return found.vectors, found.losses


def vpt(clip, directory=None):
  """Return visual prompts, and the losses of the executed steps."""
  generator = np.random.default_rng(0)
  text = generator.normal(size=(3, 16)).astype(np.float32)
  read = pixel_reader(generator.normal(size=(20, 32, 32, 3)).astype(np.float32))
  targets = np.eye(3, dtype=np.float32)[np.arange(20) % 3]
  settings = VptSettings(prompt_length=2, steps=STEPS, batch_size=8, images_at_once=4, warmup=2)
  found = learn_visual_prompts(clip, text, read, targets, settings, None, directory, SAVE_EVERY)
  return found.tokens, found.losses


LEARN = {"coop": coop, "vpt": vpt}


def checkpoints(directory):
  return sorted(int(entry.name) for entry in directory.iterdir() if entry.name.isdigit())


@pytest.mark.parametrize("name", LEARN)
def test_a_stopped_and_resumed_training_ends_with_identical_weights(
  tiny_clip, tmp_path, name, monkeypatch
):
  """test_image_stage.py kills a process in this loop."""
  save = training._save

  def save_and_stop(manager, step, state):
    save(manager, step, state)
    if step == 8:
      raise StoppedError

  with monkeypatch.context() as patch, pytest.raises(StoppedError):
    patch.setattr(training, "_save", save_and_stop)
    LEARN[name](tiny_clip, tmp_path)
  assert checkpoints(tmp_path) == [4, 8]
  resumed, losses = LEARN[name](tiny_clip, tmp_path)
  undisturbed, all_losses = LEARN[name](tiny_clip)
  np.testing.assert_array_equal(resumed, undisturbed)
  assert len(losses) == STEPS - 8 and len(all_losses) == STEPS
  np.testing.assert_array_equal(losses, all_losses[8:])
  assert checkpoints(tmp_path) == [12, 14]


def test_a_finished_run_repeats_nothing(tmp_path):
  optimizer = optax.sgd(0.1)

  def step(state, target, batch):
    weights, optimizer_state = state
    updates, optimizer_state = optimizer.update(weights - target, optimizer_state)
    return (optax.apply_updates(weights, updates), optimizer_state), jnp.sum(weights)

  def train():
    state = (jnp.zeros(5), optimizer.init(jnp.zeros(5)))
    return run_steps(jax.jit(step), state, jnp.ones(5), lambda first: iter(range(9)), 9, tmp_path)

  (weights, _), _ = train()
  (again, _), losses = train()
  np.testing.assert_array_equal(weights, again)
  assert len(losses) == 0


def test_a_divergence_in_the_last_step_is_found_and_not_kept(tmp_path):
  """The loss of a step precedes its update, so the losses of this training are all finite."""
  from genbench_jax.runtime.mesh import data_mesh

  loss_and_gradient = lambda weights, frozen, batch: (weights.sum(), jnp.full(2, batch))  # noqa: E731
  mesh = data_mesh(jax.devices()[:1])
  program = training.make_program("coop", loss_and_gradient, optax.sgd(0.1), mesh)
  batches = lambda first: iter(jnp.asarray([1.0, 1.0, np.inf][first:]))  # noqa: E731
  for _ in range(2):  # the second time, there is nothing left to compute
    with pytest.raises(ModelError, match="coop: the last of 3 steps"):
      training.learn(program, jnp.zeros(2), None, batches, 3, mesh, tmp_path, 1)


def test_no_checkpoint_follows_a_loss_that_is_rejected(tmp_path):
  def watch(number, loss):
    if not np.isfinite(loss):
      raise ValueError(number)

  step = lambda state, frozen, batch: ([state[0] + 1], batch)  # noqa: E731
  losses = [1.0, 2.0, float("nan"), 3.0]
  with pytest.raises(ValueError, match="2"):
    run_steps(step, [jnp.zeros(())], None, lambda first: iter(losses), 4, tmp_path, 1, watch=watch)
  assert checkpoints(tmp_path) == [1, 2]


@pytest.mark.parametrize("damage", ["emptied", "lost", "cut"])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before_it(tmp_path, damage, capsys):
  step = lambda state, frozen, batch: ({"sum": state["sum"] + batch}, batch)  # noqa: E731
  batches = lambda first: iter(jnp.arange(1.0, 6)[first:])  # noqa: E731

  def train(steps):
    return run_steps(step, {"sum": jnp.zeros(3)}, None, batches, steps, tmp_path, 2)

  train(4)
  for path in [path for path in (tmp_path / "4").rglob("*") if path.is_file()]:
    if damage == "lost":
      path.unlink()
    else:
      path.write_bytes(
        b"" if damage == "emptied" else path.read_bytes()[: path.stat().st_size // 2]
      )
  state, losses = train(5)
  np.testing.assert_array_equal(state["sum"], np.full(3, 15.0))
  assert losses.tolist() == [3, 4, 5] and checkpoints(tmp_path) == [4, 5]
  assert "The checkpoint of step 4 is damaged and is deleted" in capsys.readouterr().err


def test_batches_continue_across_epochs():
  rows = np.concatenate([batch_rows(number, 8, 20, seed=1) for number in range(5)])
  assert sorted(rows[:20]) == sorted(rows[20:]) == list(range(20))


@pytest.mark.parametrize(("number", "size", "rows"), [(0, 3, 5), (3, 4, 5), (1, 12, 5), (2, 5, 5)])
def test_a_batch_is_cut_from_permutations_laid_end_to_end(number, size, rows):
  endless = np.concatenate(
    [np.random.default_rng([7, epoch]).permutation(rows) for epoch in range(9)]
  )
  found = batch_rows(number, size, rows, seed=7)
  np.testing.assert_array_equal(found, endless[number * size : (number + 1) * size])


@pytest.mark.parametrize("steps", [6, 7])
def test_the_second_half_of_the_steps_begins_an_order_of_its_own(steps):
  later = np.array([True, False, True, False, False])
  half = steps // 2
  for number in range(steps):
    rows = np.array([1, 3, 4] if number < half else [0, 2])
    step = number if number < half else number - half
    expected = rows[batch_rows(step, 2, len(rows), seed=3)]
    np.testing.assert_array_equal(training.mixed_rows(number, steps, 2, later, 5, 3), expected)
  for single in (None, np.zeros(5, bool), np.ones(5, bool)):
    found = training.mixed_rows(5, steps, 2, single, 5, 3)
    np.testing.assert_array_equal(found, batch_rows(5, 2, 5, 3))


@pytest.mark.parametrize(
  ("steps", "warmup", "rates"),
  [(10, 4, {0: 0, 2: 1, 4: 2, 7: 1, 10: 0}), (3, 9, {0: 0, 1: 1, 2: 2, 3: 0}), (1, 5, {0: 2})],
)
def test_the_rate_rises_and_then_falls_to_zero(steps, warmup, rates):
  schedule = training.warmup_cosine(2.0, steps, warmup)
  assert {step: float(schedule(step)) for step in rates} == pytest.approx(rates, abs=1e-6)


def test_labels_share_an_image_and_no_label_stays_none():
  targets = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0]], np.float32)
  np.testing.assert_allclose(training.label_shares(targets), [[0.5, 0.5, 0], [0] * 3, [0, 1, 0]])


def run(steps, directory=None, save_every=100, **options):
  """Run a step that counts, and return the final state, its outcomes, and what was watched."""
  seen = []
  step = lambda state, frozen, batch: ([state[0] + batch], state[0])  # noqa: E731
  batches = lambda first: iter(np.ones(steps - first))  # noqa: E731
  state, outcomes = run_steps(
    step, [jnp.zeros(())], None, batches, steps, directory, save_every,
    watch=lambda number, outcome: seen.append((number, float(outcome))), **options,
  )  # fmt: skip
  return float(state[0]), np.asarray(outcomes).tolist(), seen


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_every_step_is_watched_once_and_in_order(steps):
  each = [float(number) for number in range(steps)]
  assert run(steps) == (steps, each, [(number, each[number]) for number in range(steps)])


def test_checkpoints_are_written_at_multiples_and_at_the_end(tmp_path):
  folder, other = tmp_path / "first", tmp_path / "other"
  state, outcomes, seen = run(7, folder, 3, keep=9)
  assert (state, len(outcomes), len(seen)) == (7, 7, 7)
  assert checkpoints(folder) == [3, 6, 7]
  run(7, other, 2)
  assert checkpoints(other) == [6, 7]  # the last two
  # Two more steps: a finished training goes on where it stopped.
  assert run(9, folder, 3) == (9, [7, 8], [(7, 7.0), (8, 8.0)])


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), np.array([1.0, np.nan])])
def test_a_loss_that_is_not_finite_ends_the_training_at_its_step(loss):
  training.refuse_divergence("coop", 3, 1.0)
  with pytest.raises(ModelError, match=r"coop: the loss is .* at step 4"):
    training.refuse_divergence("coop", 3, loss)
  assert training.all_finite({"a": np.ones(2), "b": [np.zeros(1)]})
  assert not training.all_finite({"a": np.ones(2), "b": [np.array([1, np.inf])]})
