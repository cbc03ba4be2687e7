"""Contribution of each test image to the scores of a run, with the keys of duels and comparisons."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.report.duels import Hits
from genbench_jax.report.quantities import on_its_features
from genbench_jax.report.results import Row, Series, View, belongs, beside_their_encoder
from genbench_jax.runtime.public import public
from genbench_jax.store import hits
from genbench_jax.store.class_values import key_of
from genbench_jax.store.hits import PerImage
from genbench_jax.store.rows import files_behind

# A score equals the mean of its hits up to rounding.
SAME = 1e-5
Key = tuple[str, Series, int, int, str]


def hits_of(workdir: Path, rows: Sequence[Row], view: View) -> Hits:
  """Return the contribution of each test image to the rows of a view, if it was kept.

  Hits are used only if their mean equals the value of a row.

  Args:
    workdir: work folder of the run.
    rows: rows of `results.jsonl`.
    view: protocol and encoder.
  """
  stored = _stored(workdir, files_behind(workdir, rows))
  found = dict(_of_rows(stored, rows, view))
  for (*cell, quantity), per_image in list(found.items()):
    base = found.get((*cell, "zero_shot"))  # type: ignore[arg-type]
    if quantity == "cler" and base is not None and base.images == per_image.images:
      gain = PerImage(per_image.values - base.values, per_image.images, per_image.classes)
      found[(*cell, "cler_gain")] = gain  # type: ignore[index]
  return found


def _stored(workdir: Path, behind: Collection[tuple[str, str]]) -> dict[tuple[Any, ...], PerImage]:
  """Return the contributions in the files that belong to the rows."""
  found: dict[tuple[Any, ...], PerImage] = {}
  for path in sorted(workdir.glob("hits/*/*.jsonl")):
    if (path.parent.name, path.stem) in behind:
      found |= hits.read(path)
  return found


def _of_rows(
  stored: Mapping[tuple[Any, ...], PerImage], rows: Sequence[Row], view: View
) -> Iterator[tuple[Key, PerImage]]:
  # Keys as on the page: a generator's name contains no path of this machine.
  for row, shown in zip(rows, public(beside_their_encoder(rows)), strict=True):
    if not belongs(shown, view):
      continue
    per_image = stored.get(key_of(row))
    if per_image and abs(per_image.score - float(row["value"] or 0)) < SAME:
      yield _key(shown), per_image


def _key(row: Row) -> Key:
  series = Series(row["source"], row.get("strategy") or "", row.get("generator") or "")
  quantity = on_its_features(row["quantity"], row.get("encoder") or "")
  return row["dataset"], series, int(row["shots"]), int(row.get("seed") or 0), quantity
