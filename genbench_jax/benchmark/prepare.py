"""Preparing datasets with TFDS, always as ArrayRecord, which is read without TensorFlow."""

import importlib.resources
import importlib.util
import sys
from pathlib import Path
from typing import Any

from genbench_jax.benchmark.builders import BUILDERS, builder_class
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.errors import RunError, UsageError

FILE_FORMAT = "array_record"
# A folder with this file holds drawn stand-ins only, so that they can't pass for the data.
STAND_IN_MARKER = "STAND_IN"
_INSTALL = "pip install 'genbench_jax[prepare]'"


def builder_for(spec: DatasetSpec, data_dir: str | Path | None = None) -> Any:
  """The TFDS builder of a dataset, ours or TFDS's own.

  Args:
    spec: a dataset that lies in TFDS.
    data_dir: TFDS's data folder; by default `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

  Raises:
    UsageError: if TFDS knows no such dataset.
  """
  _provide_importlib_resources()
  if spec.tfds_name in BUILDERS:
    return builder_class(spec.tfds_name)(data_dir=data_dir)
  import tensorflow_datasets as tfds

  try:
    return tfds.builder(spec.tfds_name, data_dir=data_dir, try_gcs=False)
  except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
    message = str(error).strip().split("\n")[0]
    raise UsageError(f"TFDS has no dataset {spec.tfds_name!r}: {message}") from error


def _provide_importlib_resources() -> None:
  """TFDS 4.9.10 imports a package that it doesn't install; Python's own module has all it uses."""
  if importlib.util.find_spec("importlib_resources") is None:
    sys.modules["importlib_resources"] = importlib.resources


def prepare(
  spec: DatasetSpec, data_dir: str | Path | None = None, manual_dir: str | Path | None = None
) -> None:
  """Downloads and prepares a dataset; one that is prepared already is left as it is.

  Args:
    spec: a dataset that lies in TFDS.
    data_dir: as for `builder_for`.
    manual_dir: where files lie that were fetched by hand; by default `<data_dir>/downloads/manual`.

  Raises:
    UsageError: if the data folder is one of stand-ins.
    RunError: if packages or files are missing, or what was fetched is damaged.
  """
  if not spec.tfds_name:
    return
  import tensorflow_datasets as tfds

  builder = builder_for(spec, data_dir)
  if is_stand_in(builder):
    raise UsageError(f"{builder.data_dir_root} is for stand-ins: prepare data in another folder.")
  if builder.data_path.exists() and builder.is_prepared():
    return
  if missing := missing_packages(spec):
    raise RunError(f"preparing '{spec.name}' needs {', '.join(missing)}: {_INSTALL}.")
  config = tfds.download.DownloadConfig(manual_dir=manual_dir)
  try:
    builder.download_and_prepare(file_format=FILE_FORMAT, download_config=config)
  except RunError:
    raise
  except Exception as error:  # The built-in builders raise whatever their readers do.
    raise RunError(f"preparing '{spec.name}' failed: {type(error).__name__}: {error}") from error


def is_stand_in(builder: Any) -> bool:
  """Whether the builder's data folder is one of stand-ins."""
  return (Path(builder.data_dir_root) / STAND_IN_MARKER).exists()


def is_readable(builder: Any) -> bool:
  """Whether a prepared dataset is in a format that is read without TensorFlow, and at random."""
  return bool(builder.info.available_file_formats() & _random_access_formats())


def _random_access_formats() -> set[Any]:
  from tensorflow_datasets.core import file_adapters

  return file_adapters.FileFormat.with_random_access()


def missing_packages(spec: DatasetSpec) -> tuple[str, ...]:
  """The packages that preparing takes and that are not installed."""
  return tuple(
    package
    for package in needed_packages(spec.data_name)
    if importlib.util.find_spec(package) is None
  )


def needed_packages(name: str) -> tuple[str, ...]:
  """What it takes to prepare one of the datasets, beyond what this package installs.

  TFDS's own builders read or unpack through TensorFlow, all of them.
  """
  if name in BUILDERS:
    return ()
  extra = {"kitti_distance": ("cv2",), "sun397": ("cv2",), "patch_camelyon": ("h5py",)}
  return ("tensorflow", *extra.get(name, ()))
