"""Textual inversion as a modifier of a prompt strategy: new tokens for the classes of a dataset.

`defined_template+inversion_original` is `defined_template` with "<new token> class name" instead of the class
name. Tokens are learned from original images (`original`), from retrieved images (`retrieval`), or elsewhere
(`folder`). Images have the same random numbers as with the plain strategy, so that the two are paired.
"""

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from PIL import Image

from genbench_jax.benchmark.class_folders import match_folders
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.cells import ImageSetKey
from genbench_jax.config import TextualInversion
from genbench_jax.diffusion.inversion.embeddings import (
  FILE_NAME,
  LearnedEmbeddings,
  embedding_file,
  load_embedding,
)
from genbench_jax.diffusion.inversion.settings import Training
from genbench_jax.diffusion.inversion.trainer import Concept, Trainer
from genbench_jax.embedding.input_pipeline import opened
from genbench_jax.errors import RunError, UsageError
from genbench_jax.run import Run
from genbench_jax.runtime.progress import Progress, say
from genbench_jax.sources.retrieval import Retrieval
from genbench_jax.sources.source import Images, Need, NeededValues
from genbench_jax.store import files
from genbench_jax.store.image_set import ImageSet
from genbench_jax.store.versions import VERSIONS


class ClassTokens(NamedTuple):
  """The learned tokens of a dataset.

  Attributes:
    learned: embeddings of all placeholders.
    names: name of each class, preceded by its placeholder if it has one.
  """

  learned: LearnedEmbeddings
  names: tuple[str, ...]


class _References(NamedTuple):
  """Images to learn tokens from.

  Attributes:
    images: function that reads an image by its row.
    rows: rows of each class.
  """

  images: Any
  rows: tuple[Int[np.ndarray, "r"], ...]


def needs(run: Run, key: ImageSetKey) -> tuple[Need, ...]:
  """Return the retrieved images as a need, if tokens are learned from them."""
  return (Images(run, _retrieval_key(key)),) if key.references == "retrieval" else ()


def class_tokens(run: Run, key: ImageSetKey, given: NeededValues = ()) -> ClassTokens:
  """Return the tokens of a key's classes, after `learn_share` has learned them.

  Args:
    run: the run.
    key: the image set.
    given: values of the key's needs, see `ImageSource.needs`.

  Raises:
    UsageError: the user's folder has none, or they were learned for another model.
    RunError: a file is missing or damaged.
  """
  spec = run.config.spec(key.dataset)
  if key.references == "folder":
    paths = _own_paths(run, key.dataset)
  else:
    _, paths = _concepts(run, key, given)
  placeholders = _placeholders(spec, run.config.textual_inversion.scope)
  vectors = {placeholders[label]: load_embedding(path)[1] for label, path in paths.items()}
  names = tuple(
    f"{placeholders[label]} {name}" if label in paths else name
    for label, name in enumerate(spec.names)
  )
  return ClassTokens(LearnedEmbeddings(vectors), names)


def made_from(run: Run, key: ImageSetKey) -> dict[str, Any]:
  """Return everything that determines the tokens besides the key and the model, as JSON."""
  settings = run.config.textual_inversion
  if key.references == "folder":
    paths = _own_paths(run, key.dataset)
    return {"inversion": {str(label): files.sha256(path) for label, path in paths.items()}}
  about: dict[str, Any] = dataclasses.asdict(_training(settings))
  del about["save_every"]
  about |= {"shots": settings.shots, "scope": settings.scope, "templates": settings.templates}
  if settings.clip_weight:
    about["clip"] = run.encoder_fingerprint
  if key.references == "original":
    about["originals"] = run.digest(key.dataset, "train")
  if key.references == "retrieval":
    about["retrieved"] = files.digest(Retrieval().made_from(run, _retrieval_key(key)))
  return {"inversion": about}


def real_images(run: Run, key: ImageSetKey) -> int:
  """Return the number of the dataset's real images that a key's tokens were learned from."""
  if key.references == "original":
    references = _original_references(run, key)
    return len(np.unique(np.concatenate(references.rows)))
  if key.references == "retrieval":
    return max(Retrieval().real_images(run, _retrieval_key(key)).values())
  return run.config.textual_inversion.real_images


def renamed(
  sentences: Sequence[Sequence[str]], old: Sequence[str], new: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
  """Replace the old name of each class by the new one in its sentences; append it if it does not occur.

  Args:
    sentences: sentences of each class.
    old: name of each class.
    new: new name of each class.
  """
  return tuple(
    tuple(_renamed(text, before, after) for text in of_class)
    for of_class, before, after in zip(sentences, old, new, strict=False)
  )


def _renamed(text: str, before: str, after: str) -> str:
  start = text.lower().find(before.lower())
  if start < 0:
    return f"{text.rstrip('.')}, {after}"
  return text[:start] + after + text[start + len(before) :]


# ---- tokens made elsewhere ----------------------------------------------------------------------


def _own_paths(run: Run, dataset: str) -> dict[int, Path]:
  """Return class -> file in the user's folder: `CLASS/learned_embeds.safetensors` or `CLASS.safetensors`."""
  settings, spec = run.config.textual_inversion, run.config.spec(dataset)
  root = Path(settings.folder.replace("{dataset}", dataset)).expanduser()
  if not root.is_dir():
    raise UsageError(f"config.textual_inversion.folder: the folder {str(root)!r} does not exist.")
  found: dict[str, Path] = {}
  for path in sorted(root.iterdir()):
    if path.name.startswith("."):
      continue
    if path.is_dir() or path.suffix == ".safetensors":
      found[path.name.removesuffix(".safetensors")] = path
  if not found:
    raise UsageError(f"{str(root)!r} contains no learned embeddings; expected CLASS/{FILE_NAME}.")
  label_of = match_folders(list(found), spec).label_of
  return {label: embedding_file(found[name]) for name, label in label_of.items()}


# ---- tokens learned here -------------------------------------------------------------------------


def learn_share(run: Run, key: ImageSetKey, given: NeededValues = ()) -> None:
  """Learn this process's share of a key's missing tokens.

  Args:
    run: the run.
    key: the image set.
    given: values of the key's needs, see `ImageSource.needs`.

  Raises:
    RunError: there are no references, or a token became NaN.
  """
  if key.references != "folder":
    _learn(run, key, _concepts(run, key, given)[0])


def _concepts(
  run: Run, key: ImageSetKey, given: NeededValues = ()
) -> tuple[list[Concept], dict[int, Path]]:
  """Return the tokens of a key, and class -> file of its token. Classes without references have none."""
  settings, spec = run.config.textual_inversion, run.config.spec(key.dataset)
  folder = inversion_folder(run, key)
  references = _references(run, key, given)
  labels = [label for label, rows in enumerate(references.rows) if len(rows)]
  if not labels:
    raise RunError(f"{key.dataset}: there are no references to learn tokens from.")
  if len(labels) < spec.num_classes:
    say(
      f"{key.dataset}: {spec.num_classes - len(labels)} classes have no references and get no token"
    )
  if settings.scope == "dataset":
    path = folder / "all" / FILE_NAME
    return [_shared_concept(spec, references, labels, path)], dict.fromkeys(labels, path)
  paths = {label: folder / _folder_name(spec, label) / FILE_NAME for label in labels}
  return [_concept(spec, references, label, paths[label]) for label in labels], paths


def inversion_folder(run: Run, key: ImageSetKey) -> Path:
  """Return the folder of a key's tokens, with one folder per class for diffusers' `load_textual_inversion`."""
  about = made_from(run, key) | {"model": run.diffusion_fingerprint, "seed": key.seed}
  about |= {"dataset": key.dataset, "version": VERSIONS["images"]}
  name = f"{key.references}-seed{key.seed}-{files.digest(about)}"
  return run.workdir / "textual_inversion" / key.dataset / name


def _learn(run: Run, key: ImageSetKey, concepts: Sequence[Concept]) -> None:
  missing = sum(not concept.path.exists() for concept in concepts)
  if not missing:
    return
  settings, spec, sampler = run.config.textual_inversion, run.config.spec(key.dataset), run.sampler
  training = _training(settings)
  trainer = Trainer(
    sampler.model,
    sampler.mesh,
    training,
    spec.templates if settings.templates == "dataset" else ("{}",),
    sampler.height,
    sampler.width,
    key.seed,
    run.encoder if training.clip_weight else None,
  )
  what = f"textual inversion {key.dataset} {key.references}"
  with Progress(what, missing * training.steps, "token-steps") as progress:
    for steps in trainer.learn(concepts, inversion_folder(run, key) / ".state", run.hosts.owns):
      progress.advance(steps)


def _training(settings: TextualInversion) -> Training:
  """Return the part of the settings that concerns training."""
  names = [field.name for field in dataclasses.fields(Training)]
  return Training(**{name: getattr(settings, name) for name in names})


def _concept(spec: DatasetSpec, references: _References, label: int, path: Path) -> Concept:
  rows = references.rows[label]
  return Concept(
    _placeholders(spec, "category")[label],
    (spec.names[label],),
    (0,) * len(rows),
    functools.partial(_read, references, rows),
    path,
  )


def _shared_concept(
  spec: DatasetSpec, references: _References, labels: Sequence[int], path: Path
) -> Concept:
  rows = np.concatenate([references.rows[label] for label in labels])
  shown = np.repeat(labels, [len(references.rows[label]) for label in labels])
  return Concept(
    _placeholders(spec, "dataset")[0],
    spec.names,
    tuple(int(label) for label in shown),
    functools.partial(_read, references, rows),
    path,
  )


def _read(references: _References, rows: Int[np.ndarray, "r"]) -> list[Image.Image]:
  return [opened(references.images(int(row))) for row in rows]


def _placeholders(spec: DatasetSpec, scope: str) -> list[str]:
  """Return `<dataset-class>` for each class, with an index if names clash; or one placeholder for all."""
  dataset = _slug(spec.name) or "dataset"
  if scope == "dataset":
    return [f"<{dataset}>"] * spec.num_classes
  slugs = [_slug(name) for name in spec.names]
  return [
    f"<{dataset}-{slug}>" if slug and slugs.count(slug) == 1 else f"<{dataset}-{slug}.{label}>"
    for label, slug in enumerate(slugs)
  ]


def _folder_name(spec: DatasetSpec, label: int) -> str:
  return f"{label:04d}-{_slug(spec.names[label])}".rstrip("-")


def _slug(name: str) -> str:
  """Reduce a name to letters, digits and hyphens, safe in file names and prompts."""
  plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
  return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:60].strip("-")


# ---- references ---------------------------------------------------------------------------------


def _references(run: Run, key: ImageSetKey, given: NeededValues) -> _References:
  if key.references == "retrieval":
    return _retrieved_references(run, key, given[0])
  return _original_references(run, key)


def _original_references(run: Run, key: ImageSetKey) -> _References:
  """Return the first training images of each class in a seeded order, single-label images first."""
  labels, split = run.labels(key.dataset, "train"), run.split(key.dataset, "train")
  shots, classes = run.config.textual_inversion.shots, run.config.spec(key.dataset).num_classes
  order = np.random.default_rng(key.seed).permutation(len(labels))
  if labels.ndim == 2:
    order = order[np.argsort(labels[order].sum(axis=1) > 1, kind="stable")]
    member = labels[order].astype(bool)
  else:
    member = labels[order][:, None] == np.arange(classes)
  rows = tuple(order[member[:, label]][:shots] for label in range(classes))
  return _References(lambda row: split.example(row)["image"], rows)


def _retrieved_references(run: Run, key: ImageSetKey, images: ImageSet) -> _References:
  """Return the first images of each class in the retrieved set with the same seed."""
  labels = np.array([_label(record.label) for record in images], np.int64)
  shots, classes = run.config.textual_inversion.shots, run.config.spec(key.dataset).num_classes
  rows = tuple(np.flatnonzero(labels == label)[:shots] for label in range(classes))
  return _References(lambda row: images[row].image, rows)


def _label(label: int | tuple[int, ...]) -> int:
  return label if isinstance(label, int) else next(iter(label), -1)


def _retrieval_key(key: ImageSetKey) -> ImageSetKey:
  return ImageSetKey(key.dataset, "retrieval", "", key.seed)
