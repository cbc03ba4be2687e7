"""What of a config is already there in a work folder."""

import dataclasses
from pathlib import Path

from genbench_jax.cells import ImageSetKey, image_sets, measured_sets
from genbench_jax.config import Config


@dataclasses.dataclass(frozen=True)
class Done:
  """How many image sets are made and embedded, and how many of them and of their mixtures scored and recognized."""

  image_sets: int = 0
  embedded: int = 0
  scored: int = 0
  recognized: int = 0


def done(config: Config, workdir: Path) -> Done:
  """Counts what a run of the config would find done. The checkpoints must be on this machine.

  Names carry fingerprints of all that made them: what was made under other settings doesn't count.
  """
  begun = [key for key in image_sets(config) if _begun(workdir, key)]
  if not begun:
    return Done()
  # Imported here: they bring the models' libraries along, which a fresh folder can do without.
  from genbench_jax.pipeline import artifacts
  from genbench_jax.run import Run
  from genbench_jax.store.image_set import ImageSet

  run = Run(config, workdir)
  measured = [key for key in measured_sets(config) if key in begun or key.source == "combined"]
  return Done(
    sum(ImageSet.exists(artifacts.image_folder(run, key)) for key in begun),
    sum(artifacts.image_set_path(run, key).exists() for key in begun),
    sum(artifacts.rows_path(run, key, "score").exists() for key in measured),
    sum(artifacts.rows_path(run, key, "recognize").exists() for key in measured),
  )


def _begun(workdir: Path, key: ImageSetKey) -> bool:
  return any((workdir / "images" / key.dataset).glob(f"{key.label}-*"))
