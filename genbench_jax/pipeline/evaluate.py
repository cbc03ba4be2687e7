"""Score images of any generator as training data for a dataset. Several sources share a page.

genbench evaluate my_images/ --dataset digits
genbench evaluate sd15=a/ flux=b.zip --dataset cifar10 --workdir out --with-originals
"""

import dataclasses
import os
import re
import shlex
import sys
import tempfile
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genbench_jax.benchmark.inputs.class_map import read_class_map, read_class_words
from genbench_jax.benchmark.readiness import readiness
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.benchmark.user_images import ClassMatching, UserImages, open_user_images
from genbench_jax.config import (
  LONGEST_FOLDER_NAME,
  STAGES,
  Config,
  check_setting,
  default_config,
  make_config,
)
from genbench_jax.embedding.settings import PUBLISHED_CLIP, SHIPPED_CLIP
from genbench_jax.errors import UsageError
from genbench_jax.runtime.progress import say
from genbench_jax.store import files
from genbench_jax.store.reading import read_file
from genbench_jax.store.yaml_files import MOST_BYTES, as_yaml

# File of a work folder with the dataset and sources of its page, as name -> path.
SOURCES_FILE = "sources.json"


@dataclasses.dataclass(frozen=True)
class Question:
  """Arguments of `evaluate`; see `evaluate_folder`."""

  sources: Mapping[str, str]
  dataset: str
  shots: tuple[int, ...] = ()
  seeds: tuple[int, ...] = (0,)
  encoder: str = ""
  with_originals: bool = False
  class_map: str = ""
  strict: bool = False
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def evaluate_folder(
  folder: str | Path | Mapping[str, str | Path],
  dataset: str,
  workdir: str | Path | None = None,
  *,
  shots: Sequence[int] = (),
  seeds: Sequence[int] = (0,),
  encoder: str = "",
  with_originals: bool = False,
  class_map: str | Path = "",
  strict: bool = False,
  settings: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
  """Measure all metrics and the linear probe of images in class folders or another form.

  Args:
    folder: images in any form of docs/howto/inputs.md, or a mapping from name to path. One path
      is named like its folder, as `generator` in the rows.
    dataset: dataset with the classes and the test images.
    workdir: folder for features, rows and the page; the same call resumes there. By default nothing
      is kept.
    shots: numbers of images per class; by default 1, 4, 16, ... and the size of the largest class.
    seeds: seeds of the selection among the images of a class.
    encoder: CLIP checkpoint, folder or hub id; by default CLIP ViT-B/32, for the demo datasets the
      small one of the package.
    with_originals: whether to measure the dataset's own training images at the same shots.
    class_map: file that maps names of the images' classes to classes of the dataset.
    strict: whether a name that matches no class of the dataset is an error.
    settings: other settings of the config by path, such as `{"scoring.resamples": 200}`.

  Returns:
    The rows, one per measured quantity, with the keys of `results.jsonl`.

  Raises:
    UsageError: images or dataset do not exist, or the classes of the images are ambiguous.
  """
  several = folder if isinstance(folder, Mapping) else {_plain_name(str(folder)): folder}
  question = Question(
    {name: str(path) for name, path in several.items()}, dataset, tuple(shots), tuple(seeds), encoder,
    with_originals, str(class_map), strict, settings or {},
  )  # fmt: skip
  if workdir is not None:
    return evaluate(question, Path(workdir).expanduser())
  with tempfile.TemporaryDirectory(prefix="genbench_jax_") as temporary:
    return evaluate(question, Path(temporary), STAGES[:-1])


def evaluate(
  question: Question, workdir: Path, stages: Sequence[str] = STAGES
) -> list[dict[str, Any]]:
  """Evaluate in a work folder and return the rows.

  Args:
    question: what to evaluate.
    workdir: the work folder.
    stages: the stages to run.

  Raises:
    UsageError: as `evaluate_folder`.
  """
  refuse_unprepared(question)
  config = config_of(question, workdir)
  from genbench_jax.pipeline.stages import run_stages
  from genbench_jax.store.workdir import locked

  with locked(workdir):
    files.write_json(workdir / SOURCES_FILE, _remembered(question))
    run_stages(config, workdir, stages, shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
  return files.read_json_lines(workdir / "results.jsonl")


def config_of(question: Question, workdir: Path) -> Config:
  """Return the config of an evaluation.

  Args:
    question: what to evaluate.
    workdir: folder for the cached list of images.
  """
  spec = dataset_spec(question.dataset)
  opened = open_sources(question, spec, workdir / "folders")
  largest = max(int(np.bincount(images.labels()).max()) for images in opened.values())
  config = default_config()
  config.datasets = (question.dataset if spec.group == "own" else spec.name,)
  config.sources = ("folder", "original") if _has_originals(question, spec) else ("folder",)
  config.folder.paths = tuple(f"{name}={path}" for name, path in question.sources.items())
  config.folder.class_map, config.folder.strict = question.class_map, question.strict
  config.shots = question.shots or shots_up_to(largest)
  config.seeds = question.seeds
  is_demo = spec.group == "demo"
  config.encoder.checkpoint = question.encoder or (SHIPPED_CLIP if is_demo else PUBLISHED_CLIP)
  # As in configs/demo.py: a probe that starts from text shows little of these small images.
  config.recognition.language_init = not is_demo
  config.report.title = f"How good are the images of {_and(list(opened))} as training data?"
  for path in question.settings:
    check_setting(path)
  config.update_from_flattened_dict(dict(question.settings))
  return make_config(config)


def open_sources(
  question: Question, spec: DatasetSpec, cache: Path | None
) -> dict[str, UserImages]:
  """Return the images of each source.

  Args:
    question: what to evaluate.
    spec: the dataset.
    cache: folder for the cached list of images.

  Raises:
    UsageError: original images are requested and the dataset has no training split.
  """
  class_map = read_class_map(Path(question.class_map)) if question.class_map else {}
  matching = ClassMatching(class_map, question.strict)
  return {
    name: open_user_images(path.replace("{dataset}", spec.name), spec, cache, matching)
    for name, path in question.sources.items()
  }


def _has_originals(question: Question, spec: DatasetSpec) -> bool:
  if question.with_originals and "train" not in spec.splits:
    raise UsageError(
      f"'{spec.name}' has no training split, so there are no original images to compare with."
    )
  return question.with_originals


def refuse_unprepared(question: Question) -> None:
  """Raise an error if the dataset is not ready, before anything is read or embedded.

  Raises:
    UsageError: the dataset is not prepared; the message says what to do.
  """
  state = readiness(dataset_spec(question.dataset), question.settings.get("data_dir") or None)
  if not state.ready:
    steps = "; then ".join(state.steps)
    raise UsageError(f"'{state.name}' is not ready ({state.missing or 'not prepared'}): {steps}.")


def shots_up_to(largest: int) -> tuple[int, ...]:
  """Return 1, 4, 16, ... below the size of the largest class, and that size."""
  powers = [4**power for power in range(16) if 4**power < largest]
  return (*powers, largest)


def named_sources(given: Sequence[str]) -> dict[str, str]:
  """Return name -> path of sources given as `PATH` (named like its folder) or `NAME=PATH`.

  What can't be part of a name becomes `_`.

  Raises:
    UsageError: two sources have the same name, or a path is empty.
  """
  found: dict[str, str] = {}
  for name, path in map(_name_and_path, given):
    if not path.strip():
      raise UsageError("a source is empty; give the path of a folder or file of images.")
    if name in found:
      raise UsageError(
        f"two sources have the name {name!r}. Name them, as in a={found[name]} b={path}."
      )
    found[name] = path
  return found


def _name_and_path(text: str) -> tuple[str, str]:
  given, is_named, path = text.partition("=")
  # What stands before `=` in a path has a separator, or the path exists.
  if is_named and given and path and os.sep not in given and not Path(text).exists():
    return _safe_name(given), path
  return _plain_name(text), text


_ENDINGS = re.compile(
  r"(\.(tar|tgz|tbz2|txz|zip|npz|parquet|csv|tsv|jsonl|ndjson|json|gz|bz2|xz))+$", re.IGNORECASE
)


def _plain_name(path: str) -> str:
  """Return the name of a folder or file without the endings of its format and patterns of shards."""
  name = Path(path).expanduser().resolve().name
  return _safe_name(re.sub(r"\{[^}]*\}|\*", "", _ENDINGS.sub("", name)))


def _safe_name(text: str) -> str:
  """Return a text as a name of `config.FOLDER_NAME`."""
  # Names written by macOS have accents as separate characters.
  safe = re.sub(r"[^\w. -]+", "_", unicodedata.normalize("NFC", text)).lstrip("_-. ")
  short = safe.encode()[:LONGEST_FOLDER_NAME].decode("utf-8", "ignore")
  return short[:60].rstrip("_- ") or "images"


# Settings that a second run in a work folder takes from the first, unless it has its own.
_LASTING = ("shots", "encoder", "with_originals", "class_map")


def with_earlier(question: Question, workdir: Path) -> Question:
  """Return the question with earlier sources and settings of the work folder; report added and replaced ones.

  Earlier sources are kept if they have the same dataset and still exist.
  """
  file = workdir / SOURCES_FILE
  if not file.exists():
    return question
  earlier, known, settings = _earlier(file)
  if earlier != _dataset_key(question.dataset):
    say(f"{workdir}: results for {earlier} are replaced by those for {question.dataset}.")
    return question
  question = _with_settings(question, workdir, settings)
  new = {name: str(Path(path).expanduser().resolve()) for name, path in question.sources.items()}
  if new == known:
    return question
  replaced = [name for name in known if name in new and new[name] != known[name]]
  kept = {n: p for n, p in known.items() if n not in new and Path(p).exists()}
  if replaced:
    say(f"{workdir}: the path of {_and(replaced)} has changed; the earlier results are replaced.")
  if gone := [name for name in known if name not in new and name not in kept]:
    say(f"{workdir}: {_and(gone)} no longer exists and leaves the page.")
  if kept:
    say(f"{workdir}: earlier results of {_and(list(kept))} stay on the page.")
  return dataclasses.replace(question, sources=kept | dict(question.sources))


def _with_settings(question: Question, workdir: Path, before: Mapping[str, Any]) -> Question:
  """Return the question with the earlier run's settings where it has none; report those that differ."""
  taken: dict[str, Any] = {}
  for name, now in _settings(question).items():
    then = before.get(name, now)
    if name in _LASTING and then and not now:
      taken[name] = tuple(then) if name == "shots" else then
      say(f"{workdir}: --{name.replace('_', '-')} is {_told(then)}, as before.")
    elif then != now and name != "with_originals":  # which adds to what is there
      say(
        f"{workdir}: --{name.replace('_', '-')} is {_told(now)}, before it was {_told(then)}; the earlier"
        " results are replaced."
      )
  return dataclasses.replace(question, **taken)


def _settings(question: Question) -> dict[str, Any]:
  class_map = question.class_map and str(Path(question.class_map).expanduser().resolve())
  return {
    "shots": list(question.shots), "seeds": list(question.seeds), "encoder": question.encoder,
    "with_originals": question.with_originals, "class_map": class_map,
  }  # fmt: skip


def _told(value: Any) -> str:
  if isinstance(value, list):
    return ",".join(map(str, value)) or "not given"
  return "on" if value is True else str(value) or "not given"


def _earlier(file: Path) -> tuple[str, dict[str, str], dict[str, Any]]:
  """Return dataset, sources and settings of the last evaluation in a work folder."""
  with files.reading(file):
    stored = files.read_json(file)
    sources = {str(name): str(path) for name, path in stored["sources"].items()}
    return stored["dataset"], sources, dict(stored.get("settings") or {})


def _remembered(question: Question) -> dict[str, Any]:
  paths = {n: str(Path(path).expanduser().resolve()) for n, path in question.sources.items()}
  return {
    "dataset": _dataset_key(question.dataset), "sources": paths, "settings": _settings(question),
  }  # fmt: skip


def _dataset_key(dataset: str) -> str:
  path = Path(dataset.removeprefix("folder:")).expanduser()
  return str(path.resolve()) if path.exists() else dataset


def _and(names: Sequence[str]) -> str:
  return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def own_dataset(
  workdir: Path,
  dataset: str,
  test_dir: str = "",
  templates: Sequence[str] = (),
  class_names: str = "",
) -> str:
  """Return the dataset as named, or a YAML file in the work folder that describes it.

  Args:
    workdir: folder of the YAML file.
    dataset: a name, a folder or a YAML file; may be empty with a test folder.
    test_dir: folder of test images by class, instead of a dataset.
    templates: prompt templates, or files with one per line.
    class_names: file that maps each label of the data to its words.

  Raises:
    UsageError: no dataset is given, or more than one.
  """
  if bool(dataset) == bool(test_dir):
    raise UsageError(
      "give --dataset (a name, a folder, a YAML file or tfds:NAME) or --test-dir, a folder of test"
      " images by class. `genbench benchmark` lists the names; digits, digits_hard, shapes and signs"
      " need no preparing."
    )
  if not test_dir and not templates and not class_names:
    return dataset
  about: dict[str, Any] = _data_of(dataset, test_dir)
  if templates:
    about["templates"] = [line for text in templates for line in _lines(text)]
  if class_names:
    about["class_names"] = read_class_words(Path(class_names))
  file = workdir / f"dataset-{files.digest(about)}.yaml"
  files.write_text(file, as_yaml(about) + "\n")
  return str(file)


def _data_of(dataset: str, test_dir: str) -> dict[str, Any]:
  if test_dir:
    folder = Path(test_dir).expanduser().resolve()
    if not folder.is_dir():
      raise UsageError(f"the folder {test_dir!r} does not exist.")
    name = f"{folder.parent.name}_{folder.name}"
    return {"folder": str(folder.parent), "splits": {"test": folder.name}, "name": name}
  if dataset.endswith((".yaml", ".yml")):
    raise UsageError(f"put templates and class names into {dataset} itself.")
  spec = dataset_spec(dataset)
  if spec.folder:
    return {
      "folder": str(Path(spec.folder).resolve()),
      "splits": dict(spec.splits),
      "name": spec.name,
    }
  if dataset.startswith("tfds:"):
    return {"tfds": dataset.removeprefix("tfds:")}
  return {"dataset": dataset}


def _lines(text: str) -> list[str]:
  file = Path(text).expanduser()
  if "{}" in text or not file.is_file():
    return [text]
  try:
    content = read_file(file, MOST_BYTES, follow=True).decode("utf-8-sig")
  except (OSError, UnicodeDecodeError) as error:
    raise UsageError(f"the file of templates {text!r} can't be read: {error}.") from error
  return [line.strip() for line in content.split("\n") if line.strip()]
