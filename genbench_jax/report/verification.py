"""Comparison of submissions with the same inputs: equal fingerprints, values within tolerance."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from genbench_jax.report.number_words import percent, shown
from genbench_jax.report.quantities import quantity_of
from genbench_jax.report.results import Estimate

# Devices round differently, which can change the prediction of one or two test images.
ACCURACY_TOLERANCE = 0.005
# Relative tolerance of distances and counts.
RELATIVE_TOLERANCE = 0.02


@dataclasses.dataclass(frozen=True)
class Measurement:
  """One line of the leaderboard before it is compared with others.

  Attributes:
    entry: index of its submission.
    key: dataset, source, generator, strategy, shots, protocol, encoder.
    inputs: fingerprints of its image sets and of the dataset's features; empty if one is unknown.
    estimates: quantity -> value.
  """

  entry: int
  key: tuple[Any, ...]
  inputs: frozenset[str]
  estimates: Mapping[str, Estimate]


@dataclasses.dataclass(frozen=True)
class Verdict:
  """Number of runs that agree, and the first disagreement."""

  agreeing: int = 0
  objection: str = ""

  @property
  def text(self) -> str:
    if self.objection:
      return f"disputed: {self.objection}"
    return f"verified, {self.agreeing + 1} runs" if self.agreeing else "one run"


def verdict(mine: Measurement, measurements: Sequence[Measurement], runs: Sequence[Any]) -> Verdict:
  """Return whether other runs with the same inputs agree with a measurement.

  Args:
    mine: the measurement.
    measurements: all measurements of all submissions.
    runs: identity of the run of each submission; submitting a run twice verifies nothing.
  """
  others = {
    runs[other.entry]: other
    for other in measurements
    if other.key == mine.key
    and runs[other.entry] != runs[mine.entry]
    and mine.inputs
    and other.inputs == mine.inputs
  }
  found = [disagreement(mine, other) for other in others.values()]
  objections = [text for text in found if text]
  return Verdict(len(found) - len(objections), objections[0] if objections else "")


def disagreement(mine: Measurement, other: Measurement) -> str:
  """Return the first quantity on which two measurements disagree; empty if they agree."""
  for name, estimate in mine.estimates.items():
    if name in other.estimates and not agree(name, estimate.value, other.estimates[name].value):
      quantity = quantity_of(name)
      here, there = shown(quantity, estimate.value), shown(quantity, other.estimates[name].value)
      return f"{quantity.label} {here} here, {there} elsewhere"
  return ""


def agree(name: str, one: float, other: float) -> bool:
  """Return whether two values of a quantity are equal within the tolerance.

  Args:
    name: name of the quantity.
    one: a value.
    other: another value.
  """
  if quantity_of(name).kind in ("accuracy", "difference"):
    return abs(one - other) <= ACCURACY_TOLERANCE + 1e-12
  return abs(one - other) <= RELATIVE_TOLERANCE * max(abs(one), abs(other), 0.05)


def tolerance_words() -> str:
  """Return the tolerances in words, for the page."""
  return (
    f"accuracies within {percent(ACCURACY_TOLERANCE)} points of each other, other quantities within "
    f"{percent(RELATIVE_TOLERANCE)} %"
  )
