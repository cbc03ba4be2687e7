"""Progress lines are readable at any speed."""

import time

import pytest

from genbench_jax.runtime import progress
from genbench_jax.runtime.progress import Progress, pace


@pytest.mark.parametrize(
  ("rate", "words"),
  [(35.84, "35.8/s"), (1.0, "1.0/s"), (0.24, "4.2 s each"), (0.004, "250.0 s each")],
)
def test_slow_rates_are_seconds_per_item(rate, words):
  assert pace(rate) == words


def test_no_line_shows_a_rate_of_zero(monkeypatch, capsys):
  times = iter([0.0, 50.0, 100.0])
  monkeypatch.setattr(progress.time, "monotonic", lambda: next(times, 100.0))
  with Progress("embed", 3, "images") as bar:
    bar.advance(1)
    bar.advance(2)
  told = capsys.readouterr().err
  assert "0.0/s" not in told
  assert "embed: 1/3 images, 50.0 s each, 100 s left" in told


def test_a_long_step_is_not_silent(monkeypatch, capsys):
  monkeypatch.setattr(progress, "QUIET_SECONDS", 0.05)
  with Progress("score", 7, "cells"):
    time.sleep(0.3)
  told = capsys.readouterr().err.splitlines()
  assert 2 <= len(told) <= 6
  assert all(line == "score: 0/7 cells, 0 s so far" for line in told)
  time.sleep(0.1)
  assert not capsys.readouterr().err
