"""From the values of single classes that the stages stored to what the page shows of them."""

from collections.abc import Mapping, Sequence

import numpy as np

from genbench_jax.report.classes import ClassScores
from genbench_jax.report.quantities import RECOGNIZERS
from genbench_jax.store.class_values import ClassValues

SHOWN = (*RECOGNIZERS, "cler")
PROTOCOLS = ("strict", "reference")


def class_scores(every: Sequence[ClassValues]) -> list[ClassScores]:
  """How well each recogniser knows the single classes, beside zero-shot: means over the seeds.

  Of one protocol, `strict` where it was run: `reference` says what the published code would, not what is so.
  """
  protocols = {one["protocol"] for one in every}
  of_one = [one for one in every if one["protocol"] == min(protocols, key=PROTOCOLS.index)]
  zero_shot = {one["dataset"]: one["values"] for one in of_one if one["quantity"] == "zero_shot"}
  seeds: dict[tuple[str, str, str, int, str], list[Mapping[str, float]]] = {}
  for one in of_one:
    if one["quantity"] in SHOWN and one["dataset"] in zero_shot:
      key = (one["dataset"], one["source"], one["strategy"], one["shots"], one["quantity"])
      seeds.setdefault(key, []).append(one["values"])
  return [ClassScores(*key, _means(values), zero_shot[key[0]]) for key, values in seeds.items()]


def _means(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
  return {name: float(np.mean([one[name] for one in values])) for name in values[0]}
