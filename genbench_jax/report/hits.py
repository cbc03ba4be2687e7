"""Which test images each score of a run recognized, by the cell that duels and comparisons look it up with."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.report.duels import Hits
from genbench_jax.report.quantities import on_its_features
from genbench_jax.report.results import Row, Series, View, belongs, beside_their_encoder
from genbench_jax.runtime.public import public
from genbench_jax.store import hits
from genbench_jax.store.class_values import key_of
from genbench_jax.store.hits import PerImage

# A score is the mean of its hits, up to how it was summed.
SAME = 1e-5
Key = tuple[str, Series, int, int, str]


def hits_of(workdir: Path, rows: Sequence[Row], view: View) -> Hits:
  """Return what each test image adds to the rows of a view, where that was kept.

  Files of other settings may lie beside those of the rows: what counts is what adds up to a row's value.

  Args:
    workdir: of the run.
    rows: as in `results.jsonl`.
    view: protocol and encoder.
  """
  stored = _stored(workdir)
  found = dict(_of_rows(stored, rows, view))
  for (*cell, quantity), one in list(found.items()):
    base = found.get((*cell, "zero_shot"))  # type: ignore[arg-type]
    if quantity == "cler" and base is not None and base.images == one.images:
      gain = PerImage(one.values - base.values, one.images, one.classes)
      found[(*cell, "cler_gain")] = gain  # type: ignore[index]
  return found


def _stored(workdir: Path) -> dict[tuple[Any, ...], list[PerImage]]:
  found: dict[tuple[Any, ...], list[PerImage]] = {}
  for path in sorted(workdir.glob("hits/*/*.jsonl")):
    for key, one in hits.read(path).items():
      found.setdefault(key, []).append(one)
  return found


def _of_rows(
  stored: Mapping[tuple[Any, ...], Sequence[PerImage]], rows: Sequence[Row], view: View
) -> Iterator[tuple[Key, PerImage]]:
  # Keys as the page has them: no path of this machine in a generator's name.
  for row, shown in zip(rows, public(beside_their_encoder(rows)), strict=True):
    if not belongs(shown, view):
      continue
    for one in stored.get(key_of(row), ()):
      if abs(one.score - float(row["value"] or 0)) < SAME:
        yield _key(shown), one


def _key(row: Row) -> Key:
  series = Series(row["source"], row.get("strategy") or "", row.get("generator") or "")
  quantity = on_its_features(row["quantity"], row.get("encoder") or "")
  return row["dataset"], series, int(row["shots"]), int(row.get("seed") or 0), quantity
