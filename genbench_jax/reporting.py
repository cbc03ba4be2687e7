"""What the page of a run shows besides its rows: gathered here, drawn in `report/`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench_jax import plan
from genbench_jax.artefacts import classes_path, image_folder
from genbench_jax.nearest import nearest_test_images
from genbench_jax.report.class_files import class_scores
from genbench_jax.report.classes import class_gains
from genbench_jax.report.from_disk import shown_rows, write_page
from genbench_jax.run import Run
from genbench_jax.store import class_values
from genbench_jax.store.image_set import ImageSet

# Images with their nearest test image, of a set: each is read from the dataset and takes room on the page.
NEAREST_A_SET = 24


def write_report(run: Run, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> Path:
  """Writes the page of a run and all that stands beside it; returns its path.

  Args:
    run: the config on its work folder.
    rows: all that was measured.
    about: what was run, see `report.page.RunInfo`.
  """
  keys = [key for key in plan.image_sets(run.config) if ImageSet.exists(image_folder(run, key))]
  folders = [image_folder(run, key) for key in keys]
  classes = class_scores(_class_values(run))
  nearest, gains = {}, class_gains(classes)
  for key, folder in zip(keys, folders, strict=True):
    first = shown_rows(ImageSet(folder), 1, len(keys), gains)[:NEAREST_A_SET]
    nearest[folder] = nearest_test_images(run, key, first)
  per_class = run.config.report.gallery_images
  return write_page(run.workdir, rows, about, folders, per_class, classes, nearest)


def _class_values(run: Run) -> list[class_values.ClassValues]:
  paths = (
    classes_path(run, key, stage)
    for key in plan.measured_sets(run.config)
    for stage in ("score", "recognise")
  )
  return [one for path in paths if path.exists() for one in class_values.read(path)]
