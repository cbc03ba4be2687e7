"""A config on a work folder: its models, its data, and where each artefact stands.

Names carry the fingerprint of all that made them, so that a changed setting makes new files and touches no
old ones.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from genbench_jax import checkpoints, measure
from genbench_jax.benchmark.few_shot import few_shot
from genbench_jax.benchmark.reader import Split, open_split
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.benchmark.stand_in import prepare_stand_in
from genbench_jax.clip.features import ImageEmbedder
from genbench_jax.clip.model import Clip, load_clip
from genbench_jax.config import Config
from genbench_jax.diffusion.model import load_stable_diffusion
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.errors import RunError
from genbench_jax.parallel.mesh import data_mesh
from genbench_jax.plan import ImageSetKey
from genbench_jax.store import embedding_set, files
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.image_set import ImageSet, ImageSetLayout


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """A config on a work folder. Models are loaded when a stage first needs them."""

  config: Config
  workdir: Path

  @functools.cached_property
  def mesh(self) -> Mesh:
    return data_mesh()

  @functools.cached_property
  def diffusion_fingerprint(self) -> str:
    generation = self.config.generation
    return checkpoints.fingerprint(checkpoints.locate(generation.checkpoint, generation.revision))

  @functools.cached_property
  def clip_fingerprint(self) -> str:
    encoder = self.config.encoder
    return checkpoints.fingerprint(checkpoints.locate(encoder.checkpoint, encoder.revision))

  @functools.cached_property
  def sampler(self) -> Sampler:
    settings = self.config.generation
    return Sampler(
      load_stable_diffusion(settings.checkpoint, settings.revision or None),
      self.mesh,
      settings.batch_per_device,
      settings.steps,
      settings.guidance_scale,
      settings.scheduler,
      settings.height or None,
      settings.width or None,
    )

  @functools.cached_property
  def clip(self) -> Clip:
    encoder = self.config.encoder
    return load_clip(encoder.checkpoint, encoder.revision or None)

  @functools.cached_property
  def embedder(self) -> ImageEmbedder:
    return ImageEmbedder(self.clip, self.mesh, self.config.encoder.batch_per_device)

  @property
  def per_class(self) -> int:
    return max(self.config.shots)

  def split(self, dataset: str, split: str) -> Split:
    spec = dataset_spec(dataset)
    if self.config.stand_in and spec.tfds_name:
      folder = self.workdir / "stand_ins"
      prepare_stand_in(spec, folder, dict.fromkeys(spec.splits, self.config.stand_in))
      return open_split(spec, split, folder)
    return open_split(spec, split, self.config.data_dir or None)


def image_folder(run: Run, key: ImageSetKey) -> Path:
  """Where an image set stands: a changed setting makes another folder."""
  fingerprint = image_layout(run, key).fingerprint
  return run.workdir / "images" / key.dataset / f"{key.label}-{fingerprint}"


def image_layout(run: Run, key: ImageSetKey) -> ImageSetLayout:
  """What an image set will be."""
  spec, settings = dataset_spec(key.dataset), run.config.generation
  made_from: dict[str, Any] = {**dataclasses.asdict(key), "per_class": run.per_class}
  made_from["stand_in"] = run.config.stand_in
  size = spec.num_classes * run.per_class
  if key.source == "original":
    size = len(chosen_originals(run, key))
  else:
    made_from |= {
      "model": run.diffusion_fingerprint,
      "templates": spec.templates,
      "steps": settings.steps,
      "guidance_scale": settings.guidance_scale,
      "scheduler": settings.scheduler,
      "height": settings.height,
      "width": settings.width,
    }
  name = f"{key.dataset}_{key.source}"
  multi_label = spec.multi_label and key.source == "original"
  return ImageSetLayout(name, spec.names, size, settings.shard_size, made_from, multi_label)


def shot_sizes(run: Run, key: ImageSetKey) -> dict[int, int]:
  """shots -> how many images: the s-shot set is the beginning of the image set."""
  if key.source == "generative":
    return {shots: shots * dataset_spec(key.dataset).num_classes for shots in run.config.shots}
  labels = _split_labels(run, key.dataset, "train")
  return {shots: len(few_shot(labels, shots, key.seed)) for shots in run.config.shots}


@functools.lru_cache(maxsize=256)
def chosen_originals(run: Run, key: ImageSetKey) -> np.ndarray:
  """Which training images make an image set of originals, in its order."""
  return few_shot(_split_labels(run, key.dataset, "train"), run.per_class, key.seed)


@functools.lru_cache(maxsize=64)
def _split_labels(run: Run, dataset: str, split: str) -> np.ndarray:
  return run.split(dataset, split).labels()


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


def image_set_path(run: Run, key: ImageSetKey) -> Path:
  """Where the features of an image set stand."""
  return _embedding_path(
    run, key.dataset, key.label, {"images": image_layout(run, key).fingerprint}
  )


def test_path(run: Run, dataset: str) -> Path:
  """Where the features of a dataset's test images stand."""
  made_from = {**_spec_json(dataset_spec(dataset)), "stand_in": run.config.stand_in}
  return _embedding_path(run, dataset, "test", made_from)


def text_path(run: Run, dataset: str) -> Path:
  """Where the text prototypes of a dataset stand."""
  spec = dataset_spec(dataset)
  return _embedding_path(run, dataset, "text", {"names": spec.names, "templates": spec.templates})


def _embedding_path(run: Run, dataset: str, label: str, made_from: dict[str, Any]) -> Path:
  resize = dataset_spec(dataset).resize
  fingerprint = files.digest({**made_from, "clip": run.clip_fingerprint, "resize": resize})
  return run.workdir / "embeddings" / dataset / f"{label}-{fingerprint}.safetensors"


def _spec_json(spec: DatasetSpec) -> dict[str, Any]:
  return {
    "name": spec.name,
    "tfds": spec.tfds_name,
    "splits": spec.splits,
    "sizes": spec.split_sizes,
  }


def rows_path(run: Run, key: ImageSetKey, stage: str) -> Path:
  """Where the rows of an image set stand: a changed setting makes another file."""
  settings = run.config.scoring if stage == "score" else run.config.recognition
  made_from = {
    "settings": dataclasses.asdict(settings),
    "shots": sorted(run.config.shots),
    "paths": [p.name for p in (image_set_path(run, key), test_path(run, key.dataset))],
    "text": text_path(run, key.dataset).name,
    "version": measure.VERSION,
  }
  name = f"{key.label}-{stage}-{files.digest(made_from)}.jsonl"
  return run.workdir / "rows" / key.dataset / name


def load_embeddings(path: Path) -> EmbeddingSet:
  """The features at a path.

  Raises:
    RunError: there are none, or they are damaged.
  """
  if not path.exists():
    raise RunError(f"there are no features at {path}. Run the stage `embed` first.")
  return embedding_set.load(path)
