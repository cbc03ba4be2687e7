"""Images from a pool, ranked by the similarity of their captions or pixels to the queries of a class.

The images of a class are chosen once, and the choice is stored in the work folder.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int
from PIL import Image

from genbench_jax.benchmark.few_shot import few_shot
from genbench_jax.benchmark.reader import Split
from genbench_jax.cells import ImageSetKey
from genbench_jax.embedding.embedder import text_features, text_prototypes, unit_norm
from genbench_jax.embedding.plain_image import plain_image
from genbench_jax.embedding.stored import embed_stored
from genbench_jax.errors import NotPreparedError, RunError, UsageError
from genbench_jax.metrics.inputs import host_unit_rows
from genbench_jax.retrieval.choose import Chooser, ChosenImage, Counts
from genbench_jax.retrieval.demo_pool import NAME, VERSION, demo_pool
from genbench_jax.retrieval.images import ImageFinder
from genbench_jax.retrieval.leaks import audit
from genbench_jax.retrieval.pool import Pool, open_pool
from genbench_jax.retrieval.ranking import RankedImages, ranked, reordered, without_shared
from genbench_jax.retrieval.retrieve import retrieve
from genbench_jax.run import Run, encoder_pin
from genbench_jax.runtime.progress import Progress, say
from genbench_jax.sources.choice import (
  Choice,
  evidence,
  larger_choices,
  load_choice,
  save_choice,
  still_holds,
)
from genbench_jax.sources.source import (
  ImageSource,
  Need,
  NeededValues,
  ShardRecords,
  TestFeatures,
)
from genbench_jax.store import files
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.image_set import ImageRecord, ImageSetLayout
from genbench_jax.store.versions import VERSIONS

# Number of class names in a message.
_SHOWN = 10


class Retrieval(ImageSource):
  """The best-ranked pool images of each class, without leaks and duplicates."""

  def needs(self, run: Run, key: ImageSetKey) -> tuple[Need, ...]:
    return (TestFeatures(run, key.dataset),)

  def prepare(self, run: Run, key: ImageSetKey, given: NeededValues) -> None:
    if run.hosts.is_first:  # other processes read the stored choice
      choose_images(run, key, given[0])

  def made_from(self, run: Run, key: ImageSetKey) -> dict[str, Any]:
    return {**_made_from(run, key), "choice": chosen_images(run, key).digest}

  def size(self, run: Run, key: ImageSetKey) -> int:
    return len(chosen_images(run, key).images)

  def shot_sizes(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    counts = chosen_images(run, key).per_class(run.config.spec(key.dataset).num_classes)
    return {shots: int(np.minimum(counts, shots).sum()) for shots in run.config.shots}

  def real_images(self, run: Run, key: ImageSetKey) -> dict[int, int]:
    """Return the number of original images used as queries; retrieved images are not the dataset's."""
    seen = len(_query_images(run, key)) if _by_images(run) else 0
    return dict.fromkeys(run.config.shots, seen)

  def records(
    self,
    run: Run,
    key: ImageSetKey,
    layout: ImageSetLayout,
    shards: Sequence[int],
    given: NeededValues = (),
  ) -> ShardRecords:
    images = chosen_images(run, key).images
    for shard in shards:
      yield shard, [_record(*images[index], index) for index in layout.shard_range(shard)]


class Queries(NamedTuple):
  """Queries of a search: unit-norm features, class labels, and texts (empty for image queries)."""

  features: Float32[np.ndarray, "p d"]
  labels: Int[np.ndarray, "p"]
  texts: list[str]


def _by_images(run: Run) -> bool:
  return run.config.retrieval.queries == "image_to_image"


def _made_from(run: Run, key: ImageSetKey) -> dict[str, Any]:
  """Return everything that determines the choice, except the candidate images."""
  spec, settings = run.config.spec(key.dataset), dataclasses.asdict(run.config.retrieval)
  del settings["pool"], settings["image_root"]
  by_images = {"query_seed": key.seed, "originals": run.digest(key.dataset, "train")}
  return {
    **settings,
    "pool": _pool_digest(run),
    "names": spec.names,
    "templates": spec.templates,
    "resize": spec.resize,
    "test": run.digest(key.dataset, "test"),
    "clip": run.encoder_fingerprint,
    "version": [VERSIONS["images"], VERSIONS["embed"]],
    **(by_images if _by_images(run) else {}),
  }


def _pool_digest(run: Run) -> str:
  """Return the digest of the pool's content."""
  if _is_demo(run):  # drawn deterministically, and embedded by the run's own encoder
    return f"{NAME} {VERSION}"
  return run.shared.get(("pool digest", _pool(run).folder), lambda: _content_digest(run))


def _content_digest(run: Run) -> str:
  pool = _pool(run)
  # Files that the user has arranged may be links to other places.
  paths = [(path, path.resolve()) for path in pool.content_files()]
  found = run.file_digests("pool").of([(real.parent, real.name) for _, real in paths])
  names = [path.relative_to(pool.folder).as_posix() for path, _ in paths]
  return files.digest(list(zip(names, found, strict=True)))


def _pool(run: Run) -> Pool:
  """Open the config's pool; the demo's must have been made.

  Raises:
    UsageError: there is no pool, it has no image features, or another encoder made it.
  """
  folder = _demo_folder(run) if _is_demo(run) else Path(run.config.retrieval.pool)
  return run.shared.get(("pool", folder, encoder_pin(run.config)), lambda: _opened(run, folder))


def _is_demo(run: Run) -> bool:
  return run.config.retrieval.pool == NAME


def _demo_folder(run: Run) -> Path:
  """Return the folder of the demo's pool."""
  return run.workdir / "pool" / "pool"


def _opened(run: Run, folder: Path) -> Pool:
  pool = open_pool(folder)
  pool.of("image")
  if pool.manifest.get("clip", run.encoder_fingerprint) != run.encoder_fingerprint:
    raise UsageError(
      f"the pool {pool.folder} was embedded by another encoder than {run.config.encoder.checkpoint!r}."
    )
  if pool.manifest.get("version", VERSIONS["embed"]) != VERSIONS["embed"]:
    raise UsageError(
      f"the pool {pool.folder} was embedded by another version of this package, which computes other features."
      " Run its `genbench embed` again."
    )
  if run.config.retrieval.queries == "text_to_text" and pool.manifest.get("captions") == 0:
    raise UsageError(
      f"the pool {pool.folder} has no captions. Set config.retrieval.queries to 'text_to_image'."
    )
  return pool


def chosen_images(run: Run, key: ImageSetKey) -> Choice:
  """Return the images chosen for a dataset.

  Raises:
    NotPreparedError: no images have been chosen, or the choice is outdated.
  """
  found = _find_choice(run, key)
  if found is None:
    raise NotPreparedError(
      f"no images of {key.name} have been chosen. Run the stage `images` first."
    )
  return found


def choose_images(run: Run, key: ImageSetKey, test: EmbeddingSet) -> Choice:
  """Choose images for a dataset from the pool, unless an earlier choice is still valid.

  Args:
    run: a config on its work folder.
    key: the image set.
    test: features of the dataset's test images, for the leak audit.

  Raises:
    RunError: no image is available.
  """
  if _is_demo(run):
    demo_pool(_demo_folder(run).parent, run.encoder, run.local_mesh)
  found = _find_choice(run, key)
  if found is None:
    found = _choose(run, key, test.readable())
  return found


def _find_choice(run: Run, key: ImageSetKey) -> Choice | None:
  """Return a valid earlier choice, if any. Checked once, since data do not change during a run."""
  known = run.shared.get(("choices",), dict)
  place = _choice_key(run, key)
  if place not in known and (found := _load_choice(run, key)):
    known[place] = found
  return known[place].first(run.per_class) if place in known else None


def _choice_key(run: Run, key: ImageSetKey) -> tuple[Any, ...]:
  root = run.config.retrieval.image_root
  return _choices_folder(run, key), run.per_class, root


def _choices_folder(run: Run, key: ImageSetKey) -> Path:
  name = files.digest(_made_from(run, key))
  return run.workdir / "retrieved" / key.dataset / name


def _load_choice(run: Run, key: ImageSetKey) -> Choice | None:
  for path in larger_choices(_choices_folder(run, key), run.per_class):
    if _is_demo(run) and not _demo_folder(run).is_dir():  # deterministic, so it is still valid
      return load_choice(path, None)[0]
    finder = _finder(run)
    choice, found = load_choice(path, finder.root)
    if still_holds(found, finder, run.file_digests(f"{key.dataset}-retrieval")):
      return choice
  return None


def _finder(run: Run) -> ImageFinder:
  return ImageFinder(_pool(run), run.config.retrieval.image_root)


def _choose(run: Run, key: ImageSetKey, test: EmbeddingSet) -> Choice:
  settings, pool = run.config.retrieval, _pool(run)
  queries, finder = _queries(run, key), _finder(run)
  chooser = Chooser(
    pool,
    finder,
    lambda features: audit(features, test.features, settings.leak_threshold, run.local_mesh),
    settings.duplicate_threshold,
  )
  places = [
    np.flatnonzero(queries.labels == label)
    for label in range(run.config.spec(key.dataset).num_classes)
  ]
  rankings = _rankings(run, key.dataset, queries, places)
  images = [
    (label, queries.texts[int(places[label][image.prompt])], image)
    for label, image in chooser.choose(without_shared(rankings), run.per_class)
  ]
  if not images:
    raise RunError(_nothing(pool, chooser.counts))
  choice = Choice(images, chooser.counts)
  rests_on = evidence(chooser, run.file_digests(f"{key.dataset}-retrieval"))
  path = _choices_folder(run, key) / f"{run.per_class:06d}.json"
  save_choice(path, choice, rests_on, finder.root)
  return choice


def _rankings(
  run: Run, dataset: str, queries: Queries, places: Sequence[Int[np.ndarray, "p"]]
) -> list[RankedImages]:
  """Rank the pool's images for each class, best first.

  Args:
    run: a config on its work folder.
    dataset: name of the dataset.
    queries: queries of all classes.
    places: indices of each class's queries.
  """
  settings, pool = run.config.retrieval, _pool(run)
  say(f"retrieve {dataset}: {len(queries.texts)} queries in {len(pool)} rows of {pool.folder}")
  scores, rows = retrieve(
    queries.features,
    pool,
    settings.images_per_prompt,
    "text" if settings.queries == "text_to_text" else "image",
    settings.recall_target,
    mesh=run.local_mesh,
  )
  rankings = [_ranked(run, scores[place], rows[place]) for place in places]
  return _reranked(run, dataset, pool, rankings) if settings.ranking == "rerank" else rankings


def _nothing(pool: Pool, counts: Counts) -> str:
  if counts.absent:
    return (
      f"none of the images of {pool.folder} is on this machine. Download them from the URLs in its metadata,"
      " for example with img2dataset, and set config.retrieval.image_root to the folder of images or tar files."
    )
  return f"no image of {pool.folder} can be used: {_counted(counts)}."


def _queries(run: Run, key: ImageSetKey) -> Queries:
  spec = run.config.spec(key.dataset)
  if _by_images(run):
    split, chosen = run.split(key.dataset, "train"), _query_images(run, key)
    labels = run.labels(key.dataset, "train")[chosen]
    with Progress(f"embed {key.dataset} queries", len(chosen), "images") as progress:
      features, _ = embed_stored(
        run.embedder,
        _SplitRows(split, chosen),
        range(len(chosen)),
        spec.resize,
        progress,
        f"queries of {key.dataset}",
      )
    if labels.ndim == 2:  # an image with several labels is a query for each of its classes
      row, label = np.nonzero(labels)
      return Queries(unit_norm(features)[row], label, [""] * len(row))
    return Queries(unit_norm(features), labels, [""] * len(chosen))
  texts = [template.replace("{}", name) for name in spec.names for template in spec.templates]
  labels = np.repeat(np.arange(spec.num_classes), len(spec.templates))
  distinct, inverse = np.unique(texts, return_inverse=True)
  features = unit_norm(text_features(run.encoder, distinct.tolist(), run.local_mesh))[inverse]
  return Queries(features, labels, texts)


def _query_images(run: Run, key: ImageSetKey) -> Int[np.ndarray, "m"]:
  """Return the rows of the original images that are queries."""
  labels = run.labels(key.dataset, "train")
  return few_shot(labels, run.config.retrieval.query_shots, key.seed)


@dataclasses.dataclass(frozen=True)
class _SplitRows:
  """Images of selected rows of a split, as a sequence."""

  split: Split
  rows: Int[np.ndarray, "m"]

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: int) -> bytes | Image.Image:
    return self.split.example(int(self.rows[index]))["image"]


def _ranked(
  run: Run, scores: Float32[np.ndarray, "p k"], rows: Int[np.ndarray, "p k"]
) -> RankedImages:
  return ranked(scores, rows, "mean" if run.config.retrieval.ranking == "mean" else "max")


def _reranked(
  run: Run, dataset: str, pool: Pool, rankings: list[RankedImages]
) -> list[RankedImages]:
  """Reorder by the cosine of each image with its class's text prototype."""
  spec = run.config.spec(dataset)
  prototypes = text_prototypes(run.encoder, spec.names, spec.templates, run.local_mesh)
  return [
    reordered(images, host_unit_rows(pool.features("image", images.row)) @ prototype)
    for images, prototype in zip(rankings, prototypes, strict=True)
  ]


def _record(label: int, query: str, image: ChosenImage, index: int) -> ImageRecord:
  try:
    content = image.place.read()
  except OSError as error:
    raise RunError(f"{image.place.path} can't be read any more: {error}.") from error
  if hashlib.sha256(content).hexdigest() != image.sha256:
    raise RunError(
      f"{image.place.path} has changed since its images were chosen. Rebuild the pool."
    )
  return ImageRecord(plain_image(content), label, index, query, origin=image.origin)


def leak_notes(run: Run) -> list[str]:
  """Return the results of the leak audit, one sentence each, for the report."""
  threshold = run.config.retrieval.leak_threshold
  return [
    f"{key.dataset}, retrieval: {counts.leaks} of {counts.looked_at} candidates have a cosine of"
    f" {threshold:g} or more with a test image and were rejected. The largest cosine among the kept ones is {nearest:.3f}."
    for key, selection in _selections(run)
    for counts in [selection.counts]
    for nearest in [max(image.cosine_to_test for _, _, image in selection.images)]
  ]


def shortages(run: Run) -> list[str]:
  """Return which classes got fewer images than requested, and what was rejected, one sentence each."""
  notes = []
  for key, selection in _selections(run):
    names = run.config.spec(key.dataset).names
    have = selection.per_class(len(names))
    few = [f"{names[c]} ({have[c]})" for c in np.flatnonzero(have < run.per_class)]
    if few:
      shown = ", ".join(few[:_SHOWN]) + (f" and {len(few) - _SHOWN} more" if few[_SHOWN:] else "")
      notes.append(
        f"{key.dataset}, retrieval: {len(few)} of {len(names)} classes have fewer than {run.per_class}"
        f" images: {shown}. {_counted(selection.counts)}."
      )
  return notes


def _selections(run: Run) -> Iterator[tuple[ImageSetKey, Choice]]:
  """Yield each dataset's choice for the first seed, if it has been made."""
  if "retrieval" in run.config.sources:
    for dataset in run.config.specs:
      key = ImageSetKey(dataset, "retrieval", "", run.config.seeds[0])
      if choice := _find_choice(run, key):
        yield key, choice


def _counted(counts: Counts) -> str:
  return (
    f"Of {counts.looked_at} candidates, {counts.leaks} were near a test image, {counts.duplicates} duplicates,"
    f" {counts.absent} not on this machine, {counts.unreadable} unreadable"
  )
