"""Scores a folder of images by class, from any generator, as training data for a dataset.

  python -m genbench_jax.evaluate my_images/ --dataset digits
  python -m genbench_jax.evaluate my_images/ --dataset cifar10 --workdir out --with-originals

The folder holds a folder for each class, called by class name, label or index; or images and `labels.csv` (file,label).
The table goes to standard output. With a work folder the features, the rows and the page stay there.
"""

import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.user_images import open_user_images
from genbench_jax.config import STAGES, Config, check_setting, default_config, make_config
from genbench_jax.store import files

ENCODER = "openai/clip-vit-base-patch32"
SHIPPED_ENCODER = "zoo/clip"


def evaluate_folder(
  folder: str | Path,
  dataset: str,
  workdir: str | Path | None = None,
  *,
  shots: Sequence[int] = (),
  seeds: Sequence[int] = (0,),
  encoder: str = "",
  with_originals: bool = False,
  settings: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
  """All metrics and the linear probe of a folder of images by class.

  Args:
    folder: holds a folder for each class, called by class name, label or index, or images and `labels.csv`.
    dataset: whose classes they are, and whose test images judge them.
    workdir: where features, rows and the page stay; the same call goes on from there. By default nothing stays.
    shots: images a class, each measured; by default 1, 4, 16, ... and the size of the largest class.
    seeds: of the choice among the images of a class, each measured.
    encoder: CLIP checkpoint, folder or hub id; by default CLIP ViT-B/32, for the demo worlds the shipped one.
    with_originals: whether the dataset's own training images are measured at the same shots.
    settings: any other setting of the config by its path, such as `{"scoring.resamples": 200}`.

  Returns:
    The rows, one a measured quantity, with the keys of `results.jsonl`.

  Raises:
    UsageError: there is no such folder or dataset, or the classes of the images can't be told.
  """
  spec = dataset_spec(dataset)
  with tempfile.TemporaryDirectory(prefix="genbench_jax_") as temporary:
    place = Path(temporary if workdir is None else workdir).expanduser()
    found = open_user_images(Path(folder).expanduser(), spec, place / "folders")
    largest = int(np.bincount(found.labels()).max())
    config = default_config()
    config.datasets = (spec.name,)
    config.sources = ("folder", "original") if with_originals else ("folder",)
    config.folder.path = str(folder)
    config.shots = tuple(shots) or shots_up_to(largest)
    config.seeds = tuple(seeds)
    config.encoder.checkpoint = encoder or (SHIPPED_ENCODER if spec.group == "demo" else ENCODER)
    # As in configs/demo.py: with language the probe shows little of the images of these small worlds.
    config.recognition.language_init = spec.group != "demo"
    config.report.title = f"How good are the images of {found.root.name} as training data?"
    for path in settings or {}:
      check_setting(path)
    config.update_from_flattened_dict(dict(settings or {}))
    return _rows_of(make_config(config), place, STAGES if workdir else STAGES[:-1])


def shots_up_to(largest: int) -> tuple[int, ...]:
  """1, 4, 16, ... below the size of the largest class, and that size."""
  powers = [4**power for power in range(16) if 4**power < largest]
  return (*powers, largest)


def _rows_of(config: Config, workdir: Path, stages: Sequence[str]) -> list[dict[str, Any]]:
  from genbench_jax.pipeline.stages import run_stages
  from genbench_jax.store.workdir import locked

  with locked(workdir):
    run_stages(config, workdir, stages, shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
  return files.read_json_lines(workdir / "results.jsonl")
