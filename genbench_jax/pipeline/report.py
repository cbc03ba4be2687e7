"""The data of a run's page besides its rows; `report/` draws the page."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.cells import ImageSetKey, image_sets, measured_sets
from genbench_jax.errors import NotPreparedError, RunError
from genbench_jax.pipeline.artifacts import (
  classes_path,
  find_image_set,
  image_folder,
  image_set_path,
  test_path,
  text_path,
)
from genbench_jax.pipeline.ledger import Ledger
from genbench_jax.pipeline.rows import measured_rows, versions
from genbench_jax.prompts.lint import alike_names
from genbench_jax.report.classes import class_gains, class_scores
from genbench_jax.report.from_disk import MADE_FROM, shown_rows, write_page
from genbench_jax.report.gallery import ImageVerdict, Nearest
from genbench_jax.report.thumbnails import thumbnail
from genbench_jax.run import Run
from genbench_jax.runtime.progress import say
from genbench_jax.sources.folder import left_out
from genbench_jax.sources.prompting import grammar_notes, tell_lint
from genbench_jax.sources.retrieval import leak_notes, shortages
from genbench_jax.store import class_values, files
from genbench_jax.store.embedding_set import load_embeddings
from genbench_jax.store.image_files import is_hidden
from genbench_jax.store.image_set import ImageSet
from genbench_jax.store.versions import VERSIONS

# Number of images per set that are shown with their nearest test image, which must be read from the
# dataset.
NEAREST_A_SET = 24
_DRAWS = (".py", ".jinja", ".css", ".js")


def write_report(run: Run, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> Path:
  """Write the page of a run and its files; return the page's path.

  Args:
    run: a config on its work folder.
    rows: all rows.
    about: description of the run, see `report.page.RunInfo`.
  """
  keys: dict[Path, ImageSetKey] = {}
  generators: dict[Path, str] = {}
  for key in image_sets(run.config):
    if find_image_set(run, key):
      # Generators that make the same images share a folder, which is shown once under both names.
      folder = image_folder(run, key)
      keys.setdefault(folder, key)
      generators[folder] = ", ".join(filter(None, (generators.get(folder), key.generator)))
  classes = class_scores(_class_values(run))
  nearest, judged, gains = {}, {}, class_gains(classes)
  per_class = run.config.report.gallery_images
  for folder, key in keys.items():
    images = ImageSet(folder)
    first = shown_rows(images, 1, len(keys), gains)[:NEAREST_A_SET]
    nearest[folder] = nearest_test_images(run, key, first)
    shown = shown_rows(images, per_class, len(keys), gains)
    judged[folder] = judged_images(run, key, images.labels, shown)
  return write_page(
    run.workdir, rows, about, list(keys), per_class, classes, nearest, judged, generators
  )


def _class_values(run: Run) -> list[class_values.ClassValues]:
  return [entry for path in _classes_paths(run) for entry in class_values.read(path)]


def nearest_test_images(run: Run, key: ImageSetKey, rows: Sequence[int]) -> dict[int, Nearest]:
  """Return image index -> the most similar test image; empty if features are missing.

  Args:
    run: a config on its work folder.
    key: the image set.
    rows: indices of images.
  """
  paths = image_set_path(run, key), test_path(run, key.dataset)
  if not rows or not all(path.exists() for path in paths):
    return {}
  images, test = load_embeddings(paths[0]), load_embeddings(paths[1]).readable()
  cosines = _unit(images.features[np.array(rows)]) @ _unit(test.features).T
  split, names = run.split(key.dataset, "test"), run.config.spec(key.dataset).names
  found = {}
  for row, cosine in zip(rows, cosines, strict=True):
    best = int(cosine.argmax())
    labels = np.flatnonzero(test.labels[best]) if test.labels.ndim == 2 else [test.labels[best]]
    picture = thumbnail(split.example(int(test.ids[best]))["image"])
    name = ", ".join(names[int(label)] for label in labels)
    found[row] = Nearest(picture, name, float(cosine[best]))
  return found


def judged_images(
  run: Run, key: ImageSetKey, labels: np.ndarray, rows: Sequence[int]
) -> dict[int, ImageVerdict]:
  """Return image index -> zero-shot prediction; empty if features or texts are missing.

  Args:
    run: a config on its work folder.
    key: the image set.
    labels: labels of all its images: class indices, or multi-hot.
    rows: indices of images.
  """
  paths = image_set_path(run, key), text_path(run, key.dataset)
  if not rows or not all(path.exists() for path in paths):
    return {}
  texts = load_embeddings(paths[1]).features
  if not len(texts):  # encoders without text make no predictions
    return {}
  features = load_embeddings(paths[0]).features[np.array(rows)]
  cosines = _unit(features) @ _unit(texts).T
  names = run.config.spec(key.dataset).names
  return {
    row: _judged(row_cosines, np.atleast_1d(labels[row]), names)
    for row, row_cosines in zip(rows, cosines, strict=True)
  }


def _judged(cosines: np.ndarray, label: np.ndarray, names: Sequence[str]) -> ImageVerdict:
  """Return the prediction for one image; `label` is its class index or its multi-hot labels."""
  own = np.flatnonzero(label) if label.size == len(cosines) > 1 else label
  best = int(cosines.argmax())
  others = np.delete(cosines, own)
  if not len(own) or not len(others):  # no class of its own, or no other class
    return ImageVerdict(names[best], True, 0.0)
  margin = float(cosines[own].max() - others.max())
  return ImageVerdict(names[best], bool(best in own), margin)


def _unit(features: np.ndarray) -> np.ndarray:
  return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _name_notes(run: Run) -> list[str]:
  """Return notes on similar class names, which prompts, retrieval and prototypes confuse."""
  return [
    f"{dataset}: {note}"
    for dataset in run.config.datasets
    for note in alike_names(dataset_spec(dataset).names)
  ]


def report(run: Run, ledger: Ledger) -> None:
  """Write the page if its inputs have changed.

  Raises:
    UsageError: there are no rows.
  """
  rows = measured_rows(run)
  if not rows:
    raise RunError("there are no rows to report. Run the stages `score` and `recognize` first.")
  seal, page = Seal(run.workdir / "report"), run.workdir / "report" / "index.html"
  made_from = _page_made_from(run, rows)
  if seal.holds(made_from):
    say(f"report: nothing to do, see {page}")
    return
  began = time.monotonic()
  about = {
    **ledger.about(),
    "warnings": [*left_out(run), *shortages(run), *_name_notes(run), *grammar_notes(run.config)],
    "prompt_lint": tell_lint(run),
    "leak_audit": leak_notes(run),
  }
  write_report(run, rows, about)
  seal.write(made_from)
  say(f"report: {page} ({time.monotonic() - began:.1f} s)")


def _page_made_from(run: Run, rows: Sequence[Mapping[str, Any]]) -> str:
  """Return digests of everything that determines the page: rows, class values, config, files left out, code."""
  return files.digest(
    {
      "rows": list(rows),
      "classes": [files.sha256(path) for path in _classes_paths(run)],
      "config": run.config.as_json(),
      "left_out": left_out(run),
      "version": [VERSIONS["report"], versions(), code_digest()],
    }
  )


def _classes_paths(run: Run) -> Iterator[Path]:
  for key in measured_sets(run.config):
    with contextlib.suppress(NotPreparedError):
      paths = [classes_path(run, key, stage) for stage in ("score", "recognize")]
      yield from (path for path in paths if path.exists())


@dataclasses.dataclass(frozen=True)
class Seal:
  """Inputs of a page and checksums of its files. A page that was changed is made again."""

  folder: Path

  def holds(self, made_from: str) -> bool:
    """Return whether the page is complete and has these inputs."""
    path = self.folder / MADE_FROM
    try:
      return path.exists() and files.read_json(path) == self._described(made_from)
    except RunError:
      return False

  def write(self, made_from: str) -> None:
    """Seal the current page."""
    files.write_json(self.folder / MADE_FROM, self._described(made_from))

  def _described(self, made_from: str) -> dict[str, Any]:
    paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
    names = {path: path.relative_to(self.folder).as_posix() for path in paths}
    sums = {name: files.sha256(path) for path, name in names.items() if not is_hidden(name)}
    return {"made_from": made_from, "files": sums}


def code_digest() -> str:
  """Return a digest of the code, templates and styles that draw the page."""
  room = resources.files("genbench_jax.report")
  with resources.as_file(room) as folder:
    paths = sorted(path for path in folder.rglob("*") if path.suffix in _DRAWS)
    return files.digest([files.sha256(path) for path in paths])
