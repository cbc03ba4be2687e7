"""A network trained from scratch on external images: what they teach to someone who knows nothing else.

No pretrained encoder takes part, so the verdict does not rest on what CLIP sees. The recipe is that of the papers that ask the
question with a ResNet-50: Classification Accuracy Score (arXiv 1905.10887), Fake it till you make it (2212.08420), Scaling laws
of synthetic images (2312.04567), arXiv 2602.19946.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, UInt8

from genbench_jax.metrics.accuracy import Metric
from genbench_jax.models.classifier_cost import network_flops
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

# The published recipe of a ResNet-50 on ImageNet, as Classification Accuracy Score trains it: 90 epochs, a tenth of the rate after
# each third and near the end, no smoothing, the last epoch is tested. Rate 0.1 at batch 256.
PUBLISHED = Recipe(
  learning_rate=0.1, weight_decay=1e-4, schedule="steps", warmup=0.0, epochs=90, min_steps=0, batch_size=256,
  label_smoothing=0.0, min_crop=0.08,
)  # fmt: skip
SIDE_BY_SIDE = 8


@dataclasses.dataclass(frozen=True)
class ClassifierLogits:
  """The network as the engine takes it."""

  classifier: Classifier

  def __call__(
    self, variables: Any, stats: Any, frozen: Any, pixels: Float[Array, "b h w 3"], key: Any
  ) -> tuple[Float[Array, "b k"], Any]:
    # float32 masters; the layers cast to the dtype of the computation.
    pixels = pixels.astype(self.classifier.dtype)
    return self.classifier.logits(variables, stats, pixels, train=key is not None)


def compute_dtype() -> Any:
  """bfloat16 on accelerators; float32 on CPU, where bfloat16 is emulated."""
  return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def method(
  settings: FromScratchSettings, num_classes: int, multi_label: bool, protocol: str = "strict"
) -> Method:
  """How a network is trained from scratch.

  Args:
    settings: which network, and the recipe.
    num_classes: outputs.
    multi_label: binary cross-entropies in place of the softmax.
    protocol: `reference` takes the published recipe.

  Raises:
    UsageError: an unknown network, or a size that does not fit it.
  """
  if protocol == "reference":
    settings = dataclasses.replace(settings, recipe=PUBLISHED)
  classifier = make_classifier(
    settings.network, settings.image_size, num_classes, compute_dtype(), settings.stem
  )
  view = View(settings.image_size, IMAGENET_MEAN, IMAGENET_STD)
  start = functools.partial(_start, classifier)
  problem = Problem(ClassifierLogits(classifier), view, multi_label)
  flops = 3 * network_flops(settings.network, settings.image_size, num_classes, settings.stem)
  return Method("from_scratch", problem, start, settings.recipe, flops)


def _start(classifier: Classifier, seed: int) -> Model:
  params, stats = _initial(classifier)(jax.random.key(seed))
  return Model(params, stats, {})


@functools.lru_cache(maxsize=8)
def _initial(classifier: Classifier) -> Any:
  """Compiled once: drawn operation by operation, a network takes seconds."""
  return jax.jit(classifier.initial)


def cells_at_once(settings: FromScratchSettings) -> int:
  """How many cells one program trains."""
  if settings.cells_at_once:
    return settings.cells_at_once
  few = jax.default_backend() == "cpu" or settings.image_size > 64
  return 1 if few else SIDE_BY_SIDE


def from_scratch(
  images: UInt8[np.ndarray, "n h w 3"],
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"],
  test_images: UInt8[np.ndarray, "m h w 3"],
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
  """Trains a network on external images alone and scores it on test images.

  Args:
    images: external images.
    labels: class indices, or multi-hot.
    test_images: they choose nothing.
    test_labels: like `labels`.
    protocol: `strict` chooses rate and length on held-out external images; `reference` takes the published recipe.
    seed: of the weights, the order and the augmentation.
    metric: how the test images are scored.
    settings: network, size and recipe.
    num_classes: k; by default what the labels show.
    loss_weights: of each image.
    later: images of a second phase, which follows on the others: real ones after synthetic ones.
    mesh: devices to use; by default the first one.
    place: name and checkpoints, in place of `mesh`.

  Returns:
    `score`, `ci_low`, `ci_high`, `scores` (probabilities [m, k]), `predictions`, `n_external`, `n_test`, `missing_classes`,
    `learning_rate`, `steps`, `chosen_by`, `train_loss`, and where something was chosen `held_out_losses`.

  Raises:
    UsageError: arrays that do not fit, unknown names, a recipe that can't be followed.
    ModelError: the training diverged.
  """
  return fit_arrays(
    functools.partial(method, settings or FromScratchSettings()), images, labels, test_images, test_labels, protocol, seed,
    metric, num_classes, loss_weights, later, mesh, place,
  )  # fmt: skip
