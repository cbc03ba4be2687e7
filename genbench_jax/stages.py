"""The five stages in their order. Each reads what earlier ones left on disk and makes what is missing."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from genbench_jax import checkpoints, measure, plan
from genbench_jax.benchmark.few_shot import few_shot
from genbench_jax.benchmark.input_pipeline import Images, SplitImages
from genbench_jax.benchmark.reader import Split, open_split
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.benchmark.stand_in import prepare_stand_in
from genbench_jax.clip.features import ImageEmbedder, text_prototypes
from genbench_jax.clip.model import Clip, load_clip
from genbench_jax.config import Config
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.embedding import embed_stored
from genbench_jax.errors import RunError
from genbench_jax.parallel.mesh import data_mesh
from genbench_jax.plan import ImageSetKey
from genbench_jax.progress import Progress, say
from genbench_jax.prompts.strategies import Prompt, prompts_of_class
from genbench_jax.sources.generative import generate_shards
from genbench_jax.sources.original import copy_shards
from genbench_jax.store import embedding_set, files
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.image_set import ImageRecord, ImageSet, ImageSetLayout, ImageSetWriter
from genbench_jax.store.rows import read_rows, write_results

STAGES = ("images", "embed", "score", "recognise", "report")
ShardRecords = Iterator[tuple[int, list[ImageRecord]]]


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
    from genbench_jax.diffusion.model import load_stable_diffusion

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


def run_stages(config: Config, workdir: Path, stages: Sequence[str], command: str) -> None:
  """Runs the given stages in their order and says what each did."""
  run = Run(config, workdir)
  functions: dict[str, Callable[[Run], int]] = {
    "images": make_images,
    "embed": embed,
    "score": score,
    "recognise": recognise,
  }
  ledger = _Ledger(workdir, config, command)
  for stage in STAGES:
    if stage in stages and stage in functions:
      began = time.monotonic()
      done = functions[stage](run)
      ledger.add(stage, done, time.monotonic() - began)
      if not done:
        say(f"{stage}: nothing to do")
  if "report" in stages:
    report(run, ledger)


# ---- images -----------------------------------------------------------------------------------


def make_images(run: Run) -> int:
  """Makes the missing shards of every image set; returns how many images were made."""
  return sum(_make_image_set(run, key) for key in plan.image_sets(run.config))


def _make_image_set(run: Run, key: ImageSetKey) -> int:
  folder = image_folder(run, key)
  if ImageSet.exists(folder):
    return 0
  layout = image_layout(run, key)
  writer = ImageSetWriter(folder, layout)
  missing = writer.missing_shards()
  total = sum(len(layout.shard_range(shard)) for shard in missing)
  with Progress(f"images {key.dataset} {key.label}", total, "images") as progress:
    for shard, records in _records(run, key, layout, missing):
      writer.write_shard(shard, records)
      progress.advance(len(records))
  writer.close()
  return total


def _records(
  run: Run, key: ImageSetKey, layout: ImageSetLayout, missing: Sequence[int]
) -> ShardRecords:
  if key.source == "original":
    split = run.split(key.dataset, "train")
    return copy_shards(split, layout, missing, _chosen(run, key))
  prompts = class_prompts(run, key)
  return generate_shards(run.sampler, layout, missing, prompts, key.seed, key.dataset, key.strategy)


def class_prompts(run: Run, key: ImageSetKey) -> list[list[Prompt]]:
  """class -> shot -> prompt."""
  spec, model = dataset_spec(key.dataset), run.sampler.model
  fits = lambda text: len(model.tokenizer(text, verbose=False)["input_ids"]) <= model.max_tokens  # noqa: E731
  return [
    prompts_of_class(key.strategy, label, spec.names, spec.templates, run.per_class, key.seed, fits)
    for label in range(spec.num_classes)
  ]


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
    size = len(_chosen(run, key))
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
def _chosen(run: Run, key: ImageSetKey) -> np.ndarray:
  return few_shot(_split_labels(run, key.dataset, "train"), run.per_class, key.seed)


@functools.lru_cache(maxsize=64)
def _split_labels(run: Run, dataset: str, split: str) -> np.ndarray:
  return run.split(dataset, split).labels()


# ---- embed ------------------------------------------------------------------------------------


def embed(run: Run) -> int:
  """Embeds every image set, test split and class name not yet embedded; returns how many images."""
  count = 0
  for dataset in run.config.datasets:
    path = text_path(run, dataset)
    if not path.exists():
      _embed_texts(run, dataset, path)
    path = test_path(run, dataset)
    if not path.exists():
      split = run.split(dataset, "test")
      what = f"embed {dataset} test"
      count += _embed(run, what, path, dataset, SplitImages(split), split.labels())
  for key in plan.image_sets(run.config):
    path = image_set_path(run, key)
    if not path.exists():
      images = open_image_set(run, key)
      images.verify()
      labels = _labels_of(images, dataset_spec(key.dataset))
      what = f"embed {key.dataset} {key.label}"
      count += _embed(run, what, path, key.dataset, _StoredImages(images), labels)
  return count


@dataclasses.dataclass(frozen=True)
class _StoredImages:
  """The images of an image set."""

  images: ImageSet

  def __len__(self) -> int:
    return len(self.images)

  def __getitem__(self, index: int) -> bytes:
    return self.images[index].image


def _labels_of(images: ImageSet, spec: DatasetSpec) -> np.ndarray:
  """Class indices [n]; multi-hot [n, k] for a multi-label dataset, generated images too."""
  labels = [record.label for record in images]
  if not spec.multi_label:
    return np.array(labels, np.int32)
  hot = np.zeros((len(labels), spec.num_classes), bool)
  for row, label in zip(hot, labels, strict=True):
    row[list(np.atleast_1d(label))] = True
  return hot


def _embed(
  run: Run, what: str, path: Path, dataset: str, images: Images, labels: np.ndarray
) -> int:
  total = len(images)
  with Progress(what, total, "images") as progress:
    resize = dataset_spec(dataset).resize
    features, valid = embed_stored(run.embedder, images, resize, progress, what)
  _refuse_non_finite(features, what)
  stored = labels.astype(np.uint8 if labels.ndim == 2 else np.int32)
  found = EmbeddingSet(features, stored, np.arange(total, dtype=np.int64), valid)
  embedding_set.save(path, found, {"clip": run.clip_fingerprint})
  return total


def _embed_texts(run: Run, dataset: str, path: Path) -> None:
  spec = dataset_spec(dataset)
  features = text_prototypes(run.clip, spec.names, spec.templates, run.mesh)
  _refuse_non_finite(features, f"text features of {dataset}")
  classes = np.arange(spec.num_classes, dtype=np.int64)
  found = EmbeddingSet(features, classes.astype(np.int32), classes, np.ones(len(classes), np.uint8))
  embedding_set.save(path, found, {"clip": run.clip_fingerprint})


def _refuse_non_finite(features: np.ndarray, what: str) -> None:
  bad = int((~np.isfinite(features)).any(axis=1).sum())
  if bad:
    raise RunError(f"{what}: the encoder gave NaN or infinity for {bad} of {len(features)} rows.")


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


# ---- score and recognise ----------------------------------------------------------------------


def score(run: Run) -> int:
  """Measures every cell not yet measured; returns how many cells."""
  return _measure(run, "score", measure.score_cells)


def recognise(run: Run) -> int:
  """Trains the recognisers of every cell not yet recognised; returns how many cells."""
  return _measure(run, "recognise", measure.recognise_cells)


def _measure(run: Run, stage: str, function: measure.MeasureCells) -> int:
  """Rows of each dataset's missing image sets, the image sets of a dataset together."""
  missing = [key for key in plan.image_sets(run.config) if not rows_path(run, key, stage).exists()]
  count = len(missing) * len(run.config.shots)
  with Progress(stage, count, "cells") as progress:
    for dataset in dict.fromkeys(key.dataset for key in missing):
      keys = [key for key in missing if key.dataset == dataset]
      data = measure.DatasetFeatures(
        spec=dataset_spec(dataset),
        encoder=run.config.encoder.checkpoint,
        text=_load(text_path(run, dataset)).features,
        test=_load(test_path(run, dataset)).readable(),
      )
      external = [
        measure.External(key, _load(image_set_path(run, key)).readable(), shot_sizes(run, key))
        for key in keys
      ]
      for key, rows in function(run.config, data, external, run.mesh):
        files.write_json_lines(rows_path(run, key, stage), rows)
        progress.advance(len(run.config.shots))
  return count


def _load(path: Path) -> EmbeddingSet:
  if not path.exists():
    raise RunError(f"there are no features at {path}. Run the stage `embed` first.")
  return embedding_set.load(path)


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


# ---- report -----------------------------------------------------------------------------------


def report(run: Run, ledger: "_Ledger") -> None:
  """Writes the results and the page, if anything in them has changed."""
  paths = [
    rows_path(run, key, stage)
    for key in plan.image_sets(run.config)
    for stage in ("score", "recognise")
  ]
  rows = read_rows([path for path in paths if path.exists()])
  if not rows:
    raise RunError("there are no rows to report. Run the stages `score` and `recognise` first.")
  about = {"rows": [path.name for path in paths if path.exists()], "config": run.config.as_json()}
  seal, fingerprint = run.workdir / "report" / ".made_from", files.digest(about)
  page = run.workdir / "report" / "index.html"
  if page.exists() and seal.exists() and seal.read_text(encoding="utf-8") == fingerprint:
    say(f"report: nothing to do, see {page}")
    return
  began = time.monotonic()
  write_results(run.workdir, rows)
  _write_page(run, rows, ledger)
  files.write_text(seal, fingerprint)
  say(f"report: {page} ({time.monotonic() - began:.1f} s)")


def _write_page(run: Run, rows: list[dict[str, Any]], ledger: "_Ledger") -> None:
  from genbench_jax.report.page import write_report

  galleries = [
    _gallery(open_image_set(run, key), key, run.config.report.gallery_images)
    for key in plan.image_sets(run.config)
    if ImageSet.exists(image_folder(run, key))
  ]
  write_report(rows, galleries, ledger.about(run), run.workdir / "report")


def _gallery(images: ImageSet, key: ImageSetKey, per_class: int) -> Any:
  from genbench_jax.report.gallery import Entry, Gallery

  labels = np.array([_first_label(record) for record in images], np.int64)
  records = [images[int(row)] for row in plan.rows_of_shots(labels, per_class)]
  names = images.class_names
  entries = [
    Entry(
      names[_first_label(record)],
      record.image,
      record.prompt or None,
      record.negative_prompt or None,
      record.seed if record.prompt else None,
    )
    for record in records
  ]
  return Gallery(key.dataset, key.source, key.strategy, entries)


def _first_label(record: ImageRecord) -> int:
  """The class under which a gallery shows an image; 0 for one without any."""
  return record.label if isinstance(record.label, int) else next(iter(record.label), 0)


class _Ledger:
  """What a config's runs on a work folder have cost so far, over all restarts."""

  def __init__(self, workdir: Path, config: Config, command: str) -> None:
    self.path = workdir / "runs" / f"{files.digest(config.as_json())}.json"
    self.entry: dict[str, Any] = {
      "command": command,
      "started": _now(),
      "seconds": {},
      "images": {},
    }
    if self.path.exists():
      self.entry = files.read_json(self.path)

  def add(self, stage: str, done: int, seconds: float) -> None:
    if done:
      totals = self.entry["seconds"]
      totals[stage] = round(totals.get(stage, 0.0) + seconds, 3)
      if stage in ("images", "embed"):
        self.entry["images"][stage] = self.entry["images"].get(stage, 0) + done
      files.write_json(self.path, self.entry)

  def about(self, run: Run) -> dict[str, Any]:
    devices = jax.devices()
    return {
      **self.entry,
      "title": run.config.report.title,
      "config": run.config.as_json(),
      "datasets": run.config.datasets,
      "versions": _versions(),
      "device": f"{len(devices)} x {devices[0].device_kind}",
      "devices": len(devices),
    }


def _now() -> str:
  return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def _versions() -> dict[str, str]:
  from importlib.metadata import version

  packages = ("genbench_jax", "jax", "flax", "optax", "diffusers", "transformers", "numpy")
  return {package: version(package) for package in packages}
