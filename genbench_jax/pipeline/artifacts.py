"""Where each artifact of a run stands.

Names carry the fingerprint of all that made them, so that a changed setting makes new files and touches no
old ones.
"""

import dataclasses
from pathlib import Path
from typing import Any

from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.cells import ImageSetKey, about, mixtures
from genbench_jax.errors import RunError
from genbench_jax.pipeline.features import embedding_path, test_path
from genbench_jax.run import FeatureSpace, Run
from genbench_jax.sources.registry import SOURCES
from genbench_jax.store import files
from genbench_jax.store.image_set import ImageSet, ImageSetLayout


def image_folder(run: Run, key: ImageSetKey) -> Path:
  """Where an image set stands: a changed setting makes another folder."""
  fingerprint = kept_layout(run, key).fingerprint
  return run.workdir / "images" / key.dataset / f"{key.label}-{fingerprint}"


def image_layout(run: Run, key: ImageSetKey) -> ImageSetLayout:
  """What an image set will be."""
  spec, source = dataset_spec(key.dataset), SOURCES[key.source]
  made_from = {
    **about(key),
    "per_class": run.per_class,
    "stand_in": run.config.stand_in,
    **source.made_from(run, key),
  }
  return ImageSetLayout(
    f"{key.dataset}_{key.source}",
    spec.names,
    source.size(run, key),
    run.config.generation.shard_size,
    made_from,
    source.multi_label(run, key),
  )


def embedded_as_made(run: Run, key: ImageSetKey) -> bool:
  """Whether the images of a set are embedded on the devices that make them, and not all of them kept."""
  return key.source == "generative" and run.config.generation.keep_images != "all"


def kept_layout(run: Run, key: ImageSetKey) -> ImageSetLayout:
  """What of an image set stands on disk: all of it, or the first images of every class."""
  layout = image_layout(run, key)
  if not embedded_as_made(run, key):
    return layout
  kept = run.config.generation.kept_images(run.per_class)
  made_from = {**layout.made_from, "kept": kept}
  return dataclasses.replace(layout, num_images=kept * len(layout.class_names), made_from=made_from)


def open_image_set(run: Run, key: ImageSetKey) -> ImageSet:
  """A complete image set.

  Raises:
    RunError: it has not been made.
  """
  folder = image_folder(run, key)
  if not ImageSet.exists(folder):
    raise RunError(
      f"there are no images of {key.dataset} {key.label}. Run the stage `images` first."
    )
  return ImageSet(folder)


def image_set_path(run: Run, key: ImageSetKey, space: FeatureSpace | None = None) -> Path:
  """Where the features of an image set stand."""
  made_from = {"images": image_layout(run, key).fingerprint}
  if embedded_as_made(run, key):  # resized on the devices, and not to the last bit as PIL resizes
    made_from["preprocessing"] = "device"
  return embedding_path(run, key.dataset, key.label, made_from, space)


def text_path(run: Run, dataset: str) -> Path:
  """Where the text prototypes of a dataset stand."""
  spec = dataset_spec(dataset)
  return embedding_path(run, dataset, "text", {"names": spec.names, "templates": spec.templates})


def rows_path(run: Run, key: ImageSetKey, stage: str) -> Path:
  """Where the rows of an image set stand: a changed setting makes another file."""
  parts = mixtures(run.config).get(key, (key,))
  images = [image_set_path(run, part).name for part in parts]
  made_from = {
    "settings": _settings(run, stage),
    "shots": sorted(run.config.shots),
    "paths": [*images, test_path(run, key.dataset).name],
    "text": text_path(run, key.dataset).name,
    "version": VERSION,
  }
  if stage == "score" and (other := run.other_space):
    features = [image_set_path(run, part, other).name for part in parts]
    made_from["features"] = [other.name, *features, test_path(run, key.dataset, other).name]
  if key.source == "combined":
    made_from["mixture"] = dataclasses.asdict(run.config.mixture)
  name = f"{key.label}-{stage}-{files.digest(made_from)}.jsonl"
  return run.workdir / "rows" / key.dataset / name


def _settings(run: Run, stage: str) -> dict[str, Any]:
  """What of the config decides the rows, besides the images; other features are named by their files."""
  if stage == "recognize":
    return dataclasses.asdict(run.config.recognition)
  settings = dataclasses.asdict(run.config.scoring)
  return {name: value for name, value in settings.items() if not name.startswith("feature_")}


def classes_path(run: Run, key: ImageSetKey, stage: str) -> Path:
  """Where the values of single classes stand that are behind the rows of the same name."""
  return run.workdir / "classes" / key.dataset / rows_path(run, key, stage).name


def results_folder(run: Run, key: ImageSetKey, recognizer: str, protocol: str, shots: int) -> Path:
  """Where the predictions, tables and model of a recognizer on a cell stand, beside its rows by name."""
  rows = rows_path(run, key, "recognize").stem
  return run.workdir / "recognizers" / key.dataset / rows / f"{recognizer}-{protocol}-{shots}shots"


# Rows of another version are not taken over: raise it when a definition changes.
VERSION = 5
