"""Paths of the artifacts of a run.

A name contains a fingerprint of everything that determines the content: settings, checkpoints,
digests of the data and the version of the code. Paths are computed without making anything.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from genbench_jax.cells import ImageSetKey, measured_sets, mixtures
from genbench_jax.embedding.feature_space import FeatureSpace
from genbench_jax.errors import NotPreparedError, RunError
from genbench_jax.run import Run, fine_tune_pin
from genbench_jax.sources.registry import SOURCES
from genbench_jax.store import files
from genbench_jax.store.image_set import ImageSet, ImageSetLayout, images_digest
from genbench_jax.store.versions import VERSIONS

# Quantities that need guides, see `pipeline.guides`.
GUIDED = frozenset({"class_chamfer", "guide_ridge", "discriminative_span"})

# ---- images -------------------------------------------------------------------------------------


def image_identity(run: Run, key: ImageSetKey) -> dict[str, Any]:
  """Return everything that determines the images of a set, as JSON.

  Raises:
    NotPreparedError: the source must prepare something first.
  """
  about = dataclasses.asdict(key)
  del about["generator"]  # entries that make the same images share them
  made_from = SOURCES[key.source].made_from(run.of(key), key)
  return {**about, "per_class": run.per_class, "version": VERSIONS["images"], **made_from}


def image_folder(run: Run, key: ImageSetKey) -> Path:
  """Return the folder of an image set; a changed setting gives another folder."""
  name = f"{key.label}-{_images_digest(run, key, _kept_identity(run, key))}"
  return run.workdir / "images" / key.dataset / name


def image_layout(run: Run, key: ImageSetKey) -> ImageSetLayout:
  """Return the layout of an image set, including its size."""
  source = SOURCES[key.source]
  return ImageSetLayout(
    f"{key.dataset}_{key.source}",
    run.config.spec(key.dataset).names,
    source.size(run, key),
    run.config.generation.shard_size,
    image_identity(run, key),
    source.multi_label(run, key),
  )


def embedded_as_made(run: Run, key: ImageSetKey) -> bool:
  """Return whether images are embedded on the devices that generate them, and not all are kept."""
  return key.source == "generative" and run.config.generation.keep_images != "all"


def kept_layout(run: Run, key: ImageSetKey) -> ImageSetLayout:
  """Return the layout of the stored images: all of them, or the first of every class."""
  layout = image_layout(run, key)
  if not embedded_as_made(run, key):
    return layout
  num_images = _kept(run) * len(layout.class_names)
  return dataclasses.replace(layout, num_images=num_images, made_from=_kept_identity(run, key))


def find_image_set(run: Run, key: ImageSetKey) -> ImageSet | None:
  """Return a complete image set; None if it has not been made."""
  try:
    folder = image_folder(run, key)
  except NotPreparedError:
    return None
  return ImageSet(folder) if ImageSet.exists(folder) else None


def open_image_set(run: Run, key: ImageSetKey) -> ImageSet:
  """Return a complete image set.

  Raises:
    RunError: it has not been made.
  """
  found = find_image_set(run, key)
  if found is None:
    raise RunError(f"there are no images of {key.name}. Run the stage `images` first.")
  return found


def _images_digest(run: Run, key: ImageSetKey, identity: dict[str, Any]) -> str:
  names = run.config.spec(key.dataset).names
  return images_digest(names, run.config.generation.shard_size, identity)


def _kept_identity(run: Run, key: ImageSetKey) -> dict[str, Any]:
  kept = {"kept": _kept(run)} if embedded_as_made(run, key) else {}
  return image_identity(run, key) | kept


def _kept(run: Run) -> int:
  return run.config.generation.kept_images(run.per_class)


# ---- features -----------------------------------------------------------------------------------


def embedding_path(
  run: Run, dataset: str, label: str, made_from: dict[str, Any], space: FeatureSpace | None = None
) -> Path:
  """Return the path of the features of images or texts, named by what determines them.

  Args:
    run: a config on its work folder.
    dataset: name of the dataset.
    label: what was embedded.
    made_from: everything that determines the features.
    space: name of the encoder, if it is not the run's own.
  """
  encoder, resize = (space or run.space).fingerprint, run.config.spec(dataset).resize
  about = {"clip": encoder, "resize": resize, "version": VERSIONS["embed"]}
  fingerprint = files.digest({**made_from, **about})
  return run.workdir / "embeddings" / dataset / f"{label}-{fingerprint}.safetensors"


def test_path(run: Run, dataset: str, space: FeatureSpace | None = None) -> Path:
  """Return the path of the features of a dataset's test images.

  Args:
    run: a config on its work folder.
    dataset: name of the dataset.
    space: name of the encoder, if it is not the run's own.
  """
  return embedding_path(run, dataset, "test", {"images": run.digest(dataset, "test")}, space)


def image_set_path(run: Run, key: ImageSetKey, space: FeatureSpace | None = None) -> Path:
  """Return the path of the features of an image set.

  Args:
    run: a config on its work folder.
    key: the image set.
    space: name of the encoder, if it is not the run's own.
  """
  made_from = {"images": _images_digest(run, key, image_identity(run, key))}
  if embedded_as_made(run, key):  # the device resize differs from PIL's in the last bits
    made_from["preprocessing"] = "device"
  return embedding_path(run, key.dataset, key.label, made_from, space)


def text_path(run: Run, dataset: str, space: FeatureSpace | None = None) -> Path:
  """Return the path of the text prototypes of a dataset; empty for encoders without text.

  Args:
    run: a config on its work folder.
    dataset: name of the dataset.
    space: name of the encoder, if it is not the run's own.
  """
  spec = run.config.spec(dataset)
  made_from = {"names": spec.names, "templates": spec.templates}
  return embedding_path(run, dataset, "text", made_from, space)


def wants_guides(run: Run, dataset: str) -> bool:
  """Return whether a score needs guides and the run uses training images at all."""
  scoring = run.config.scoring
  asked = GUIDED & set(scoring.quantities)
  has_originals = "original" in run.config.sources and "train" in run.config.spec(dataset).splits
  return bool(scoring.guides and asked and has_originals)


def guides_path(run: Run, dataset: str, space: FeatureSpace | None = None) -> Path:
  """Return the path of the features of a dataset's guides.

  Args:
    run: a config on its work folder.
    dataset: name of the dataset.
    space: name of the encoder, if it is not the run's own.
  """
  made_from = {
    "images": run.digest(dataset, "train"),
    "guides": run.config.scoring.guides,
    "per_class": run.per_class,
    "seeds": list(run.config.seeds),
  }
  return embedding_path(run, dataset, "guides", made_from, space)


class RealPaths(NamedTuple):
  """Paths of the features of real training images, which the scores of all sources use, if any.

  Attributes:
    training: all images that the run has embedded, those of the source `original`.
    guides: images that nothing else uses.
  """

  training: Path | None
  guides: Path | None


def real_paths(run: Run, dataset: str, space: FeatureSpace | None = None) -> RealPaths:
  """Return the paths of the features of a dataset's real training images.

  Args:
    run: a config on its work folder.
    dataset: name of the dataset.
    space: name of the encoder, if it is not the run's own.
  """
  originals = [
    key for key in measured_sets(run.config) if (key.dataset, key.source) == (dataset, "original")
  ]
  return RealPaths(
    image_set_path(run, originals[0], space) if originals else None,
    guides_path(run, dataset, space) if wants_guides(run, dataset) else None,
  )


# ---- rows ---------------------------------------------------------------------------------------


def rows_path(run: Run, key: ImageSetKey, stage: str) -> Path:
  """Return the path of the rows of an image set; a changed setting gives another file.

  Args:
    run: a config on its work folder.
    key: the image set.
    stage: `score` or `recognize`.
  """
  parts = mixtures(run.config).get(key, (key,))
  images = [image_set_path(run, part).name for part in parts]
  made_from = {
    "settings": _settings(run, stage),
    "shots": sorted(run.config.shots),
    "paths": [*images, test_path(run, key.dataset).name],
    "text": text_path(run, key.dataset).name,
    "generator": key.generator,
    "metric": run.config.spec(key.dataset).metric,
    "version": VERSIONS[stage],
  }
  if others := [_features_of(run, parts, space) for space in run.other_spaces]:
    made_from["features"] = others
  if stage == "score" and (real := _real_features(run, key.dataset)):
    made_from["real"] = real
  if stated := sum(_stated_real_images(run, part) for part in parts):
    made_from["real_images"] = stated
  if stage == "recognize" and (start := fine_tune_pin(run.config)):
    made_from["fine_tune"] = run.fingerprint(start)
  if key.source == "combined":
    made_from["mixture"] = dataclasses.asdict(run.config.mixture)
  name = f"{key.label}-{stage}-{files.digest(made_from)}.jsonl"
  return run.workdir / "rows" / key.dataset / name


def _features_of(run: Run, parts: Sequence[ImageSetKey], space: FeatureSpace) -> list[str]:
  """Return the names of all features that are measured with an encoder."""
  dataset = parts[0].dataset
  tests = [path(run, dataset, space).name for path in (test_path, text_path)]
  return [space.name, *tests, *(image_set_path(run, part, space).name for part in parts)]


def _real_features(run: Run, dataset: str) -> list[str]:
  """Return the names of the features of real images behind floors and guided scores."""
  paths = [path for space in (None, *run.other_spaces) for path in real_paths(run, dataset, space)]
  return [path.name for path in paths if path]


def _stated_real_images(run: Run, key: ImageSetKey) -> int:
  """Return the number of real images behind a set as the config states it; rows repeat it."""
  if key.source == "folder":
    return run.config.folder.real_images
  return run.config.textual_inversion.real_images if key.references else 0


def _settings(run: Run, stage: str) -> dict[str, Any]:
  """Return the settings that determine the rows besides the images."""
  if stage == "recognize":
    return dataclasses.asdict(run.config.recognition)
  return dataclasses.asdict(run.config.scoring)


def classes_path(run: Run, key: ImageSetKey, stage: str) -> Path:
  """Return the path of the values by class behind the rows of the same name.

  Args:
    run: a config on its work folder.
    key: the image set.
    stage: `score` or `recognize`.
  """
  return run.workdir / "classes" / key.dataset / rows_path(run, key, stage).name


def hits_path(run: Run, key: ImageSetKey, stage: str) -> Path:
  """Return the path of the contributions of single test images to the rows of the same name.

  Args:
    run: a config on its work folder.
    key: the image set.
    stage: `score` or `recognize`.
  """
  return run.workdir / "hits" / key.dataset / rows_path(run, key, stage).name


def results_folder(
  run: Run, key: ImageSetKey, recognizer: str, protocol: str, shots: int, space: str = ""
) -> Path:
  """Return the folder of the predictions, tables and model of a recognizer on a cell.

  Args:
    run: a config on its work folder.
    key: the image set.
    recognizer: its name.
    protocol: `strict` or `reference`.
    shots: shots of the cell.
    space: name of the encoder, if it is not the run's own.
  """
  rows = rows_path(run, key, "recognize").stem
  name = "-".join(filter(None, (recognizer, protocol, f"{shots}shots", space)))
  return run.workdir / "recognizers" / key.dataset / rows / name
