"""A submission: the measurements of a run in one small JSON file that others can check.

Everything is read from the work folder; no model or dataset is loaded. Paths of this machine are
reduced to their last component.
"""

import json
import platform
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.errors import RunError
from genbench_jax.report.from_disk import EDITED, MEND, RUN, page_of_results, read_run
from genbench_jax.runtime.public import public, public_text
from genbench_jax.store import files
from genbench_jax.store.image_set import MANIFEST

FORMAT, VERSION = "genbench-submission", 1
# Seven digits exceed the precision of any interval and take a third of the bytes of a double.
DIGITS = 7
# Columns that do not describe the result.
LEFT_OUT = ("seconds",)
FINGERPRINT = re.compile(r"-([0-9a-f]{12})(?:\.[a-z]+)?$")


def submission(workdir: Path, by: str = "", note: str = "") -> dict[str, Any]:
  """Return the submission of a work folder, as JSON values.

  Args:
    workdir: work folder of a run that has results.
    by: name of the submitter.
    note: a sentence for the reader.

  Raises:
    UsageError: there are no results.
    RunError: the results are damaged, or were edited after the run.
  """
  rows, run = read_run(workdir)
  if EDITED in run.get("warnings", ()):
    raise RunError(f"{workdir}: {EDITED} Run the same command again, then submit.")
  body = {
    "format": FORMAT,
    "version": VERSION,
    "title": run.get("title") or workdir.name,
    "by": by,
    "note": note,
    "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    "software": dict(run.get("versions") or {}),
    "machine": _machine(run),
    "plan": _plan(rows, run),
    "image_sets": list(image_sets(workdir, rows, page_of_results(workdir))),
    "features": features(workdir, rows),
    "rows": packed(public(rows)),
  }
  return {**body, "checksum": checksum(body)}


def checksum(document: Mapping[str, Any]) -> str:
  """Return the digest of a submission without its `checksum` entry."""
  return files.digest({name: value for name, value in document.items() if name != "checksum"})


def packed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Return rows as column names and lists of values, a third of the size of objects."""
  columns = list(dict.fromkeys(key for row in rows for key in row))
  columns = [name for name in columns if name not in LEFT_OUT]
  data = [[_short(row.get(name)) for name in columns] for row in rows]
  return {"columns": columns, "data": data}


def unpacked(rows: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Return the rows of `packed` as objects."""
  return [dict(zip(rows["columns"], values, strict=True)) for values in rows["data"]]


def image_sets(
  workdir: Path, rows: Sequence[Mapping[str, Any]], page: Mapping[str, Any]
) -> Iterable[dict[str, Any]]:
  """Yield every complete image set that the rows are about: its fingerprint, content and recipe.

  These are the sets of the page. Without a page, all sets of the datasets, also those of other
  settings.

  `fingerprint` is a digest of everything that determines the images; `content` is a digest of the
  image files. Two machines with equal fingerprints should have equal rows. Their contents agree
  only if the images are equal byte for byte.

  Args:
    workdir: work folder of the run.
    rows: the measured rows.
    page: inputs of the page of these rows, see `from_disk`; empty if there is none.
  """
  wanted, shown = {row["dataset"] for row in rows}, page.get("image_sets")
  with files.reading(workdir / "report" / RUN, MEND):
    generators = dict(page.get("generators") or {})
  for path in sorted(workdir.glob(f"images/*/*/{MANIFEST}")):
    if shown is not None and path.parent.relative_to(workdir).as_posix() not in shown:
      continue
    with files.reading(path):
      found = _image_set(workdir, path, generators)
    if found and found["dataset"] in wanted:
      yield found


def _image_set(workdir: Path, path: Path, generators: Mapping[str, str]) -> dict[str, Any] | None:
  """Return what a manifest says of its images; None if its folder has no fingerprint.

  Args:
    workdir: work folder of the run.
    path: the manifest.
    generators: folder of an image set -> its generators; by default the name stored in the set.
  """
  manifest, fingerprint = files.read_json(path), FINGERPRINT.search(path.parent.name)
  made_from = manifest.get("made_from", {})
  if fingerprint is None:
    return None
  own = generators.get(path.parent.relative_to(workdir).as_posix())
  return {
    **{key: made_from.get(key, "") for key in ("dataset", "source", "strategy")},
    "generator": own or made_from.get("generator", ""),
    "seed": made_from.get("seed", 0),
    "images": manifest["num_images"],
    "fingerprint": fingerprint.group(1),
    "content": files.digest([shard["sha256"] for shard in manifest["shards"]]),
    "recipe": public(_recipe(made_from)),
  }


def features(workdir: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
  """Return dataset -> fingerprints of its test images and texts for each encoder."""
  found: dict[str, list[str]] = {}
  for dataset in dict.fromkeys(row["dataset"] for row in rows):
    names = sorted(path.stem for path in (workdir / "embeddings" / dataset).glob("te[sx]t*-*"))
    found[dataset] = [name for name in names if FINGERPRINT.search(name)]
  return found


def _recipe(made_from: Mapping[str, Any]) -> dict[str, Any]:
  """Return what determines the images, without what the entry already contains."""
  stated = ("dataset", "source", "generator", "strategy", "seed")
  return {name: value for name, value in made_from.items() if name not in stated}


def _machine(run: Mapping[str, Any]) -> dict[str, Any]:
  return {
    "device": run.get("device") or "",
    "devices": run.get("devices") or 0,
    "python": platform.python_version(),
    "system": f"{platform.system()} {platform.machine()}",
    "started": run.get("started") or "",
    "seconds": dict(run.get("seconds") or {}),
    "costs": dict(run.get("costs") or {}),
  }


def _plan(rows: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> dict[str, Any]:
  """Return what was requested and how much of it was measured."""
  try:
    config = json.loads(run.get("config") or "{}")
  except ValueError:
    config = {}
  config = json.loads(public_text(json.dumps(config)))
  return {
    "command": public_text(str(run.get("command") or "")),
    "datasets": list(run.get("datasets") or dict.fromkeys(row["dataset"] for row in rows)),
    "cells_measured": measured_cells(rows),
    "config": config,
    "config_fingerprint": files.digest(config),
  }


def measured_cells(rows: Sequence[Mapping[str, Any]]) -> int:
  """Return the number of cells with rows; controls and zero-shot baselines are no cells."""
  keys = ("dataset", "source", "generator", "strategy", "shots", "seed")
  cells = (row for row in rows if row.get("source") not in (None, "", "control"))
  return len({tuple(row.get(key) for key in keys) for row in cells})


def _short(value: Any) -> Any:
  """Round a number to the digits of a submission; other values are unchanged."""
  return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
