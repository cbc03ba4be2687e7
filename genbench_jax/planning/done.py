"""Finished work of a config in a work folder."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genbench_jax.cells import ImageSetKey, image_sets, measured_sets
from genbench_jax.config import Config
from genbench_jax.errors import NotPreparedError


@dataclasses.dataclass(frozen=True)
class FinishedWork:
  """Numbers of image sets that are made, embedded, scored and recognized; mixtures count too."""

  image_sets: int = 0
  embedded: int = 0
  scored: int = 0
  recognized: int = 0


def done(config: Config, workdir: Path) -> FinishedWork:
  """Count the finished work of a config. The checkpoints must be on this machine.

  Names contain fingerprints of everything that determines them, so work of other settings is not
  counted.
  """
  begun = [key for key in image_sets(config) if _begun(workdir, key)]
  if not begun:
    return FinishedWork()
  # Imported here, because they load the models' libraries, which a new folder does not need.
  from genbench_jax.pipeline import artifacts
  from genbench_jax.run import Run

  run = Run(config, workdir, is_plan=True)
  measured = [key for key in measured_sets(config) if key in begun or key.source == "combined"]
  return FinishedWork(
    sum(artifacts.find_image_set(run, key) is not None for key in begun),
    sum(_is_there(artifacts.image_set_path, run, key) for key in begun),
    sum(_is_there(artifacts.rows_path, run, key, "score") for key in measured),
    sum(_is_there(artifacts.rows_path, run, key, "recognize") for key in measured),
  )


def _is_there(path_of: Callable[..., Path], *about: Any) -> bool:
  """Return whether the path exists; artifacts without a name yet do not."""
  try:
    return path_of(*about).exists()
  except NotPreparedError:
    return False


def _begun(workdir: Path, key: ImageSetKey) -> bool:
  return any((workdir / "images" / key.dataset).glob(f"{key.label}-*"))
