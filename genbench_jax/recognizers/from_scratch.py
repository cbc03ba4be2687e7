"""A network trained from scratch on external images: what they teach without prior knowledge.

No pretrained encoder is involved, so the verdict does not depend on what CLIP sees. The recipe
follows papers that ask this question
with a ResNet-50: Classification Accuracy Score (arXiv 1905.10887), Fake it till you make it
(2212.08420), Scaling laws of synthetic images (2312.04567), arXiv 2602.19946.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.embedding.library import AnyImages
from genbench_jax.metrics.accuracy import Metric
from genbench_jax.models.classifiers import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  Classifier,
  make_classifier,
)
from genbench_jax.recognizers.arrays import fit_arrays
from genbench_jax.recognizers.method import Method, Place
from genbench_jax.recognizers.problem import Model, Problem, View
from genbench_jax.recognizers.settings import FromScratchSettings, Recipe
from genbench_jax.runtime.settings import checked_section

# Recipe of a ResNet-50 on ImageNet in Classification Accuracy Score: 90 epochs, rate 0.1 at batch
# size 256, divided by ten after each third and near the end; no smoothing; the last epoch is
# tested.
PUBLISHED = Recipe(
  learning_rate=0.1, weight_decay=1e-4, schedule="steps", warmup=0.0, epochs=90, min_steps=0, batch_size=256,
  label_smoothing=0.0, min_crop=0.08,
)  # fmt: skip
SIDE_BY_SIDE = 8


@dataclasses.dataclass(frozen=True)
class ClassifierLogits:
  """The network in the form that the engine takes."""

  classifier: Classifier

  def __call__(
    self, variables: Any, stats: Any, frozen: Any, pixels: Float[Array, "b h w 3"], key: Any
  ) -> tuple[Float[Array, "b k"], Any]:
    # float32 masters; the layers cast to the dtype of the computation.
    pixels = pixels.astype(self.classifier.dtype)
    return self.classifier.logits(variables, stats, pixels, train=key is not None)


def compute_dtype() -> Any:
  """Return bfloat16 on accelerators, and float32 on CPU, where bfloat16 is emulated."""
  return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def method(
  settings: FromScratchSettings, num_classes: int, multi_label: bool, protocol: str = "strict"
) -> Method:
  """Return the method for training a network from scratch.

  Args:
    settings: network and recipe.
    num_classes: number of outputs.
    multi_label: binary cross-entropies instead of the softmax.
    protocol: `reference` uses the published recipe.

  Raises:
    UsageError: the network is unknown, or the image size does not fit it.
  """
  if protocol == "reference":
    settings = dataclasses.replace(settings, recipe=PUBLISHED)
  classifier = make_classifier(
    settings.network, settings.image_size, num_classes, compute_dtype(), settings.stem
  )
  view = View(settings.image_size, IMAGENET_MEAN, IMAGENET_STD)
  start = functools.partial(_start, classifier)
  problem = Problem(ClassifierLogits(classifier), view, multi_label)
  return Method("from_scratch", problem, start, settings.recipe)


def _start(classifier: Classifier, seed: int) -> Model:
  params, stats = _initial(classifier)(jax.random.key(seed))
  return Model(params, stats, {})


@functools.lru_cache(maxsize=8)
def _initial(classifier: Classifier) -> Any:
  """Return the compiled initializer; drawing a network operation by operation takes seconds."""
  return jax.jit(classifier.initial)


def cells_at_once(settings: FromScratchSettings) -> int:
  """Return the number of cells per program."""
  if settings.cells_at_once:
    return settings.cells_at_once
  few = jax.default_backend() == "cpu" or settings.image_size > 64
  return 1 if few else SIDE_BY_SIDE


def from_scratch(
  images: AnyImages,
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"],
  test_images: AnyImages,
  test_labels: Int[np.ndarray, "m"] | Bool[np.ndarray, "m k"],
  protocol: str = "strict",
  seed: int = 0,
  metric: Metric = "accuracy",
  *,
  settings: FromScratchSettings | None = None,
  num_classes: int | None = None,
  loss_weights: Float[np.ndarray, "n"] | None = None,
  later: Bool[np.ndarray, "n"] | None = None,
  mesh: Mesh | None = None,
  place: Place | None = None,
) -> dict[str, Any]:
  """Train a network on external images alone and score it on test images.

  Args:
    images: external images: uint8 [n, h, w, 3], or a sequence of images of any size.
    labels: class indices, or multi-hot.
    test_images: test images; they are used for scoring only.
    test_labels: like `labels`.
    protocol: `strict` chooses rate and length on held-out external images; `reference` uses the
      published recipe.
    seed: of the weights, the order and the augmentation.
    metric: recognition score.
    settings: network, size and recipe.
    num_classes: k; None infers it from the labels.
    loss_weights: weight of each image.
    later: images of a second phase, such as real images after synthetic ones.
    mesh: devices to use; None for the first device.
    place: name and checkpoints, instead of `mesh`.

  Returns:
    A dict with `score`, `ci_low`, `ci_high`, `scores` (probabilities [m, k]), `predictions`,
    `n_external`, `n_test`, `missing_classes`, `learning_rate`, `steps`, `chosen_by`, `train_loss`,
    and `held_out_losses` if something was chosen.

  Raises:
    UsageError: arrays do not match, or a name or setting is invalid.
    ModelError: the training diverged.
  """
  make = functools.partial(method, checked_section(settings or FromScratchSettings(), "settings"))
  return fit_arrays(
    make, images, labels, test_images, test_labels, protocol, seed, metric, num_classes, loss_weights, later, mesh,
    place,
  )  # fmt: skip
