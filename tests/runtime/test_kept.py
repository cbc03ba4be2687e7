"""Caches in the objects that they belong to."""

import dataclasses
import gc
import weakref

import pytest

from genbench_jax.runtime.kept import kept


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """Stands for a model: frozen, hashed by identity."""

  size: int


class Slotted:
  """An object without attributes of its own."""

  __slots__ = ()


def counted(most=8):
  """Return a cached function, and the list of its real calls."""
  calls = []

  @kept(most)
  def program(owner, factor=1, *, shift=0):
    calls.append((factor, shift))
    return (owner, factor, shift)  # refers to its owner, as a compiled program does

  return program, calls


def test_a_value_is_made_once_for_each_object_and_argument():
  program, calls = counted()
  first, second = Model(1), Model(1)
  for _ in range(2):
    assert program(first, 2) == (first, 2, 0)
    assert program(first, 3, shift=1) == (first, 3, 1)
    assert program(second, 2) == (second, 2, 0)
  assert len(calls) == 3


def test_two_functions_do_not_share_values():
  (double, _), (triple, calls) = counted(), counted()
  model = Model(1)
  double(model)
  triple(model)
  assert len(calls) == 1


def test_a_value_dies_with_its_object():
  program, _ = counted()
  model = Model(1)
  program(model)
  alive = weakref.ref(model)
  del model
  gc.collect()
  assert alive() is None


@pytest.mark.parametrize("most", [1, 2, 3])
def test_the_least_recently_used_value_is_dropped(most):
  program, calls = counted(most)
  models = [Model(i) for i in range(most + 1)]
  for model in models[:most]:
    program(model)
  program(models[0])  # used again, so the second one is the oldest
  program(models[most])
  del calls[:]
  program(models[most])
  assert not calls
  kept_first = most > 1
  program(models[0])
  assert len(calls) == (0 if kept_first else 1)
  program(models[1 if most > 1 else 0])
  assert len(calls) == 1


def test_a_copy_with_other_fields_starts_empty():
  program, calls = counted()
  model = Model(1)
  program(model)
  other = dataclasses.replace(model, size=2)
  assert program(other) == (other, 1, 0)
  assert len(calls) == 2


def test_an_object_without_attributes_gets_its_value_every_time():
  program, calls = counted()
  owner = Slotted()
  assert program(owner) == program(owner) == (owner, 1, 0)
  assert len(calls) == 2


def test_an_error_is_not_kept():
  calls = []

  @kept(2)
  def fails_once(owner):
    calls.append(owner)
    if len(calls) == 1:
      raise ValueError("no memory")
    return 7

  model = Model(1)
  with pytest.raises(ValueError, match="no memory"):
    fails_once(model)
  assert fails_once(model) == 7
