"""Prepare datasets with TFDS, always as ArrayRecord, which can be read without TensorFlow."""

import importlib.resources
import importlib.util
import sys
from pathlib import Path
from typing import Any

from genbench_jax.benchmark.builders import BUILDERS, builder_class
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.errors import RunError, UsageError

FILE_FORMAT = "array_record"
# Marks a folder that contains only drawn stand-ins, so that they are not mistaken for the data.
STAND_IN_MARKER = "STAND_IN"
_INSTALL = "pip install 'genbench_jax[prepare]'"


def builder_for(spec: DatasetSpec, data_dir: str | Path | None = None) -> Any:
  """Return the TFDS builder of a dataset, ours or TFDS's own.

  Args:
    spec: a dataset with a TFDS name.
    data_dir: TFDS's data folder; by default `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

  Raises:
    UsageError: TFDS does not know the dataset.
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
  """Provide a package that TFDS 4.9.10 imports but does not install; Python's own module suffices."""
  if importlib.util.find_spec("importlib_resources") is None:
    sys.modules["importlib_resources"] = importlib.resources


def prepare(
  spec: DatasetSpec, data_dir: str | Path | None = None, manual_dir: str | Path | None = None
) -> None:
  """Download and prepare a dataset, unless it is already prepared.

  Args:
    spec: a dataset with a TFDS name.
    data_dir: see `builder_for`.
    manual_dir: folder of manually downloaded files; by default `<data_dir>/downloads/manual`.

  Raises:
    UsageError: the data folder contains stand-ins.
    RunError: packages or files are missing, or a download is damaged.
  """
  if not spec.tfds_name:
    return
  import tensorflow_datasets as tfds

  builder = builder_for(spec, data_dir)
  if is_stand_in(builder):
    raise UsageError(f"{builder.data_dir_root} is for stand-ins. Prepare data in another folder.")
  if builder.data_path.exists() and builder.is_prepared():
    return
  if missing := missing_packages(spec):
    raise RunError(f"preparing '{spec.name}' needs {', '.join(missing)}: {_INSTALL}.")
  config = tfds.download.DownloadConfig(manual_dir=manual_dir)
  try:
    builder.download_and_prepare(file_format=FILE_FORMAT, download_config=config)
  except RunError:
    raise
  except Exception as error:  # built-in builders pass on all errors of their readers
    raise RunError(f"preparing '{spec.name}' failed: {type(error).__name__}: {error}") from error


def is_stand_in(builder: Any) -> bool:
  """Return whether the builder's data folder contains stand-ins."""
  return (Path(builder.data_dir_root) / STAND_IN_MARKER).exists()


def is_readable(builder: Any) -> bool:
  """Return whether a prepared dataset's format allows random access without TensorFlow."""
  return bool(builder.info.available_file_formats() & _random_access_formats())


def _random_access_formats() -> set[Any]:
  from tensorflow_datasets.core import file_adapters

  return file_adapters.FileFormat.with_random_access()


def missing_packages(spec: DatasetSpec) -> tuple[str, ...]:
  """Return the packages needed for preparing a dataset that are not installed."""
  return tuple(
    package
    for package in needed_packages(spec.data_name)
    if importlib.util.find_spec(package) is None
  )


def needed_packages(name: str) -> tuple[str, ...]:
  """Return the packages needed for preparing a dataset, beyond those of this package.

  All of TFDS's own builders read or unpack data with TensorFlow.
  """
  if name in BUILDERS:
    return ()
  extra = {"kitti_distance": ("cv2",), "sun397": ("cv2",), "patch_camelyon": ("h5py",)}
  return ("tensorflow", *extra.get(name, ()))
