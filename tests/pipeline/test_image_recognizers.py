"""Recognizers of images, cell by cell: a failed one leaves the others alone."""

from types import SimpleNamespace

import numpy as np
import pytest

from genbench_jax.errors import ModelError
from genbench_jax.pipeline import image_recognizers as module


@pytest.mark.unchecked
def test_only_the_cell_whose_scores_are_not_numbers_fails(monkeypatch):
  """Finite weights and losses can still overflow on test images."""
  view = SimpleNamespace(stored_size=8)
  method = SimpleNamespace(name="from_scratch", problem=SimpleNamespace(view=view))
  tasks = [SimpleNamespace(name=str(number)) for number in range(3)]
  data = SimpleNamespace(
    spec=SimpleNamespace(name="digits", metric="accuracy"), test=SimpleNamespace(labels=np.zeros(2))
  )
  fits = iter([ModelError("diverged"), "overflows", "works"])

  def evaluated(method, fit, *given):
    if fit == "overflows":
      raise ModelError("the scores are not numbers")
    return {"score": 0.5}

  for name, stand_in in {
    "test_images": lambda *given: None, "decoded": lambda *given: None, "evaluated": evaluated,
    "_training_set": lambda *given: None, "_place": lambda *given: None,
    "fit_cells": lambda *given: [next(fits)],
  }.items():  # fmt: skip
    monkeypatch.setattr(module, name, stand_in)
  run = SimpleNamespace(mesh=None)
  first, second, third = module.trained(run, data, tasks, "strict", lambda task: method)
  assert str(first) == "diverged" and str(second) == "from_scratch: the scores are not numbers"
  assert third.result == {"score": 0.5}
