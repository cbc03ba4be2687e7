"""Images from a pool: those whose captions or pictures are nearest to what a class is asked for with.

What a class gets is chosen once, when a stage first needs it, and kept in the work folder: the images follow from it.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int
from PIL import Image

from genbench_jax.benchmark.few_shot import few_shot, rows_of_shots
from genbench_jax.benchmark.reader import Split
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.cells import ImageSetKey
from genbench_jax.embedding.embedder import text_features, text_prototypes, unit_norm
from genbench_jax.embedding.plain_image import plain_image
from genbench_jax.embedding.stored import embed_stored
from genbench_jax.errors import RunError, UsageError
from genbench_jax.pipeline.features import test_features, test_path
from genbench_jax.retrieval.choose import Chooser, Chosen, Counts
from genbench_jax.retrieval.collection import Place
from genbench_jax.retrieval.demo_pool import NAME, demo_pool
from genbench_jax.retrieval.images import ImageFinder
from genbench_jax.retrieval.leaks import audit
from genbench_jax.retrieval.pool import Pool, open_pool
from genbench_jax.retrieval.ranking import Ranked, ranked, reordered, without_shared
from genbench_jax.retrieval.retrieve import retrieve
from genbench_jax.run import Run
from genbench_jax.runtime.progress import Progress, say
from genbench_jax.sources.source import ShardRecords
from genbench_jax.store import files
from genbench_jax.store.image_set import ImageRecord, ImageSetLayout

# Classes that a sentence names.
_SHOWN = 10


class Retrieval:
  """The images of a pool that rank best for each class, without leaks and duplicates."""

  def made_from(self, run: Run, key: ImageSetKey) -> dict[str, Any]:
    return _made_from(run, key)

  def size(self, run: Run, key: ImageSetKey) -> int:
    return len(chosen_images(run, key).images)

  def multi_label(self, run: Run, key: ImageSetKey) -> bool:
    return False

  def shot_sizes(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    counts = chosen_images(run, key).per_class(dataset_spec(key.dataset).num_classes)
    return {shots: int(np.minimum(counts, shots).sum()) for shots in run.config.shots}

  def real_images(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    """The original images that were queries. The retrieved ones are not of the dataset."""
    seen = len(_query_images(run, key)) if _by_images(run) else 0
    return dict.fromkeys(run.config.shots, seen)

  def records(
    self, run: Run, key: ImageSetKey, layout: ImageSetLayout, shards: Sequence[int]
  ) -> ShardRecords:
    images = chosen_images(run, key).images
    for shard in shards:
      yield shard, [_record(*images[index], index) for index in layout.shard_range(shard)]


class Selection(NamedTuple):
  """What was chosen for a dataset.

  Attributes:
    images: (class, query, image) in the order of shots.
    counts: what became of the candidates.
  """

  images: list[tuple[int, str, Chosen]]
  counts: Counts

  def per_class(self, num_classes: int) -> Int[np.ndarray, "c"]:
    return np.bincount([label for label, _, _ in self.images], minlength=num_classes)


class Queries(NamedTuple):
  """What is asked for: unit-norm features, the class of each, and its text, empty for an image."""

  features: Float32[np.ndarray, "p d"]
  labels: Int[np.ndarray, "p"]
  texts: list[str]


def _by_images(run: Run) -> bool:
  return run.config.retrieval.queries == "image_to_image"


def _made_from(run: Run, key: ImageSetKey) -> dict[str, Any]:
  """All that decides which images are chosen."""
  spec, settings = dataset_spec(key.dataset), dataclasses.asdict(run.config.retrieval)
  del settings["pool"], settings["image_root"]
  return {
    **settings,
    "pool": _pool(run).fingerprint,
    "names": spec.names,
    "templates": spec.templates,
    "test": test_path(run, key.dataset).name,
    "query_seed": key.seed if _by_images(run) else 0,
  }


@functools.lru_cache(maxsize=4)
def _pool(run: Run) -> Pool:
  """The config's pool.

  Raises:
    UsageError: there is none, it has no image features, or another encoder made it.
  """
  given = run.config.retrieval.pool
  pool = open_pool(
    demo_pool(_own_folder(run), run.clip, run.local_mesh) if given == NAME else given
  )
  pool.of("image")
  if pool.manifest.get("clip", run.clip_fingerprint) != run.clip_fingerprint:
    raise UsageError(
      f"the pool {pool.folder} was embedded by another CLIP than {run.config.encoder.checkpoint!r}."
    )
  if run.config.retrieval.queries == "text_to_text" and pool.manifest.get("captions") == 0:
    raise UsageError(
      f"the pool {pool.folder} has no captions. Set config.retrieval.queries to 'text_to_image'."
    )
  return pool


def _own_folder(run: Run) -> Path:
  """Where this process makes the pool of the demo."""
  return run.workdir / ("pool" if run.hosts.is_first else f"pool-{run.hosts.number}")


@functools.lru_cache(maxsize=256)
def chosen_images(run: Run, key: ImageSetKey) -> Selection:
  """What a dataset gets from the pool, chosen now if it has not been.

  Raises:
    RunError: no image can be had.
  """
  folder = run.workdir / "retrieved" / key.dataset / files.digest(_made_from(run, key))
  for path in sorted(folder.glob("*.json")):
    if int(path.stem) >= run.per_class:
      return _first(_from_json(files.read_json(path)), run.per_class)
  selection = _choose(run, key)
  if run.hosts.is_first:  # the others find the same
    files.write_json(folder / f"{run.per_class:06d}.json", _as_json(selection))
  return selection


def _first(selection: Selection, per_class: int) -> Selection:
  """What would have been chosen for so many images a class."""
  rows = rows_of_shots(np.array([label for label, _, _ in selection.images]), per_class)
  return selection._replace(images=[selection.images[row] for row in rows])


def _choose(run: Run, key: ImageSetKey) -> Selection:
  spec, settings, pool = dataset_spec(key.dataset), run.config.retrieval, _pool(run)
  test = test_features(run, key.dataset).readable().features
  queries = _queries(run, key)
  modality = "text" if settings.queries == "text_to_text" else "image"
  say(f"retrieve {key.dataset}: {len(queries.texts)} queries in {len(pool)} rows of {pool.folder}")
  scores, rows = retrieve(
    queries.features,
    pool,
    settings.images_per_prompt,
    modality,  # type: ignore[arg-type]
    settings.recall_target,
    mesh=run.local_mesh,
  )
  chooser = Chooser(
    pool,
    ImageFinder(pool, settings.image_root),
    lambda features: audit(features, test, settings.leak_threshold, run.local_mesh),
    settings.duplicate_threshold,
  )
  places = [np.flatnonzero(queries.labels == label) for label in range(spec.num_classes)]
  rankings = [_ranked(run, scores[place], rows[place]) for place in places]
  if settings.ranking == "rerank":
    rankings = _reranked(run, key.dataset, pool, rankings)
  images = [
    (label, queries.texts[int(places[label][one.prompt])], one)
    for label, one in chooser.choose(without_shared(rankings), run.per_class)
  ]
  if not images:
    raise RunError(_nothing(pool, chooser.counts))
  return Selection(images, chooser.counts)


def _nothing(pool: Pool, counts: Counts) -> str:
  if counts.absent:
    return (
      f"none of the images of {pool.folder} is on this machine. Download them by the urls in its metadata,"
      " by img2dataset say, and name the folder of images or tars in config.retrieval.image_root."
    )
  return f"nothing in {pool.folder} can be used: {_counted(counts)}."


def _queries(run: Run, key: ImageSetKey) -> Queries:
  spec = dataset_spec(key.dataset)
  if _by_images(run):
    split, chosen = run.split(key.dataset, "train"), _query_images(run, key)
    labels = run.labels(key.dataset, "train")[chosen]
    with Progress(f"embed {key.dataset} queries", len(chosen), "images") as progress:
      features, _ = embed_stored(
        run.embedder,
        _Some(split, chosen),
        range(len(chosen)),
        spec.resize,
        progress,
        f"queries of {key.dataset}",
      )
    if labels.ndim == 2:  # an image with several labels asks for each of its classes
      row, label = np.nonzero(labels)
      return Queries(unit_norm(features)[row], label, [""] * len(row))
    return Queries(unit_norm(features), labels, [""] * len(chosen))
  texts = [template.replace("{}", name) for name in spec.names for template in spec.templates]
  labels = np.repeat(np.arange(spec.num_classes), len(spec.templates))
  distinct, inverse = np.unique(texts, return_inverse=True)
  features = unit_norm(text_features(run.clip, distinct.tolist(), run.local_mesh))[inverse]
  return Queries(features, labels, texts)


def _query_images(run: Run, key: ImageSetKey) -> Int[np.ndarray, "m"]:
  """Which original images are queries."""
  labels = run.labels(key.dataset, "train")
  return few_shot(labels, run.config.retrieval.query_shots, key.seed)


@dataclasses.dataclass(frozen=True)
class _Some:
  """Some images of a split."""

  split: Split
  rows: Int[np.ndarray, "m"]

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: int) -> bytes | Image.Image:
    return self.split.example(int(self.rows[index]))["image"]


def _ranked(run: Run, scores: Float32[np.ndarray, "p k"], rows: Int[np.ndarray, "p k"]) -> Ranked:
  return ranked(scores, rows, "mean" if run.config.retrieval.ranking == "mean" else "max")


def _reranked(run: Run, dataset: str, pool: Pool, rankings: list[Ranked]) -> list[Ranked]:
  """By the cosine of each image with its class's text prototype."""
  spec = dataset_spec(dataset)
  prototypes = text_prototypes(run.clip, spec.names, spec.templates, run.local_mesh)
  return [
    reordered(images, unit_norm(pool.features("image", images.row)) @ prototype)
    for images, prototype in zip(rankings, prototypes, strict=True)
  ]


def _record(label: int, query: str, image: Chosen, index: int) -> ImageRecord:
  try:
    content = image.place.read()
  except OSError as error:
    raise RunError(f"{image.place.path} can't be read any more: {error}.") from error
  if hashlib.sha256(content).hexdigest() != image.sha256:
    raise RunError(
      f"{image.place.path} has changed since its images were chosen. Make the pool anew."
    )
  return ImageRecord(plain_image(content), label, index, query, origin=image.origin)


def _as_json(selection: Selection) -> dict[str, Any]:
  images = [
    {"class": label, "query": query, **dataclasses.asdict(one), "place": _place_json(one)}
    for label, query, one in selection.images
  ]
  return {"counts": dataclasses.asdict(selection.counts), "images": images}


def _place_json(one: Chosen) -> list[Any]:
  return [str(one.place.path), one.place.offset, one.place.size]


def _from_json(stored: dict[str, Any]) -> Selection:
  images = []
  for line in stored["images"]:
    path, offset, size = line.pop("place")
    label, query = line.pop("class"), line.pop("query")
    images.append((label, query, Chosen(**line, place=Place(Path(path), offset, size))))
  return Selection(images, Counts(**stored["counts"]))


def leak_notes(run: Run) -> list[str]:
  """What the leak audit found in the retrieved images, a sentence each, for the report."""
  threshold = run.config.retrieval.leak_threshold
  return [
    f"{key.dataset}, retrieval: {counts.leaks} of {counts.looked_at} candidates lie at a cosine of"
    f" {threshold:g} or more to a test image and were left out. Of those kept the nearest lies at {nearest:.3f}."
    for key, selection in _selections(run)
    for counts in [selection.counts]
    for nearest in [max(one.cosine_to_test for _, _, one in selection.images)]
  ]


def shortages(run: Run) -> list[str]:
  """Which classes got fewer images than were asked for, and what was left out, a sentence each."""
  notes = []
  for key, selection in _selections(run):
    names = dataset_spec(key.dataset).names
    have = selection.per_class(len(names))
    few = [f"{names[c]} ({have[c]})" for c in np.flatnonzero(have < run.per_class)]
    if few:
      shown = ", ".join(few[:_SHOWN]) + (f" and {len(few) - _SHOWN} more" if few[_SHOWN:] else "")
      notes.append(
        f"{key.dataset}, retrieval: {len(few)} of {len(names)} classes have fewer than {run.per_class}"
        f" images: {shown}. {_counted(selection.counts)}."
      )
  return notes


def _selections(run: Run) -> Iterator[tuple[ImageSetKey, Selection]]:
  """One for each dataset, of the first seed."""
  if "retrieval" in run.config.sources:
    for dataset in run.config.datasets:
      key = ImageSetKey(dataset, "retrieval", "", run.config.seeds[0])
      yield key, chosen_images(run, key)


def _counted(counts: Counts) -> str:
  return (
    f"Of {counts.looked_at} candidates {counts.leaks} were near a test image, {counts.duplicates} duplicates,"
    f" {counts.absent} not on this machine, {counts.unreadable} unreadable"
  )
