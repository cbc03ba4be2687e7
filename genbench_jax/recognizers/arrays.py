"""Training and testing on arrays given by a caller, shared by the library's functions."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Int, UInt8

from genbench_jax.embedding.library import open_image
from genbench_jax.embedding.preprocess import to_square
from genbench_jax.errors import ModelError, UsageError, unknown_name
from genbench_jax.metrics.accuracy import Metric, check_metric, check_test_labels
from genbench_jax.metrics.inputs import label_rows
from genbench_jax.models.image_input import ImageInput
from genbench_jax.recognizers.fit import evaluated, fit_cells
from genbench_jax.recognizers.linear_probe import PROTOCOLS
from genbench_jax.recognizers.method import Method, Place
from genbench_jax.recognizers.problem import View
from genbench_jax.recognizers.splits import class_targets
from genbench_jax.recognizers.training_set import TrainingSet, make_training_set
from genbench_jax.runtime.mesh import data_mesh
from genbench_jax.runtime.settings import AtLeast
from genbench_jax.store.image_pixels import to_rgb


def fit_arrays(
  make: Callable[[int, bool, str], Method],
  images: Any,
  labels: Any,
  test_images: Any,
  test_labels: Any,
  protocol: str,
  seed: int,
  metric: Metric,
  num_classes: int | None,
  loss_weights: Any,
  later: Any,
  mesh: Mesh | None,
  place: Place | None,
) -> dict[str, Any]:
  """Train one cell on arrays and test it.

  Args:
    make: (number of classes, whether an image may have several, protocol) -> method.
    images: external images, uint8 [n, h, w, 3].
    labels: class indices, or multi-hot.
    test_images: test images; they are used for scoring only.
    test_labels: like `labels`.
    protocol: `strict` or `reference`.
    seed: of all randomness.
    metric: recognition score.
    num_classes: k; None infers it from the labels.
    loss_weights: weight of each image.
    later: images of a second phase.
    mesh: devices to use; None for the first device.
    place: name and checkpoints, instead of `mesh`.

  Returns:
    The scores, their summary, and details of the training.

  Raises:
    UsageError: arrays do not match, or the protocol is unknown.
    ModelError: the training diverged.
  """
  check_protocol(protocol)
  AtLeast(0).check(seed, "seed")
  count = class_count(labels, test_labels, num_classes)
  how = make(count, np.ndim(labels) == 2, protocol)
  arrays = checked_arrays(
    images, labels, test_images, test_labels, how.problem.view, count, metric, seed, loss_weights, later
  )  # fmt: skip
  place = place or Place(data_mesh(jax.devices()[:1]) if mesh is None else mesh)
  fit = fit_cells(how, [arrays.data], [place], protocol)[0]
  if isinstance(fit, ModelError):
    raise fit
  return evaluated(
    how, fit, arrays.data, arrays.test_images, arrays.test_labels, metric, place.mesh
  )


@dataclasses.dataclass(frozen=True)
class Arrays:
  """Checked images, as squares of the view's stored size, and labels."""

  data: TrainingSet
  test_images: UInt8[np.ndarray, "m s s 3"]
  test_labels: Int[np.ndarray, "m"] | Bool[np.ndarray, "m k"]


def checked_arrays(
  images: Any,
  labels: Any,
  test_images: Any,
  test_labels: Any,
  view: View,
  num_classes: int,
  metric: Metric,
  seed: int = 0,
  loss_weights: Any = None,
  later: Any = None,
) -> Arrays:
  """Check arrays and turn them into a training set and test images.

  Args:
    images, labels, test_images, test_labels, metric, seed, loss_weights, later: see `fit_arrays`.
    view: how the network takes images.
    num_classes: number of classes.

  Raises:
    UsageError: shapes do not match, there are no images, images are not uint8 RGB, labels are out
      of range, or the metric is unknown.
  """
  check_metric(metric)
  images, test_images = (
    stored_squares(name, array, view.stored_size)
    for name, array in (("images", images), ("test_images", test_images))
  )
  if not len(images) or not len(test_images):
    raise UsageError(
      f"there are {len(images)} images to train on and {len(test_images)} to test on."
    )
  labels = label_rows("labels", labels, len(images), num_classes)
  test_labels = label_rows("test_labels", test_labels, len(test_images), num_classes)
  check_test_labels(test_labels, num_classes, metric)
  targets = class_targets(labels, num_classes)
  multi_label = labels.ndim == 2
  data = make_training_set(images, targets, loss_weights, later, multi_label, seed)
  return Arrays(data, test_images, test_labels)


def class_count(labels: Any, test_labels: Any, num_classes: int | None) -> int:
  """Return the number of classes: as given, or inferred from the labels.

  Args:
    labels, test_labels: class indices, or multi-hot labels.
    num_classes: the given number; None to infer it.
  """
  if num_classes is not None:
    return num_classes
  arrays = [np.asarray(array) for array in (labels, test_labels)]
  return max(a.shape[1] if a.ndim == 2 else int(a.max(initial=0)) + 1 for a in arrays)


def check_protocol(protocol: str) -> None:
  """Reject an unknown protocol.

  Raises:
    UsageError: the protocol is unknown; the message names the known ones.
  """
  if protocol not in PROTOCOLS:
    raise unknown_name("protocol", protocol, PROTOCOLS)


def stored_squares(name: str, images: Any, size: int) -> UInt8[np.ndarray, "n s s 3"]:
  """Return images as squares of a size: the shorter side is scaled and the center is cut.

  Args:
    name: name of the argument for error messages.
    images: uint8 [n, h, w, 3], or a sequence of images of any size, as `embed_images` takes them.
    size: side of the squares in pixels.

  Raises:
    UsageError: the images are not uint8 [n, h, w, 3], or one of a sequence is no image.
  """
  if not isinstance(images, list | tuple):
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
      raise UsageError(
        f"{name} are {images.dtype} {list(images.shape)}, expected uint8 [n, h, w, 3]."
      )
    if images.shape[1:3] == (size, size):
      return images
  how = ImageInput(size)
  squares = [np.asarray(to_square(to_rgb(open_image(image)), how)) for image in images]
  return np.stack(squares) if squares else np.zeros((0, size, size, 3), np.uint8)
