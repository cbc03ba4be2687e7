"""The report page from the contents of a work folder, without models or datasets."""

import base64
import collections
import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int

from genbench_jax.errors import RunError, UsageError
from genbench_jax.report.classes import ClassScores, class_gains, class_scores
from genbench_jax.report.gallery import Entry, Gallery, ImageVerdict, Nearest
from genbench_jax.report.hits import hits_of
from genbench_jax.report.page import every_view, headline_of, write_report
from genbench_jax.report.recognitions import Recognition, recognitions
from genbench_jax.report.results import is_number
from genbench_jax.report.thumbnails import thumbnail
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.public import public
from genbench_jax.store import class_values, files
from genbench_jax.store.image_bytes import UNREADABLE
from genbench_jax.store.image_set import MANIFEST, ImageSet
from genbench_jax.store.rows import files_behind, results_run

Value = TypeVar("Value")
ClassGains = Mapping[str, Mapping[str, float]]
MEND = "Delete the folder report/ and run again."
RUN, MADE_FROM = "run.json", ".made_from"
EDITED = "The rows were changed after the run wrote them: results.jsonl does not match its seal."
# Limits on the images of the whole page, more than ever fit, and of one set.
MOST_SHOWN, LEAST_SHOWN = 4000, 24


def write_page(
  workdir: Path,
  rows: Sequence[Mapping[str, Any]],
  about: Mapping[str, Any],
  image_sets: Iterable[Path],
  gallery_images: int,
  class_scores: Sequence[ClassScores] = (),
  nearest: Mapping[Path, Mapping[int, Nearest]] | None = None,
  judged: Mapping[Path, Mapping[int, ImageVerdict]] | None = None,
  generators: Mapping[Path, str] | None = None,
) -> Path:
  """Write `report/` and a file with the inputs of the page, so that it can be made again.

  Args:
    workdir: work folder of the run.
    rows: rows of `results.jsonl`.
    about: description of the run, see `page.RunInfo`.
    image_sets: folders of the image sets to show, in order.
    gallery_images: number of images of a class.
    class_scores: accuracies for the figure of the best and worst classes.
    nearest: image set -> image index -> the most similar test image.
    judged: image set -> image index -> zero-shot prediction of the image.
    generators: image set -> name of its generators, if there are several; by default the name
      stored in the set.
  """
  folders = list(image_sets)
  known, verdicts = nearest or {}, judged or {}
  gains = class_gains(class_scores)
  galleries = [
    gallery(
      ImageSet(path),
      gallery_images,
      known.get(path, {}),
      len(folders),
      gains,
      verdicts.get(path, {}),
      (generators or {}).get(path, ""),
    )
    for path in folders
  ]
  recognized = recognitions_of(workdir, rows)
  hits = hits_of(workdir, rows, every_view(rows)[0].view)
  # A page is made to be shared, so nothing on it identifies this machine.
  rows, about = public(list(rows)), public(dict(about))
  galleries = [dataclasses.replace(shown, generator=public(shown.generator)) for shown in galleries]
  class_scores = [
    dataclasses.replace(scores, generator=public(scores.generator)) for scores in class_scores
  ]
  page = write_report(rows, galleries, about, workdir / "report", class_scores, recognized, hits)
  inputs = {
    "run": dict(about),
    "image_sets": [path.relative_to(workdir).as_posix() for path in folders],
    "gallery_images": gallery_images,
    "generators": _by_name(workdir, generators or {}, lambda name: name),
    "judged": _by_name(workdir, verdicts, _verdict_items),
    "nearest": _by_name(workdir, known, _nearest_items),
    "files": {
      name: checksum
      for name, checksum in files.checksums(workdir / "report").items()
      if name not in (RUN, MADE_FROM)
    },
  }
  files.write_json(workdir / "report" / RUN, json.loads(json.dumps(inputs, default=list)))
  return page


def _by_name(
  workdir: Path, values: Mapping[Path, Value], as_json: Callable[[Value], Any]
) -> dict[str, Any]:
  """Return path below the work folder -> value as JSON."""
  return {path.relative_to(workdir).as_posix(): as_json(value) for path, value in values.items()}


def _verdict_items(by_row: Mapping[int, ImageVerdict]) -> list[list[Any]]:
  return [
    [row, verdict.class_name, verdict.right, verdict.margin] for row, verdict in by_row.items()
  ]


def _nearest_items(by_row: Mapping[int, Nearest]) -> list[list[Any]]:
  return [
    [row, base64.b64encode(found.image).decode(), found.class_name, found.cosine]
    for row, found in by_row.items()
  ]


def recognitions_of(workdir: Path, rows: Sequence[Mapping[str, Any]]) -> list[Recognition]:
  """Return the predictions of the headline's recognizer; empty if no row has a value."""
  if not any(is_number(row.get("value")) for row in rows):
    return []
  main = every_view(rows)[0]
  quantity, shots = headline_of(main)
  if quantity is None or shots is None:
    return []
  return recognitions(workdir, rows, quantity, shots, main.view.protocol)


def shown_rows(images: ImageSet, per_class: int, sets: int, gains: ClassGains) -> list[int]:
  """Return the images of a set that a gallery shows: the first of each class.

  A page with many image sets has less space for each. Fewer classes are then shown: those with the
  largest gains and losses, or evenly spaced ones if gains are unknown, so that all image sets of a
  dataset show the same classes.

  Args:
    images: the set.
    per_class: number of images of a class.
    sets: number of image sets on the page.
    gains: dataset -> class name -> gain from the images.
  """
  labels, most = _first_labels(images), max(LEAST_SHOWN, MOST_SHOWN // sets)
  names = images.class_names
  per_class = max(1, min(per_class, most // len(names)))
  kept = set(range(len(names)))
  if len(names) > most:
    known = gains.get(images.manifest["made_from"]["dataset"], {})
    evenly = [turn * len(names) // most for turn in range(most)]
    ranked = sorted(
      (label for label in kept if names[label] in known), key=lambda i: known[names[i]]
    )
    kept = set((ranked[: most // 2] + ranked[-(most // 2) :]) if len(ranked) > most else evenly)
  return [row for row in first_of_each(labels, per_class) if labels[row] in kept]


def first_of_each(labels: Int[np.ndarray, "n"], count: int) -> list[int]:
  """Return the rows of the first `count` images of each class, in order."""
  seen: collections.Counter[int] = collections.Counter()
  rows = []
  for row, label in enumerate(labels.tolist()):
    seen[label] += 1
    if seen[label] <= count:
      rows.append(row)
  return rows


def gallery(
  images: ImageSet,
  per_class: int,
  nearest: Mapping[int, Nearest],
  sets: int,
  gains: ClassGains,
  judged: Mapping[int, ImageVerdict] | None = None,
  generator: str = "",
) -> Gallery:
  """Return the images of a set that `shown_rows` selects.

  Args:
    images: the set.
    per_class: number of images of a class.
    nearest: image index -> the most similar test image.
    sets: number of image sets on the page.
    gains: dataset -> class name -> gain from the images.
    judged: image index -> zero-shot prediction of the image.
    generator: name of the generator; by default the name stored in the set.
  """
  judged = judged or {}
  key, names, labels = images.manifest["made_from"], images.class_names, _first_labels(images)
  entries = []
  for row in shown_rows(images, per_class, sets, gains):
    record = images[row]
    if record.image == UNREADABLE:
      continue
    entries.append(
      Entry(
        names[labels[row]],
        thumbnail(record.image),
        record.prompt or None,
        record.negative_prompt or None,
        record.seed if record.prompt else None,
        nearest.get(row),
        judged.get(row),
        row,
      )
    )
  generator = generator or key.get("generator") or ""
  return Gallery(key["dataset"], key["source"], key["strategy"], entries, generator)


def _first_labels(images: ImageSet) -> Int[np.ndarray, "n"]:
  """Return the class under which an image is shown: its first class, or class 0 without any."""
  labels = images.labels
  return labels.argmax(axis=1) if labels.ndim == 2 else labels


def rebuild(workdir: Path, price: float | None = None) -> Path:
  """Make the page of a work folder again.

  Args:
    workdir: work folder of the run.
    price: USD per device-hour; with it, the ranking shows the cost of the images.

  Raises:
    UsageError: there are no results.
  """
  rows, about = read_run(workdir)
  if price is not None:
    about = {**about, "price": price}
  made_from = page_of_results(workdir)
  sets = [workdir / name for name in made_from.get("image_sets", _newest_sets(workdir, rows))]
  there = [folder for folder in sets if ImageSet.exists(folder)]
  behind = files_behind(workdir, rows)
  measured = [
    entry
    for file in sorted(workdir.glob("classes/*/*.jsonl"))
    if (file.parent.name, file.stem) in behind
    for entry in class_values.read(file)
  ]
  per_class = made_from.get("gallery_images", 6)
  with files.reading(workdir / "report" / RUN, MEND):
    judged = {
      workdir / name: {int(row): ImageVerdict(*verdict) for row, *verdict in verdicts}
      for name, verdicts in made_from.get("judged", {}).items()
    }
    nearest = {
      workdir / name: {
        int(row): Nearest(base64.b64decode(image), *about_it) for row, image, *about_it in found
      }
      for name, found in made_from.get("nearest", {}).items()
    }
    generators = {workdir / name: own for name, own in made_from.get("generators", {}).items()}
  scores = class_scores(measured)
  return write_page(workdir, rows, about, there, per_class, scores, nearest, judged, generators)


def read_run(workdir: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
  """Return the rows of a work folder and the description of the run.

  Raises:
    UsageError: there are no results.
    RunError: the results are damaged.
  """
  results = workdir / "results.jsonl"
  if not results.exists():
    raise UsageError(f"there is no {results}. Give the work folder of a run that has results.")
  rows = files.read_json_lines(results)
  for row in rows:
    names = [row.get(name) for name in ("dataset", "source", "quantity")]
    if "value" not in row or not all(isinstance(name, str) for name in names):
      raise RunError(
        f"{results} is damaged: a row has no dataset, source, quantity or value. Run again."
      )
  return rows, _about_results(workdir)


def _about_results(workdir: Path) -> dict[str, Any]:
  """Return the description of the run that measured the rows."""
  name, as_written = results_run(workdir)
  about = _page_of(workdir, name).get("run") or _ledger(workdir, name)
  if as_written:
    return about
  say(f"{workdir}: {EDITED}")
  return {**about, "warnings": [*about.get("warnings", ()), EDITED]}


def page_of_results(workdir: Path) -> dict[str, Any]:
  """Return the inputs of the page of a work folder's results; empty if there is none."""
  return _page_of(workdir, results_run(workdir)[0])


def _page_of(workdir: Path, name: str) -> dict[str, Any]:
  """Return the inputs of the last page, if it is a page of this run."""
  made_from = _page_before(workdir)
  is_same = not name or made_from.get("run", {}).get("run") == name
  return made_from if is_same else {}


def _ledger(workdir: Path, name: str) -> dict[str, Any]:
  """Return what a run recorded about itself; by default the last run."""
  ledgers = sorted((workdir / "runs").glob("*.json"), key=lambda file: file.stat().st_mtime)
  own = [path for path in ledgers if path.stem == name] if name else ledgers
  return files.read_json(own[-1]) if own else {}


def _page_before(workdir: Path) -> dict[str, Any]:
  """Return the inputs of the existing page; empty if there is none.

  Raises:
    RunError: the file is malformed or names image sets outside the work folder.
  """
  path = workdir / "report" / RUN
  if not path.exists():
    return {}
  made_from = files.read_json(path)
  kinds = {"run": dict, "image_sets": list, "gallery_images": int, "judged": dict, "nearest": dict}
  is_whole = isinstance(made_from, dict) and all(
    isinstance(made_from.get(name, kind()), kind) for name, kind in kinds.items()
  )
  if not is_whole or "run" not in made_from or not _is_info(made_from["run"]):
    raise RunError(f"{path} is damaged: the inputs of the page are missing. {MEND}")
  for name in made_from.get("image_sets", ()):
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
      raise RunError(f"{path} is damaged: it names image sets outside the work folder. {MEND}")
  return made_from


def _is_info(info: Mapping[str, Any]) -> bool:
  """Return whether the values of a `RunInfo` have the right types."""
  words = all(
    isinstance(info.get(name, ""), str)
    for name in ("title", "command", "config", "device", "started")
  )
  tables = all(
    isinstance(info.get(name, {}), dict) for name in ("versions", "seconds", "images", "costs")
  )
  lists = all(
    isinstance(info.get(name, []), list)
    for name in ("datasets", "warnings", "prompt_lint", "leak_audit")
  )
  return words and tables and lists


def _newest_sets(workdir: Path, rows: Sequence[Mapping[str, Any]]) -> list[str]:
  """Return the newest version of each image set that has rows."""
  wanted = {(row["dataset"], row["source"], row.get("strategy") or "") for row in rows}
  newest: dict[tuple[str, str, str], Path] = {}
  for path in sorted(workdir.glob(f"images/*/*/{MANIFEST}"), key=lambda file: file.stat().st_mtime):
    with files.reading(path):
      key = ImageSet(path.parent).manifest["made_from"]
      newest[key["dataset"], key["source"], key["strategy"]] = path.parent
  return [p.relative_to(workdir).as_posix() for key, p in sorted(newest.items()) if key in wanted]
