"""Read tensors from a file of `torch.save` without running code from it.

Such files are pickles, which can call any function. This reader resolves only a few names, to its own
functions that make NumPy arrays, and rejects all others. It supports the zip format and the format before
PyTorch 1.6. Benchmark runs never use it; it serves tools that convert a checkpoint once.
"""

import collections
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from jaxtyping import Shaped

from genbench_jax.errors import RunError

Tensor = Shaped[np.ndarray, "..."]
DTYPES = {
  "DoubleStorage": np.dtype("<f8"),
  "FloatStorage": np.dtype("<f4"),
  "HalfStorage": np.dtype("<f2"),
  "LongStorage": np.dtype("<i8"),
  "IntStorage": np.dtype("<i4"),
  "ByteStorage": np.dtype("u1"),
  "BoolStorage": np.dtype("?"),
}
# Header of the format before PyTorch 1.6.
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
LARGEST_FILE = 1 << 34


class Storage(NamedTuple):
  """A flat array of numbers that tensors are views of."""

  dtype: np.dtype
  key: str
  size: int


class View(NamedTuple):
  """A tensor, described by its storage, offset, shape and strides (in elements)."""

  storage: Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def read_archive(path: Path) -> dict[str, Tensor]:
  """Return name -> array for every tensor in a file that contains a dict of tensors.

  Raises:
    RunError: the file contains something else, is damaged, or names a function.
  """
  if path.stat().st_size > LARGEST_FILE:
    raise RunError(f"{path} is too large to be a network.")
  try:
    views, data = _from_zip(path) if zipfile.is_zipfile(path) else _before_zip(path)
    named = {name: value for name, value in views.items() if isinstance(value, View)}
    return {name: _array(view, data) for name, view in named.items()}
  except RunError:
    raise
  except Exception as error:  # damaged pickles raise many types
    raise RunError(f"{path} can't be read as tensors ({type(error).__name__}: {error}).") from error


def _array(view: View, data: dict[str, bytes]) -> Tensor:
  """Copy the numbers of a view, after checking that it lies within its storage."""
  numbers = np.frombuffer(data[view.storage.key], view.storage.dtype)
  last = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
  if min((view.offset, *view.strides, *view.shape), default=0) < 0 or last >= len(numbers):
    raise RunError("a tensor reaches beyond its storage.")
  steps = [stride * numbers.itemsize for stride in view.strides]
  shown = np.lib.stride_tricks.as_strided(numbers[view.offset :], view.shape, steps)
  return np.array(shown, order="C")


class _Reader(pickle.Unpickler):
  """An unpickler that resolves only the names in tensor files and never runs foreign code."""

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ("collections", "OrderedDict"):
      return collections.OrderedDict
    if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
      return _rebuild if name.endswith("v2") else _unwrap
    if module == "torch" and name in DTYPES:
      return DTYPES[name]
    return _refuse(module, name)

  def persistent_load(self, pid: Any) -> Storage:
    kind, dtype, key, _, size, *_ = pid
    if kind != "storage" or not isinstance(dtype, np.dtype):
      raise RunError("the file refers to something that is not a tensor.")
    return Storage(dtype, str(key), int(size))


def _refuse(module: str, name: str) -> NoReturn:
  raise RunError(f"the file names {module}.{name}, which no file of tensors needs.")


def _rebuild(storage: Storage, offset: int, shape: Any, strides: Any, *_: Any) -> View:
  if not isinstance(storage, Storage):
    raise RunError("the file builds a tensor from something else.")
  return View(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _unwrap(view: View, *_: Any) -> View:
  return view


def _loaded(file: io.BufferedIOBase | io.BytesIO) -> dict[str, Any]:
  """Load the dict of a pickle, or the dict under its key `state_dict`."""
  found = _Reader(file).load()
  if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
    found = found["state_dict"]
  if not isinstance(found, dict):
    raise RunError("the file contains no dict of tensors.")
  return found


def _from_zip(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
  with zipfile.ZipFile(path) as archive:
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    if sum(sizes.values()) > LARGEST_FILE:
      raise RunError(f"{path} unpacks to more than {LARGEST_FILE >> 30} GiB.")
    (pickled,) = (name for name in sizes if name.endswith("/data.pkl") or name == "data.pkl")
    views = _loaded(io.BytesIO(archive.read(pickled)))
    folder = pickled.removesuffix("data.pkl") + "data/"
    data = {
      name.removeprefix(folder): archive.read(name) for name in sizes if name.startswith(folder)
    }
  return views, data


def _before_zip(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
  """Read the old format: magic number, version, system, the dict, storage keys, and the storages."""
  sizes: dict[str, np.dtype] = {}

  class StorageReader(_Reader):
    def persistent_load(self, pid: Any) -> Storage:
      storage = super().persistent_load(pid)
      sizes[storage.key] = storage.dtype
      return storage

  read: Callable[[Any], Any] = lambda file: StorageReader(file).load()  # noqa: E731
  with path.open("rb") as file:
    if read(file) != MAGIC or read(file) != PROTOCOL:
      raise RunError(f"{path} is not a file of torch.save.")
    read(file)
    views = read(file)
    if isinstance(views, dict) and isinstance(views.get("state_dict"), dict):
      views = views["state_dict"]
    if not isinstance(views, dict):
      raise RunError("the file contains no dict of tensors.")
    data = {}
    for key in read(file):
      count = int.from_bytes(file.read(8), "little")
      data[str(key)] = file.read(count * sizes[str(key)].itemsize)
  return views, data
