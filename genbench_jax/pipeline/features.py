"""Features on disk, and those of a dataset's test images, which are made when something first needs them."""

from pathlib import Path
from typing import Any

import numpy as np

from genbench_jax.benchmark.few_shot import few_shot
from genbench_jax.benchmark.reader import SplitImages
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.embedding.input_pipeline import Images
from genbench_jax.embedding.stored import embed_stored
from genbench_jax.run import FeatureSpace, Run
from genbench_jax.runtime.progress import Progress
from genbench_jax.store import embedding_set, files
from genbench_jax.store.embedding_parts import PART_ROWS
from genbench_jax.store.embedding_set import EmbeddingSet


def embedding_path(
  run: Run, dataset: str, label: str, made_from: dict[str, Any], space: FeatureSpace | None = None
) -> Path:
  """Where features of something of a dataset stand: what they were made from names the file."""
  encoder, resize = (space or run.space).fingerprint, dataset_spec(dataset).resize
  fingerprint = files.digest({**made_from, "clip": encoder, "resize": resize})
  return run.workdir / "embeddings" / dataset / f"{label}-{fingerprint}.safetensors"


def _spec_json(spec: DatasetSpec) -> dict[str, Any]:
  return {
    "name": spec.name,
    "tfds": spec.tfds_name,
    "splits": spec.splits,
    "sizes": spec.split_sizes,
  }


def test_path(run: Run, dataset: str, space: FeatureSpace | None = None) -> Path:
  """Where the features of a dataset's test images stand."""
  made_from = {**_spec_json(dataset_spec(dataset)), "stand_in": run.config.stand_in}
  return embedding_path(run, dataset, "test", made_from, space)


def guides_of(run: Run, dataset: str) -> np.ndarray:
  """Which training images are guides: those that a larger few-shot choice of originals would add."""
  labels, seed = run.labels(dataset, "train"), min(run.config.seeds)
  used = few_shot(labels, run.per_class, seed)
  more = few_shot(labels, run.per_class + run.config.scoring.guides, seed)
  return np.setdiff1d(more, np.concatenate([used, *_of_other_seeds(run, labels)]))


def _of_other_seeds(run: Run, labels: np.ndarray) -> list[np.ndarray]:
  return [few_shot(labels, run.per_class, seed) for seed in run.config.seeds]


def wants_guides(run: Run) -> bool:
  """Whether a score needs real training images that nothing else sees, and the run looks at training images at all."""
  scoring = run.config.scoring
  asked = {"class_chamfer", "guide_ridge"} & set(scoring.quantities)
  return bool(scoring.guides and asked and "original" in run.config.sources)


def guides_path(run: Run, dataset: str, space: FeatureSpace | None = None) -> Path:
  """Where the features of a dataset's guides stand."""
  made_from = {
    **_spec_json(dataset_spec(dataset)),
    "stand_in": run.config.stand_in,
    "guides": run.config.scoring.guides,
    "per_class": run.per_class,
    "seeds": list(run.config.seeds),
  }
  return embedding_path(run, dataset, "guides", made_from, space)


def test_features(run: Run, dataset: str) -> EmbeddingSet:
  """The features of a dataset's test images, made by this process if they are not there."""
  path, split = test_path(run, dataset), run.split(dataset, "test")
  if path.exists():
    return embedding_set.load(path)
  name, parts = f"{dataset} test", []
  with Progress(f"embed {name}", len(split), "images") as progress:
    for start in range(0, len(split), PART_ROWS):
      rows = range(start, min(start + PART_ROWS, len(split)))
      labels = run.labels(dataset, "test")[rows.start : rows.stop]
      parts.append(embedded(run, name, dataset, SplitImages(split), labels, rows, progress))
  found = embedding_set.concatenated(parts)
  if run.hosts.is_first:
    embedding_set.save(path, found, encoder_of(run))
  return found


def embedded(
  run: Run,
  name: str,
  dataset: str,
  images: Images,
  labels: np.ndarray,
  rows: range,
  progress: Progress,
  space: FeatureSpace | None = None,
) -> EmbeddingSet:
  """The features of the given rows of some images, by the run's encoder or another."""
  embedder, resize = (space or run.space).embedder, dataset_spec(dataset).resize
  features, valid = embed_stored(embedder, images, rows, resize, progress, f"embed {name}")
  stored = labels.astype(np.uint8 if labels.ndim == 2 else np.int32)
  return EmbeddingSet(features, stored, np.asarray(rows, np.int64), valid)


def encoder_of(run: Run, space: FeatureSpace | None = None) -> dict[str, str]:
  """What is stored beside features: which encoder made them."""
  return {"clip": (space or run.space).fingerprint}
