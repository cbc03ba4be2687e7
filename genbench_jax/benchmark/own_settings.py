"""Check the settings of a user's own dataset: the YAML file that `own.py` describes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from genbench_jax.benchmark.published import known_datasets
from genbench_jax.benchmark.spec import RESIZES, DatasetSpec
from genbench_jax.benchmark.worlds import world_specs
from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.metrics.kinds import Metric
from genbench_jax.runtime.printable import storable
from genbench_jax.store.yaml_files import YamlError, read_yaml

DEFAULT_TEMPLATES = ("a photo of a {}.",)
# Our split -> its usual names in folders and TFDS datasets, best first.
SPLIT_NAMES = {
  "train": ("train", "training"),
  "validation": ("validation", "val", "valid"),
  "test": ("test", "testing"),
}
_KEYS = (
  "tfds", "folder", "dataset", "name", "class_names", "templates", "metric", "splits", "resize",
  "image_key", "label_key",
)  # fmt: skip
# In characters, since the name becomes part of file names.
LONGEST_NAME = 100


def read_settings(file: Path, follow: bool = False) -> dict[str, Any]:
  """Read a dataset file; its values are checked where they are used.

  Raises:
    UsageError: the file can't be read, is not a mapping, or has an unknown key.
  """
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


def named_splits(settings: Mapping[str, Any]) -> dict[str, str]:
  """Return our split -> the data's split, as given; empty if the file does not say.

  Raises:
    UsageError: a split is unknown, `test` is missing, or a folder is outside the dataset.
  """
  splits = settings.get("splits", {})
  if not isinstance(splits, dict) or not all(isinstance(name, str) for name in splits.values()):
    raise UsageError(
      "'splits' must map train, validation and test to the names of splits in the data."
    )
  for split in splits:
    if split not in SPLIT_NAMES:
      raise unknown_name("split", str(split), SPLIT_NAMES)
  if splits and "test" not in splits:
    raise UsageError("'splits' must name a test split.")
  for name in splits.values() if "tfds" not in settings else ():
    if Path(name).is_absolute() or ".." in Path(name).parts:
      raise UsageError(f"'splits' must name folders inside the dataset, not {name[:80]!r}.")
  return dict(splits)


def checked_spec(
  default_name: str, labels: Sequence[str], settings: Mapping[str, Any], **facts: Any
) -> DatasetSpec:
  """Return the spec of a dataset.

  Args:
    default_name: its name unless the settings have one.
    labels: labels of the data, in class order.
    settings: content of the dataset file.
    **facts: what the data say, as fields of the spec.

  Raises:
    UsageError: a setting is invalid or does not fit the data.
  """
  class_names = class_names_of(labels, settings.get("class_names"))
  spec = DatasetSpec(
    name=safe_name(_name(settings, default_name)),
    group="own",
    class_names=tuple(class_names.values()),
    templates=checked_templates(settings.get("templates", DEFAULT_TEMPLATES)),
    metric=_one_of("metric", settings, _default_metric(facts), get_args(Metric)),
    resize=_one_of("resize", settings, "crop", RESIZES),
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
  if not isinstance(name, (str, int)) or len(str(name)) > LONGEST_NAME:
    raise UsageError(
      f"'name' must be a string of at most {LONGEST_NAME} characters, not {str(name)[:80]!r}."
    )
  return str(name)


def _default_metric(facts: Mapping[str, Any]) -> str:
  return "map_11_point" if facts.get("multi_label") else "accuracy"


def _one_of(key: str, settings: Mapping[str, Any], default: str, known: Sequence[str]) -> Any:
  value = settings.get(key, default)
  if value not in known:
    raise unknown_name(key, str(value), known)
  return value


def class_names_of(
  labels: Sequence[str], given: Any, usual: Sequence[tuple[str, ...]] = ()
) -> dict[str, tuple[str, ...]]:
  """Return label -> synonyms, in class order; labels that are not given have default names.

  The order is that of the mapping if it has every label. Otherwise it is that of the data, so that naming some
  classes does not change what the indices of labels mean.

  Args:
    labels: labels of the data.
    given: the setting `class_names`; None if there is none.
    usual: default synonyms of each label; without them, the label itself.

  Raises:
    UsageError: `given` is not a mapping from labels to names.
  """
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
  return found if len(found) == len(names) else names | found


def _synonyms(label: Any, value: Any) -> tuple[str, ...]:
  synonyms = [value] if isinstance(value, (str, int)) else value
  if (
    not isinstance(synonyms, list)
    or not synonyms
    or not all(str(name).strip() for name in synonyms)
  ):
    raise UsageError(f"'class_names' must map {label!r} to a name or a list of names.")
  return tuple(str(name).strip() for name in synonyms)


def checked_templates(given: Any) -> tuple[str, ...]:
  """Return the setting `templates` as a tuple.

  Raises:
    UsageError: it is not made of strings with one `{}` each.
  """
  templates = [given] if isinstance(given, str) else given
  is_list = isinstance(templates, (list, tuple)) and len(templates) > 0
  if not is_list or not all(isinstance(t, str) and t.count("{}") == 1 for t in templates):
    raise UsageError(f"'templates' must be strings with one {{}} each, not {str(given)[:80]!r}.")
  return tuple(templates)


def safe_name(name: str) -> str:
  """Return a valid folder name that differs from all known datasets."""
  safe = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "own"
  return f"own_{safe}" if safe in (*known_datasets(), *world_specs()) else safe
