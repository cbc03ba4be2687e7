"""The leaderboard: many submissions as one static page, one line per measured setting."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.errors import UsageError
from genbench_jax.report import render
from genbench_jax.report.gains import gain
from genbench_jax.report.headline import text_start, with_text
from genbench_jax.report.labels import source_label, strategy_label
from genbench_jax.report.quantities import QUANTITIES, RECOGNIZERS, quantity_of
from genbench_jax.report.results import Estimate, Results, Series, results_of, views
from genbench_jax.report.submission import unpacked
from genbench_jax.report.submission_check import problems
from genbench_jax.report.verification import Measurement, tolerance_words, verdict
from genbench_jax.store.image_files import visible
from genbench_jax.store.reading import read_file
from genbench_jax.store.rows import KEYS as CELL_KEYS

_MOST_BYTES = 1 << 28
KEYS = tuple(key for key in CELL_KEYS if key != "seed")
# Quantities that a line shows. The entry's file has the others.
SHOWN = (*RECOGNIZERS, "cler", "fid", "fid_inception", "vendi")


# These columns are left out if they have the same value on every line.
UNSAID = ("generator", "protocol", "encoder")


def read_entries(folder: Path) -> list[tuple[str, dict[str, Any]]]:
  """Return the name and document of every valid submission in a folder.

  Raises:
    UsageError: the folder has no submission, or one is invalid. The message lists the problems.
  """
  paths = visible(folder, "*.json")
  if not paths:
    raise UsageError(f"no submission (*.json) in {folder}.")
  return [(path.name, read_entry(path)) for path in paths]


def read_entry(path: Path) -> dict[str, Any]:
  """Return a submission.

  Raises:
    UsageError: the file cannot be read or is invalid.
  """
  try:
    document = json.loads(read_file(path, _MOST_BYTES, follow=True))
  except (OSError, ValueError, RecursionError) as error:
    raise UsageError(
      f"{path} is not a submission: {error}. `genbench submit` makes one."
    ) from error
  if found := problems(document):
    raise UsageError(f"{path} is not a valid submission: {' '.join(found)}")
  return document


def write_board(entries: Sequence[tuple[str, Mapping[str, Any]]], out: Path) -> Path:
  """Write the leaderboard page to `out/index.html` and return its path.

  Args:
    entries: file name and document of each submission, from `read_entries`.
    out: folder of the page; created if missing.
  """
  documents = [document for _, document in entries]
  context = {
    "title": "How good are generated images as training data?",
    "entries": [_entry(name, document) for name, document in entries],
    "cells": board_data(documents),
    "rule": tolerance_words(),
  }
  page = render.render("board.html.jinja", **render.assets(), **context)
  return render.write(out / "index.html", page)


def board_data(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Return the table for the page's script: columns, rows and recipes."""
  measured = [
    measurement
    for index, document in enumerate(documents)
    for measurement in measurements(index, document)
  ]
  runs = [run_of(document) for document in documents]
  names = [name for name in SHOWN if any(name in measurement.estimates for measurement in measured)]
  columns = [{"name": key, "label": key, "kind": "key"} for key in (*KEYS, "checked")]
  columns.append({"name": "recipe", "label": "recipe", "kind": "recipe"})
  for name in names:
    columns.append({"name": name, "label": quantity_of(name).label, "kind": quantity_of(name).kind})
    if quantity_of(name).kind == "accuracy":
      columns.append({"name": f"{name}_gain", "label": "gain", "kind": "difference"})
  columns += [{"name": name, "label": name, "kind": "key"} for name in ("by", "device")]
  recipes = [recipe_of(documents[measurement.entry], measurement.key) for measurement in measured]
  distinct = list(dict.fromkeys(recipes))
  rows = [
    [
      *_key_values(measurement.key),
      verdict(measurement, measured, runs).text,
      distinct.index(recipe),
      *(value for name in names for value in _values(measurement, name)),
      documents[measurement.entry]["by"] or "–",
      documents[measurement.entry]["machine"]["device"],
    ]
    for measurement, recipe in zip(measured, recipes, strict=True)
  ]
  rows.sort(key=lambda row: (row[0], -row[KEYS.index("shots")], -_first_number(row)))
  kept = [
    i
    for i, column in enumerate(columns)
    if (column["name"] not in UNSAID or _varies(rows, i))
    and any(row[i] is not None for row in rows)
  ]
  return {
    "columns": [columns[i] for i in kept],
    "rows": [[row[i] for i in kept] for row in rows],
    "recipes": [list(recipe) for recipe in distinct],
    "noun": "lines",
  }


def _key_values(key: tuple[Any, ...]) -> list[Any]:
  """Return the key with readable names."""
  named = dict(zip(KEYS, key, strict=True))
  named["source"] = source_label(named["source"])
  named["strategy"] = strategy_label(named["strategy"]) if named["strategy"] else ""
  return list(named.values())


def _values(measurement: Measurement, name: str) -> list[list[float] | None]:
  """Return a quantity and, for an accuracy, its gain."""
  found = [_triple(measurement.estimates.get(name))]
  if quantity_of(name).kind == "accuracy":
    found.append(_triple(measurement.estimates.get(f"{name} gain")))
  return found


def _first_number(row: Sequence[Any]) -> float:
  """Return the first measured value of a line."""
  return next((value[0] for value in row if isinstance(value, list)), 0.0)


def _varies(rows: Sequence[Sequence[Any]], column: int) -> bool:
  return len({row[column] for row in rows}) > 1


def run_of(document: Mapping[str, Any]) -> tuple[str, ...]:
  """Return what identifies a run: its submitter, start time and machine."""
  machine = document["machine"]
  return document["by"], machine["started"], machine["device"], document["software"]["jax"]


def measurements(entry: int, document: Mapping[str, Any]) -> list[Measurement]:
  """Return the measured settings of a submission, averaged over seeds."""
  rows = unpacked(document["rows"])
  knows_text = text_start({"config": json.dumps(document["plan"]["config"])})
  found = []
  for view in views(rows):
    results = results_of(rows, view)
    settings = dict.fromkeys((cell.dataset, cell.series, cell.shots) for cell in results.cells)
    for dataset, series, shots in settings:
      if series.source != "control":
        key = (
          dataset,
          series.source,
          series.generator,
          series.strategy,
          shots,
          view.protocol,
          view.encoder,
        )
        inputs = inputs_of(document, dataset, series)
        estimates = _estimates(results, dataset, series, shots, knows_text)
        found.append(Measurement(entry, key, inputs, estimates))
  return found


def inputs_of(document: Mapping[str, Any], dataset: str, series: Series) -> frozenset[str]:
  """Return the fingerprints of the images of a line and of its dataset's features.

  Args:
    document: a submission.
    dataset: dataset of the line.
    series: source, generator and strategy of the line.
  """
  images = {image_set["fingerprint"] for image_set in _sets_of(document, dataset, series)}
  return frozenset({*images, *document["features"].get(dataset, ())}) if images else frozenset()


def recipe_of(document: Mapping[str, Any], key: tuple[Any, ...]) -> tuple[tuple[str, str], ...]:
  """Return the settings of a line as (name, value) in words."""
  dataset, source, generator, strategy = key[:4]
  sets = _sets_of(document, dataset, Series(source, strategy, generator))
  recipe = sets[0]["recipe"] if sets else {}
  settings = {
    "images": ", ".join(
      f"{image_set['images']} (set {image_set['fingerprint']}, content {image_set['content']})"
      for image_set in sets
    ),
    **{name: _told(value) for name, value in recipe.items()},
    "features": ", ".join(document["features"].get(dataset, ())),
    "config": document["plan"]["config_fingerprint"],
    "command": document["plan"]["command"],
    "versions": ", ".join(f"{name} {version}" for name, version in document["software"].items()),
  }
  return tuple((name, text) for name, text in settings.items() if text)


def _sets_of(document: Mapping[str, Any], dataset: str, series: Series) -> list[Mapping[str, Any]]:
  """Return the image sets of a line. A mixture's strategy names the images mixed with originals."""
  wanted = (dataset, series.source, series.strategy)
  return [
    image_set
    for image_set in document["image_sets"]
    if (image_set["dataset"], image_set["source"], image_set["strategy"]) == wanted
    # Generators that make the same images share a set: "a, b".
    and series.generator in ("", *image_set["generator"].split(", "))
  ]


def _estimates(
  results: Results, dataset: str, series: Series, shots: int, probe_knows_text: bool
) -> dict[str, Estimate]:
  """Return every quantity, and the gain over zero-shot of those that use the class names."""
  like, found = with_text(results, probe_knows_text), {}
  for name in QUANTITIES:
    if estimate := results.estimate(dataset, series, shots, name):
      found[name] = estimate
    if name in like and (added := gain(results, dataset, series, shots, name)):
      found[f"{name} gain"] = added
  return found


def _entry(name: str, document: Mapping[str, Any]) -> dict[str, Any]:
  return {
    "file": name,
    "title": document["title"],
    "by": document["by"],
    "note": document["note"],
    "made": document["made"],
    "device": document["machine"]["device"],
    "datasets": ", ".join(document["plan"]["datasets"]),
    "cells": document["plan"]["cells_measured"],
  }


def _triple(estimate: Estimate | None) -> list[float] | None:
  if estimate is None:
    return None
  ends = (estimate.value, estimate.low, estimate.high)
  return [float(f"{end:.9g}") for end in ends if end is not None]


def _told(value: Any) -> str:
  return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
