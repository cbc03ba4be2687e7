"""The user's own datasets: any TFDS name, or a folder `split/class/image`.

A YAML file adds what the data do not contain. It has exactly one of the keys `tfds`, `folder` and `dataset`
(none in a folder's own `dataset.yaml`); all other keys are optional:

    tfds: beans                  # or  folder: path/to/root  or  dataset: cifar10, to change names and templates
    name: beans
    class_names:                 # by the builder's label or folder name; omitted classes keep their names
      healthy: [healthy leaf, green leaf]
      bean_rust: leaf with rust
    templates: ["a photo of a {}."]
    metric: accuracy             # or mean_per_class, map_11_point, roc_auc
    splits: {train: train, test: "test[:50%]"}
    resize: crop                 # or squash
    label_key: label             # only for TFDS, like image_key
"""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.metrics.kinds import Metric
from genbench_jax.runtime.printable import listed, storable
from genbench_jax.store.image_files import ImageWalk, is_hidden
from genbench_jax.store.yaml_files import YamlError, read_yaml

DEFAULT_TEMPLATES = ("a photo of a {}.",)
FOLDER_FILE = "dataset.yaml"
# Our split -> its usual names in folders and TFDS datasets, best first.
_SPLIT_NAMES = {
  "train": ("train", "training"),
  "validation": ("validation", "val", "valid"),
  "test": ("test", "testing"),
}
_KEYS = (
  "tfds", "folder", "dataset", "name", "class_names", "templates", "metric", "splits", "resize",
  "image_key", "label_key",
)  # fmt: skip
# In characters, since the name becomes part of file names.
_LONGEST_NAME = 100
_RESIZES = ("crop", "squash")


def is_own(name: str) -> bool:
  """Return whether a dataset name refers to one of the user's own datasets."""
  is_path = any(part in name for part in ("/", os.sep)) and Path(name).expanduser().is_dir()
  return name.startswith(("tfds:", "folder:")) or name.endswith((".yaml", ".yml")) or is_path


def own_spec(name: str) -> DatasetSpec:
  """Return the spec of one of the user's own datasets.

  Args:
    name: `tfds:NAME[/CONFIG]`, the path of a folder (with or without prefix `folder:`), or of a YAML file.

  Raises:
    UsageError: the dataset does not exist, or the YAML is invalid.
  """
  if name.startswith("tfds:"):
    return _tfds_spec(name.removeprefix("tfds:"), {})
  if name.startswith("folder:") or not name.endswith((".yaml", ".yml")):
    root = Path(name.removeprefix("folder:")).expanduser()
    file = root / FOLDER_FILE
    return _folder_spec(root, _read_yaml(file) if os.path.lexists(file) else {})
  return _yaml_spec(Path(name).expanduser())


def _yaml_spec(file: Path) -> DatasetSpec:
  settings = _read_yaml(file, follow=True)
  if sum(key in settings for key in ("tfds", "folder", "dataset")) != 1:
    raise UsageError(f"{file} must have exactly one of the keys 'tfds', 'folder' and 'dataset'.")
  if "dataset" in settings:
    return _changed_spec(file, settings)
  if "tfds" in settings:
    return _tfds_spec(str(settings["tfds"]), settings)
  return _folder_spec(file.parent / str(settings["folder"]), settings)


def _changed_spec(file: Path, settings: Mapping[str, Any]) -> DatasetSpec:
  """Return a known dataset with other class names or templates, under a new name."""
  from genbench_jax.benchmark.registry import dataset_spec

  base = dataset_spec(str(settings["dataset"]))
  if odd := sorted(set(settings) - {"dataset", "name", "class_names", "templates"}):
    raise UsageError(
      f"{file}: {odd[0]!r} of the known dataset '{base.name}' can't be changed, only name,"
      " class_names and templates."
    )
  labels = base.label_names or base.names
  names = _class_names(labels, settings.get("class_names"), base.class_names)
  return dataclasses.replace(
    base,
    name=_safe_name(str(settings.get("name", f"own_{base.name}"))),
    class_names=tuple(names[label] for label in labels),
    templates=_templates(settings.get("templates", base.templates)),
    data_of=base.data_name,
    aliases=(),
  )


def _read_yaml(file: Path, follow: bool = False) -> dict[str, Any]:
  try:
    settings = read_yaml(file, follow)
  except OSError as error:
    raise UsageError(f"can't read the dataset file {file}: {error.strerror or error}.") from error
  except YamlError as error:
    raise UsageError(f"{file} is not a valid YAML file: {error}.") from error
  if not isinstance(settings, dict):
    raise UsageError(f"{file} must be a mapping of {', '.join(_KEYS)}.")
  for key in settings:
    if key not in _KEYS:
      raise unknown_name(f"key in {file}:", str(key), _KEYS)
  return settings


def _tfds_spec(tfds_name: str, settings: Mapping[str, Any]) -> DatasetSpec:
  from genbench_jax.benchmark.prepare import builder_for

  probe = DatasetSpec("", "own", (), (), "accuracy", {}, {}, tfds_name)
  builder = builder_for(probe, None)
  image_key = str(settings.get("image_key", "image"))
  if image_key not in builder.info.features:
    raise UsageError(f"TFDS dataset '{tfds_name}' has no feature {image_key!r}; set image_key.")
  label_key, names, multi_label = _label_feature(builder, settings)
  found = {split.name: split.num_examples for split in builder.info.splits.values()}
  splits = _named_splits(settings) or _usual_splits(found or ("train", "test"))
  return _spec(
    default_name=tfds_name,
    labels=names,
    settings=settings,
    splits=splits,
    split_sizes={split: int(found.get(splits[split], 0)) for split in splits},
    tfds_name=tfds_name,
    multi_label=multi_label,
    image_key=image_key,
    label_key=label_key,
  )


def _label_feature(builder: Any, settings: Mapping[str, Any]) -> tuple[str, tuple[str, ...], bool]:
  """Return the label feature: its key, its names, and whether an image may have several labels."""
  features = {
    key: getattr(feature, "feature", feature) for key, feature in builder.info.features.items()
  }
  candidates = [key for key, feature in features.items() if getattr(feature, "names", None)]
  usual = [key for key in ("label", "labels") if key in candidates]
  key = str(settings.get("label_key", (usual or candidates or ["label"])[0]))
  if key not in candidates:
    raise UsageError(
      f"TFDS dataset '{builder.name}' has no class labels in {key!r}; features with class labels: {candidates}."
    )
  return key, tuple(features[key].names), features[key] is not builder.info.features[key]


def _folder_spec(root: Path, settings: Mapping[str, Any]) -> DatasetSpec:
  if not root.is_dir():
    raise UsageError(f"there is no folder {root}.")
  splits = _named_splits(settings) or _usual_splits([path.name for path in _folders(root)])
  labels = sorted({path.name for split in splits.values() for path in _folders(root / split)})
  if not labels:
    raise UsageError(f"{root} has no class folders; expected test/CLASS/*.jpg.")
  # Counted with the same walk that `reader.FolderSplit` uses, class by class.
  sizes = {
    split: sum(1 for label in labels for _ in ImageWalk(root / folder / label).images())
    for split, folder in splits.items()
  }
  return _spec(
    default_name=root.resolve().name[:_LONGEST_NAME],
    labels=labels,
    settings=settings,
    splits=splits,
    split_sizes=sizes,
    tfds_name="",
    folder=str(root),
  )


def _folders(root: Path) -> list[Path]:
  if not root.is_dir():
    raise UsageError(f"there is no folder {root}.")
  return [path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name)]


def _usual_splits(found: Sequence[str] | Mapping[str, int]) -> dict[str, str]:
  splits = {}
  for split, names in _SPLIT_NAMES.items():
    if usual := [name for name in names if name in found]:
      splits[split] = usual[0]
  # Many datasets publish their test data as `validation`.
  if "test" not in splits and "validation" in splits:
    splits["test"] = splits.pop("validation")
  if "test" not in splits:
    raise UsageError(f"there is no test split among {listed(list(found)) or 'no splits at all'}.")
  return splits


def _named_splits(settings: Mapping[str, Any]) -> dict[str, str]:
  splits = settings.get("splits", {})
  if not isinstance(splits, dict) or not all(isinstance(name, str) for name in splits.values()):
    raise UsageError(
      "'splits' must map train, validation and test to the names of splits in the data."
    )
  for split in splits:
    if split not in _SPLIT_NAMES:
      raise unknown_name("split", str(split), _SPLIT_NAMES)
  if splits and "test" not in splits:
    raise UsageError("'splits' must name a test split.")
  for name in splits.values() if "tfds" not in settings else ():
    if Path(name).is_absolute() or ".." in Path(name).parts:
      raise UsageError(f"'splits' must name folders inside the dataset, not {name[:80]!r}.")
  return dict(splits)


def _spec(
  default_name: str, labels: Sequence[str], settings: Mapping[str, Any], **facts: Any
) -> DatasetSpec:
  class_names = _class_names(labels, settings.get("class_names"))
  spec = DatasetSpec(
    name=_safe_name(_name(settings, default_name)),
    group="own",
    class_names=tuple(class_names.values()),
    templates=_templates(settings.get("templates", DEFAULT_TEMPLATES)),
    metric=_one_of("metric", settings, _default_metric(facts), get_args(Metric)),
    resize=_one_of("resize", settings, "crop", _RESIZES),
    label_names=tuple(class_names),
    **facts,
  )
  if spec.metric == "map_11_point" and not spec.multi_label:
    raise UsageError(f"'{spec.name}': the metric map_11_point requires several labels per image.")
  if spec.metric == "roc_auc" and spec.num_classes != 2:
    raise UsageError(
      f"'{spec.name}': the metric roc_auc requires two classes, not {spec.num_classes}."
    )
  return spec


def _name(settings: Mapping[str, Any], default: str) -> str:
  name = settings.get("name", default)
  if not isinstance(name, (str, int)) or len(str(name)) > _LONGEST_NAME:
    raise UsageError(
      f"'name' must be a string of at most {_LONGEST_NAME} characters, not {str(name)[:80]!r}."
    )
  return str(name)


def _default_metric(facts: Mapping[str, Any]) -> str:
  return "map_11_point" if facts.get("multi_label") else "accuracy"


def _one_of(key: str, settings: Mapping[str, Any], default: str, known: Sequence[str]) -> Any:
  value = settings.get(key, default)
  if value not in known:
    raise unknown_name(key, str(value), known)
  return value


def _class_names(
  labels: Sequence[str], given: Any, usual: Sequence[tuple[str, ...]] = ()
) -> dict[str, tuple[str, ...]]:
  """Return label -> synonyms: given ones in their order, then the other labels with default names."""
  names = dict(zip(labels, usual, strict=True)) if usual else {}
  # Names of folders may be any bytes; names of classes are text.
  texts = {label: storable(label) for label in labels}
  names = names or {
    label: (text.replace("_", " ").strip() or text,) for label, text in texts.items()
  }
  if given is None:
    return names
  if not isinstance(given, dict):
    raise UsageError("'class_names' must map each label (or class folder) to its name or names.")
  found = {str(label): _synonyms(label, value) for label, value in given.items()}
  for label in found:
    if label not in names:
      raise unknown_name("label in 'class_names':", label, labels)
  return found | {label: synonyms for label, synonyms in names.items() if label not in found}


def _synonyms(label: Any, value: Any) -> tuple[str, ...]:
  synonyms = [value] if isinstance(value, (str, int)) else value
  if (
    not isinstance(synonyms, list)
    or not synonyms
    or not all(str(name).strip() for name in synonyms)
  ):
    raise UsageError(f"'class_names' must map {label!r} to a name or a list of names.")
  return tuple(str(name).strip() for name in synonyms)


def _templates(given: Any) -> tuple[str, ...]:
  templates = [given] if isinstance(given, str) else given
  is_list = isinstance(templates, (list, tuple)) and len(templates) > 0
  if not is_list or not all(isinstance(t, str) and t.count("{}") == 1 for t in templates):
    raise UsageError(f"'templates' must be strings with one {{}} each, not {str(given)[:80]!r}.")
  return tuple(templates)


def _safe_name(name: str) -> str:
  """Return a valid folder name that differs from all known datasets."""
  from genbench_jax.benchmark.registry import known_datasets
  from genbench_jax.benchmark.worlds import world_specs

  safe = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "own"
  return f"own_{safe}" if safe in (*known_datasets(), *world_specs()) else safe
