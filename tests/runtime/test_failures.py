"""Errors after which a run continues, and reasons of failed writes."""

import errno
import os

import pytest

from genbench_jax.errors import ModelError, RunError, UsageError
from genbench_jax.runtime.disk import DISK_ERRORS, disk_reason
from genbench_jax.runtime.failures import Failures


def test_a_models_error_fails_its_part_alone():
  failures = Failures()
  with failures.caught(("digits", "signs")):
    raise ModelError("NaN in the latents")
  assert "digits" in failures and "signs" in failures and "shapes" not in failures
  assert failures.summary().splitlines() == [
    "2 failed, the others are done:",
    "  digits: NaN in the latents",
    "  signs: NaN in the latents",
  ]


def test_other_errors_end_the_run_unless_it_is_to_go_on():
  with pytest.raises(RunError), Failures().caught("digits"):
    raise RunError("gone")
  failures = Failures(keep_going=True)
  with failures.caught("digits"):
    raise RunError("gone")
  assert failures.reasons == {"digits": "gone"}
  with pytest.raises(UsageError), failures.caught("signs"):
    raise UsageError("a mistake of the user")


@pytest.mark.parametrize("number", DISK_ERRORS)
def test_the_systems_words_for_a_disk(number):
  assert disk_reason(OSError(number, os.strerror(number))) == os.strerror(number)


def test_libraries_tell_of_the_disk_in_the_words_of_other_errors():
  said = f"UNKNOWN: write failed; {os.strerror(errno.ENOSPC)}"
  for kind in (RuntimeError, ValueError):
    assert disk_reason(kind(said)) == os.strerror(errno.ENOSPC)
  for other in (KeyError(said), ValueError("wrong shape"), OSError(errno.ECHILD, "no child")):
    assert disk_reason(other) == ""
