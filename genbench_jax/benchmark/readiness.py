"""Check which datasets are ready on this machine, and list the steps for those that are not."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genbench_jax.benchmark.builders import BUILDERS
from genbench_jax.benchmark.prepare import builder_for, is_readable, is_stand_in, missing_packages
from genbench_jax.benchmark.spec import DatasetSpec

# Files that must be downloaded manually; any one of the alternatives suffices.
_BY_HAND: Mapping[str, tuple[tuple[str, ...], ...]] = {
  "fer2013": (("fer2013.csv",), ("icml_face_data.csv",), ("fer2013.tar.gz",), ("fer2013.zip",), ("fer2013",)),
  "hateful_memes": (("hateful_memes.zip",), ("hateful_memes",)),
  "resisc45": (("NWPU-RESISC45",),),
  "cars196": (
    ("cars_train.tgz", "cars_test.tgz", "car_devkit.tgz", "cars_test_annos_withlabels.mat"),
  ),
  "imagenet2012": (("ILSVRC2012_img_val.tar",),),
}  # fmt: skip
_WHERE = {
  "fer2013": "Kaggle, challenges-in-representation-learning-facial-expression-recognition-challenge",
  "hateful_memes": "https://ai.meta.com/tools/hatefulmemes/ (accept the license)",
  "resisc45": "https://1drv.ms/u/s!AmgKYzARBl5ca3HNaHIlzp_IXjs; unpack the rar",
  "cars196": (
    "its server is down; copies of ai.stanford.edu/~jkrause/car196/ are in web.archive.org,"
    " checksums are verified"
  ),
  "imagenet2012": "https://image-net.org/download-images (register)",
}
# Large downloads, and servers that are often down.
_REMARKS = {
  "country211": "downloads 11 GB",
  "eurosat": "downloads 90 MB; if madm.dfki.de is down, put EuroSAT.zip from zenodo.org/records/7711810 into the manual folder",
  "food101": "downloads 5 GB",
  "kitti_distance": "downloads 12 GB",
  "patch_camelyon": "downloads 8 GB",
  "sun397": "downloads 39 GB",
}
PREPARE = "genbench benchmark prepare"


@dataclasses.dataclass(frozen=True)
class Readiness:
  """Whether a dataset can be used; if not, why, and what to do.

  Attributes:
    name: name of the dataset.
    ready: whether it can be read.
    stand_in: whether it consists of drawn stand-ins.
    sizes: number of images found in each TFDS split; empty if it is not ready.
    missing: what is missing; empty if nothing is.
    steps: what to do about it, in order.
  """

  name: str
  ready: bool
  stand_in: bool = False
  sizes: dict[str, int] = dataclasses.field(default_factory=dict)
  missing: str = ""
  steps: tuple[str, ...] = ()


def default_data_dir() -> Path:
  """Return TFDS's default data folder."""
  return Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def readiness(
  spec: DatasetSpec, data_dir: str | Path | None = None, manual_dir: str | Path | None = None
) -> Readiness:
  """Check whether a dataset is prepared, and if not, what is needed.

  Args:
    spec: the dataset.
    data_dir: TFDS's data folder; by default `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
    manual_dir: folder of manually downloaded files; by default `<data_dir>/downloads/manual`.
  """
  if not spec.tfds_name:
    return Readiness(spec.name, ready=True, sizes=dict(spec.split_sizes))
  root = Path(data_dir).expanduser() if data_dir else default_data_dir()
  builder = _prepared_builder(spec, root)
  if builder is None:
    manual = Path(manual_dir).expanduser() if manual_dir else root / "downloads" / "manual"
    return _unprepared(spec, manual)
  again = (f"delete {builder.data_path}", f"{PREPARE} {spec.prepare_name}")
  if not is_readable(builder):
    missing = "prepared as TFRecord, expected ArrayRecord"
    return Readiness(spec.name, ready=False, missing=missing, steps=again)
  stand_in = is_stand_in(builder)
  found = {split.name: split.num_examples for split in builder.info.splits.values()}
  odd = "" if stand_in else _odd_sizes(spec, found)
  return Readiness(spec.name, True, stand_in, found, odd, again if odd else ())


def _prepared_builder(spec: DatasetSpec, root: Path) -> Any:
  """Return the builder of a prepared dataset, otherwise None."""
  # TFDS is slow to import, so check for the folder first.
  if not (root / spec.tfds_name.partition("/")[0]).is_dir():
    return None
  builder = builder_for(spec, root)
  return builder if builder.data_path.exists() and builder.is_prepared() else None


def _odd_sizes(spec: DatasetSpec, found: Mapping[str, int]) -> str:
  """Describe TFDS splits whose number of images differs from the benchmark's."""
  odd = []
  for name in dict.fromkeys(spec.splits.values()):
    ours = [split for split, theirs in spec.splits.items() if theirs == name]
    wanted, there = sum(spec.split_sizes[split] for split in ours), found.get(name, 0)
    # A derived split may leave images over. Parts of splits and the user's splits have no known size.
    is_odd = there < wanted if len(ours) > 1 else there != wanted
    if wanted and name.isidentifier() and is_odd:
      odd.append(f"{name} has {there} images, not {wanted}")
  return "; ".join(odd)


def _unprepared(spec: DatasetSpec, manual: Path) -> Readiness:
  missing, steps = [], []
  if packages := missing_packages(spec):
    missing.append(f"packages {', '.join(packages)}")
    steps.append("pip install 'genbench_jax[prepare]'")
  if files := _missing_files(spec.data_name, manual):
    missing.append(f"files {files}")
    steps.append(f"put {files} into {manual}: {_WHERE[spec.data_name]}")
  remark = f" ({_REMARKS[spec.data_name]})" if spec.data_name in _REMARKS else ""
  steps.append(f"{PREPARE} {spec.prepare_name}{remark}")
  text = "; ".join(missing) or "not prepared"
  return Readiness(spec.name, ready=False, missing=text, steps=tuple(steps))


def _missing_files(name: str, manual: Path) -> str:
  """Return the missing files of the first alternative, unless another alternative is complete."""
  choices = _BY_HAND.get(name, ((),))
  if any(all((manual / file).exists() for file in files) for files in choices):
    return ""
  return ", ".join(file for file in choices[0] if not (manual / file).exists())


def builder_label(spec: DatasetSpec) -> str:
  """Return who builds the dataset, for the table."""
  if spec.folder:
    return f"folder {spec.folder}"
  if not spec.tfds_name:
    return "drawn"
  return "own" if spec.tfds_name in BUILDERS else f"TFDS {spec.tfds_name}"
