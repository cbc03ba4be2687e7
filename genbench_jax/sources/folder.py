"""Images of any generator from a user's folder with images by class, in a seeded selection."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genbench_jax.benchmark.few_shot import few_shot
from genbench_jax.benchmark.inputs.class_map import read_class_map
from genbench_jax.benchmark.user_images import ClassMatching, UserImages, open_user_images
from genbench_jax.cells import ImageSetKey
from genbench_jax.run import Run
from genbench_jax.sources.original import copy_shards
from genbench_jax.sources.source import ImageSource, NeededValues, ShardRecords
from genbench_jax.store.image_set import ImageSetLayout


class Folder(ImageSource):
  """Up to the requested number of images of each class, in a seeded order."""

  def made_from(self, run: Run, key: ImageSetKey) -> dict[str, Any]:
    return {"files": user_images(run, key.dataset, key.generator).digest}

  def size(self, run: Run, key: ImageSetKey) -> int:
    return self.shot_sizes(run, key)[run.per_class]

  def shot_sizes(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    labels = user_images(run, key.dataset, key.generator).labels()
    return {shots: len(few_shot(labels, shots, key.seed)) for shots in run.config.shots}

  def real_images(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    return dict.fromkeys(run.config.shots, run.config.folder.real_images)

  def records(
    self,
    run: Run,
    key: ImageSetKey,
    layout: ImageSetLayout,
    shards: Sequence[int],
    given: NeededValues = (),
  ) -> ShardRecords:
    images = user_images(run, key.dataset, key.generator)
    return copy_shards(images, layout, shards, few_shot(images.labels(), run.per_class, key.seed))


def user_images(run: Run, dataset: str, name: str = "") -> UserImages:
  """Open the user's images of a dataset from the folder with this name; skipped files are reported.

  Args:
    run: the run.
    dataset: dataset whose classes the folder has.
    name: the folder's name in the config; by default, the first one.
  """
  settings = run.config.folder
  paths = settings.named_paths
  path = paths.get(name, next(iter(paths.values()))).replace("{dataset}", dataset)

  def opened() -> UserImages:
    class_map = read_class_map(Path(settings.class_map)) if settings.class_map else {}
    matching = ClassMatching(class_map, settings.strict)
    cache = None if run.is_plan else run.workdir / "folders"
    return open_user_images(path, run.config.spec(dataset), cache, matching)

  key = ("user images", path, run.config.datasets, dataset, settings.class_map, settings.strict)
  return run.shared.get(key, opened)


def left_out(run: Run) -> list[str]:
  """Return what was skipped in the user's folders, one sentence each, for the report."""
  if "folder" not in run.config.sources:
    return []
  return [
    f"{dataset}, {name or 'folder'}: {note}"
    for dataset in run.config.specs
    for name in run.config.folder.named_paths
    for note in user_images(run, dataset, name).notes
  ]
