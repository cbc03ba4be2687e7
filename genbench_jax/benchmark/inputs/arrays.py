"""Read NumPy archives with images `[n, h, w, 3]` and labels, as samplers write them."""

import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from genbench_jax.benchmark.inputs.image_list import ImageList
from genbench_jax.benchmark.inputs.spool import spool_for
from genbench_jax.errors import UsageError
from genbench_jax.runtime.npz import npz_names, opened_npz, read_header, read_npz
from genbench_jax.runtime.printable import listed
from genbench_jax.store.image_files import MOST_BYTES

# Names without case; of an archive with splits, the training images.
_IMAGE_KEYS = (
  "images", "image", "samples", "x", "data", "train_images", "x_train", "imgs", "arr_0",
)  # fmt: skip
_LABEL_KEYS = ("labels", "label", "classes", "y", "train_labels", "y_train", "targets", "arr_1")
_NAME_KEYS = ("class_names", "names")
_MOST_BYTES = 1 << 28  # of labels and class names


def array_images(path: Path, cache: Path) -> ImageList:
  """Return the images of an .npz file, converted to PNG once, one at a time to save memory.

  Args:
    path: file with uint8 images `[n, h, w, 3]` or `[n, h, w]` and n labels, indices or names.
    cache: folder for the converted copy.

  Raises:
    UsageError: the file can't be read, or lacks such arrays.
  """
  return spool_for(cache, "npz-2", [path]).fill(lambda: _images(path)).image_list(path, [path])


def _images(path: Path) -> Iterator[tuple[str, tuple[str, ...], bytes]]:
  try:
    keys = npz_names(path)
    image_key, label_key = _keys(path, keys)
    name_key = next((key for key in _NAME_KEYS if key in keys), "")
    beside = read_npz(path, _MOST_BYTES, {label_key, name_key})
    labels, names = beside[label_key], [str(name) for name in beside.get(name_key, ())]
    with opened_npz(path) as archive, archive.open(f"{image_key}.npy") as file:
      for row, image in enumerate(_rows(path, file, len(labels))):
        yield str(row), (_named(labels[row], names),), _png(image)
  except UsageError:
    raise
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UsageError(f"{path} can't be read as .npz: {error}.") from error


def _keys(path: Path, keys: list[str]) -> tuple[str, str]:
  """Return the names of the images and labels: the usual ones, else the only arrays of such shapes."""
  image_key, label_key = (
    next((key for name in wanted for key in keys if key.casefold() == name), None)
    for wanted in (_IMAGE_KEYS, _LABEL_KEYS)
  )
  if image_key and label_key:
    return image_key, label_key
  shapes = _shapes(path)
  images = [key for key, shape in shapes.items() if len(shape) in (3, 4)]
  if image_key is None and len(images) == 1:
    image_key = images[0]
  count = shapes[image_key][:1] if image_key else ()
  labels = [k for k, shape in shapes.items() if k != image_key and shape in (count, (*count, 1))]
  if label_key is None and count and len(labels) == 1:
    label_key = labels[0]
  if image_key is None and "features" in keys:
    raise UsageError(
      f"{path} contains features, not images. Give the images themselves, or an exported image set."
    )
  for key, what, wanted in ((image_key, "images", _IMAGE_KEYS), (label_key, "labels", _LABEL_KEYS)):
    if key is None:
      raise UsageError(
        f"{path} has no array of {what} among {listed(keys)}; name it {wanted[0]!r}."
      )
  return str(image_key), str(label_key)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
  with opened_npz(path) as archive:
    shapes = {}
    for name in archive.namelist():
      with archive.open(name) as file:
        shapes[name.removesuffix(".npy")] = read_header(file).shape
    return shapes


def _rows(path: Path, file: IO[bytes], count: int) -> Iterator[Any]:
  """Yield the images of an array in a file, one at a time."""
  shape, is_fortran, dtype = read_header(file)
  is_image = dtype == np.uint8 and (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4)))
  if not is_image or is_fortran or shape[0] != count:
    raise UsageError(
      f"{path}: images must be uint8 [{count}, h, w, 3], one per label, not {dtype} {list(shape)}."
    )
  size = math.prod(shape[1:])
  if not 0 < size <= MOST_BYTES:
    raise UsageError(
      f"{path}: an image of shape {list(shape[1:])} is empty or takes more than {MOST_BYTES} bytes."
    )
  for _ in range(count):
    content = file.read(size)
    if len(content) < size:
      raise ValueError("the file ends within an image")
    yield np.frombuffer(content, np.uint8).reshape(shape[1:])


def _named(label: Any, names: list[str]) -> str:
  if isinstance(label, np.ndarray) and label.ndim:  # one-hot, or a column [n, 1] of labels
    label = label.argmax() if label.size > 1 else label.flat[0]
  if isinstance(label, np.floating) and label.is_integer():
    label = int(label)
  if isinstance(label, (np.integer, int)):
    return names[int(label)] if 0 <= int(label) < len(names) else str(int(label))
  return label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)


def _png(image: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  flat = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
  Image.fromarray(flat).save(buffer, format="PNG", compress_level=1)
  return buffer.getvalue()
