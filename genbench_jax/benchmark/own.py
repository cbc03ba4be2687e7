"""The user's own datasets: any TFDS name, or a folder `split/class/image`.

A YAML file adds what the data do not contain. It has exactly one of the keys `tfds`, `folder` and `dataset`
(none in a folder's own `dataset.yaml`); all other keys are optional:

    tfds: beans                  # or  folder: path/to/root  or  dataset: cifar10, to change names and templates
    name: beans
    class_names:                 # by the builder's label or folder name; omitted classes keep their names,
                                 # and if none is omitted, the order here is that of the class indices
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
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from genbench_jax.benchmark.own_settings import (
  LONGEST_NAME,
  SPLIT_NAMES,
  checked_spec,
  checked_templates,
  class_names_of,
  named_splits,
  read_settings,
  safe_name,
)
from genbench_jax.benchmark.published import known_datasets, published_spec
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.benchmark.worlds import world_specs
from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.runtime.printable import listed
from genbench_jax.store.image_files import ImageWalk, is_hidden

FOLDER_FILE = "dataset.yaml"


def is_own(name: str) -> bool:
  """Return whether a dataset name refers to one of the user's own datasets.

  A folder in the current one may be named without a slash, unless its name is that of a known dataset.
  """
  if name.startswith(("tfds:", "folder:")) or name.endswith((".yaml", ".yml")):
    return True
  if not name or not Path(name).expanduser().is_dir():
    return False
  is_known = published_spec(name) is not None or name in world_specs()
  return not is_known or any(part in name for part in ("/", os.sep))


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
    return _folder_spec(root, read_settings(file) if os.path.lexists(file) else {})
  return _yaml_spec(Path(name).expanduser())


def _yaml_spec(file: Path) -> DatasetSpec:
  settings = read_settings(file, follow=True)
  if sum(key in settings for key in ("tfds", "folder", "dataset")) != 1:
    raise UsageError(f"{file} must have exactly one of the keys 'tfds', 'folder' and 'dataset'.")
  if "dataset" in settings:
    return _changed_spec(file, settings)
  if "tfds" in settings:
    return _tfds_spec(str(settings["tfds"]), settings)
  return _folder_spec(file.parent / str(settings["folder"]), settings)


def _changed_spec(file: Path, settings: Mapping[str, Any]) -> DatasetSpec:
  """Return a known dataset with other class names or templates, under a new name."""
  given = str(settings["dataset"])
  base = published_spec(given) or world_specs().get(given)
  if base is None:
    raise unknown_name(f"dataset in {file}:", given, (*known_datasets(), *world_specs()))
  if odd := sorted(set(settings) - {"dataset", "name", "class_names", "templates"}):
    raise UsageError(
      f"{file}: {odd[0]!r} of the known dataset '{base.name}' can't be changed, only name,"
      " class_names and templates."
    )
  labels = base.label_names or base.names
  names = class_names_of(labels, settings.get("class_names"), base.class_names)
  return dataclasses.replace(
    base,
    name=safe_name(str(settings.get("name", f"own_{base.name}"))),
    class_names=tuple(names[label] for label in labels),
    templates=checked_templates(settings.get("templates", base.templates)),
    data_of=base.data_name,
    aliases=(),
  )


def _tfds_spec(tfds_name: str, settings: Mapping[str, Any]) -> DatasetSpec:
  from genbench_jax.benchmark.prepare import builder_for

  probe = DatasetSpec("", "own", (), (), "accuracy", {}, {}, tfds_name)
  builder = builder_for(probe, None)
  image_key = str(settings.get("image_key", "image"))
  if image_key not in builder.info.features:
    raise UsageError(f"TFDS dataset '{tfds_name}' has no feature {image_key!r}; set image_key.")
  label_key, names, multi_label = _label_feature(builder, settings)
  found = {split.name: split.num_examples for split in builder.info.splits.values()}
  splits = named_splits(settings) or _usual_splits(found or ("train", "test"))
  return checked_spec(
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
  splits = named_splits(settings) or _usual_splits([path.name for path in _folders(root)])
  found = {folder: {path.name for path in _folders(root / folder)} for folder in splits.values()}
  _refuse_other_spellings(root, found)
  labels = sorted(set().union(*found.values()))
  if not labels:
    raise UsageError(f"{root} has no class folders; expected test/CLASS/*.jpg.")
  # Counted with the same walk that `reader.FolderSplit` uses, class by class.
  sizes = {
    split: sum(1 for label in labels for _ in ImageWalk(root / folder / label).images())
    for split, folder in splits.items()
  }
  return checked_spec(
    default_name=root.resolve().name[:LONGEST_NAME],
    labels=labels,
    settings=settings,
    splits=splits,
    split_sizes=sizes,
    tfds_name="",
    folder=str(root),
  )


def _refuse_other_spellings(root: Path, found: Mapping[str, Set[str]]) -> None:
  """Reject a class whose folders are spelled differently in two splits: it would become two classes.

  macOS stores accents as separate characters, and other systems ignore case. Names that occur
  together in a split, as `A` and `a` may, are different classes.

  Args:
    root: folder of the dataset.
    found: folder of a split -> names of its class folders.

  Raises:
    UsageError: there is such a class.
  """
  spellings: dict[str, set[str]] = defaultdict(set)
  for name in sorted(set().union(*found.values())):
    plain = unicodedata.normalize("NFC", name).casefold().replace("_", " ")
    spellings[" ".join(plain.split())].add(name)
  for same in spellings.values():
    if len(same) > 1 and not any(same <= names for names in found.values()):
      places = [
        ascii(f"{folder}/{name}") for name in same for folder in found if name in found[folder]
      ]
      raise UsageError(
        f"{root} spells a class differently in its splits: {', '.join(sorted(places))}. Rename the"
        " folders so that they are equal."
      )


def _folders(root: Path) -> list[Path]:
  if not root.is_dir():
    raise UsageError(f"there is no folder {root}.")
  return [path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name)]


def _usual_splits(found: Sequence[str] | Mapping[str, int]) -> dict[str, str]:
  splits, found_as = {}, {name.lower(): name for name in sorted(found)}
  for split, names in SPLIT_NAMES.items():
    if usual := [found_as[name] for name in names if name in found_as]:
      splits[split] = usual[0]
  # Many datasets publish their test data as `validation`.
  if "test" not in splits and "validation" in splits:
    splits["test"] = splits.pop("validation")
  if "test" not in splits:
    among = f" among {listed(list(found))}" if found else ""
    raise UsageError(
      f"there is no test split{among}; expected one named {listed(SPLIT_NAMES['test'])}, or a name under `splits` in the YAML."
    )
  return splits
