"""Fine-tuning of CLIP's vision tower with a text-initialized head, or of another network.

All weights learn, or only the last blocks and what follows them; learning rates decay with the
distance from the head. WiSE-FT then averages the fine-tuned and the zero-shot weights.

References:
  Wortsman et al., "Robust fine-tuning of zero-shot models", 2022 (arXiv 2109.01903):
  text-initialized head, weight-space ensemble. Geng et al., "The unmet promise of synthetic
  training images", 2024 (arXiv 2406.05184): asks our question with it.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.embedding.library import AnyImages
from genbench_jax.errors import UsageError
from genbench_jax.metrics.accuracy import Metric
from genbench_jax.metrics.inputs import check_finite, feature_rows, host_unit_rows, unit_rows
from genbench_jax.models import weights
from genbench_jax.models.classifier_shapes import ResNetConfig
from genbench_jax.models.classifiers import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  load_published,
  make_classifier,
)
from genbench_jax.models.image_encoder import TextEncoder, load_text_encoder
from genbench_jax.recognizers.arrays import fit_arrays
from genbench_jax.recognizers.from_scratch import ClassifierLogits, compute_dtype
from genbench_jax.recognizers.method import Method, Place
from genbench_jax.recognizers.problem import Model, Problem, View
from genbench_jax.recognizers.settings import FineTuneSettings, Recipe
from genbench_jax.runtime.kept import kept
from genbench_jax.runtime.settings import checked_section

# Recipe of WiSE-FT (section 3 and appendix), at its batch size of 512.
PUBLISHED = Recipe(
  optimizer="adamw", learning_rate=3e-5, weight_decay=0.1, epochs=10, min_steps=0, batch_size=512, label_smoothing=0.0,
  min_crop=0.9, flip=False, clip_norm=1.0,
)  # fmt: skip
# In front of the blocks of a ResNet or ViT.
STEM = ("conv1", "bn1", "patch_embed", "pos_embed", "cls_token")
TOWER, PROJECTION = "vision_model.", "visual_projection."
# SigLIP pools by attention where CLIP projects.
BEHIND_BLOCKS = ("vision_model.post_layernorm.", PROJECTION, "vision_model.head.")


@dataclasses.dataclass(frozen=True)
class TowerLogits:
  """Vision tower of the encoder, and a linear head on unit-norm features."""

  encoder: TextEncoder

  def __call__(
    self, variables: Any, stats: Any, frozen: Any, pixels: Float[Array, "b h w 3"], key: Any
  ) -> tuple[Float[Array, "b k"], Any]:
    params = with_leaves(frozen, variables["tower"])
    features = unit_rows(self.encoder.embed_pixels(params, pixels).astype(jnp.float32))
    head = variables["head"]
    return features @ head["weight"] + head["bias"], stats


@kept(16)
def without_weights(encoder: TextEncoder) -> TextEncoder:
  """Return the encoder without its layers, always the same object: programs are cached by it."""
  is_ours, network = dataclasses.is_dataclass(encoder), cast(Any, encoder)
  # The logit scale stays, because it is a property of the encoder.
  scalars = {name: leaf for name, leaf in encoder.params.items() if not isinstance(leaf, Mapping)}
  return dataclasses.replace(network, params=scalars) if is_ours else encoder


def with_leaves(tree: Any, leaves: dict[str, Any]) -> Any:
  """Return the tree with some leaves replaced, by their joined names."""
  return weights.tree_of(tree, lambda name, leaf: leaves.get(name, leaf))


def encoder_view(encoder: TextEncoder) -> View:
  """Return how an encoder takes images."""
  return View(encoder.input.size, encoder.input.mean, encoder.input.std)


def trained_leaves(params: Any, blocks: int) -> dict[str, Any]:
  """Return the leaves of the vision tower that learn: all, or the last blocks and the rest.

  Raises:
    UsageError: the tower has fewer blocks, or the encoder has no tower of a known layout.
  """
  leaves = dict(weights.leaves(params))
  if not num_blocks(leaves):
    raise UsageError(
      "fine_tune knows the vision towers of CLIP and SigLIP, and this encoder has none of them."
    )
  if not blocks:
    return {name: leaf for name, leaf in leaves.items() if name.startswith((TOWER, PROJECTION))}
  depth = num_blocks(leaves)
  if blocks > depth:
    raise UsageError(f"config.recognition.fine_tune.blocks is {blocks}, but the tower has {depth}.")
  last = tuple(f"{TOWER}encoder.layers.{index}." for index in range(depth - blocks, depth))
  return {name: leaf for name, leaf in leaves.items() if name.startswith((*last, *BEHIND_BLOCKS))}


def num_blocks(leaves: dict[str, Any]) -> int:
  """Return the number of blocks of the vision tower."""
  start = f"{TOWER}encoder.layers."
  return len({name[len(start) :].split(".")[0] for name in leaves if name.startswith(start)})


def block_rates(depth: int, decay: float) -> tuple[tuple[str, float], ...]:
  """Return each block's learning-rate factor: decay to the power of its distance from the head."""
  blocks = [(f".layers.{index}.", decay ** (depth - index)) for index in range(depth)]
  start = decay ** (depth + 1)
  return (*blocks, (f"{TOWER}embeddings", start), (f"{TOWER}pre_layrnorm", start))


def wise_ft(zero_shot: Any, fine_tuned: Any, alpha: float) -> Any:
  """Return (1 - alpha) zero-shot + alpha fine-tuned weights; exact at both ends.

  Args:
    zero_shot, fine_tuned: weights of the same network.
    alpha: share of the fine-tuned weights.
  """
  return jax.tree.map(lambda a, b: (1 - alpha) * a + alpha * b, zero_shot, fine_tuned)


def method(
  settings: FineTuneSettings,
  encoder: TextEncoder | None,
  text_features: Float[np.ndarray, "k d"] | None,
  num_classes: int,
  multi_label: bool,
  protocol: str = "strict",
) -> Method:
  """Return the method for fine-tuning a pretrained network.

  Args:
    settings: which weights learn, and the recipe.
    encoder: the run's encoder, if `settings.checkpoint` is empty.
    text_features: unit-norm text prototypes of that encoder.
    num_classes: number of outputs.
    multi_label: binary cross-entropies instead of the softmax.
    protocol: `reference` uses WiSE-FT's recipe.

  Raises:
    UsageError: the settings do not fit the network.
  """
  if protocol == "reference":
    settings = dataclasses.replace(settings, recipe=PUBLISHED, blocks=0, layer_decay=1.0)
  if not 0 <= settings.wise_ft <= 1:
    raise UsageError(
      f"config.recognition.fine_tune.wise_ft is {settings.wise_ft}, expected 0 to 1."
    )
  if settings.checkpoint:
    return _published_method(settings, num_classes, multi_label)
  if encoder is None or text_features is None:
    raise UsageError(
      "fine_tune without a checkpoint of its own needs an encoder and text prototypes."
    )
  return _encoder_method(settings, encoder, text_features, multi_label)


def _encoder_method(
  settings: FineTuneSettings,
  encoder: TextEncoder,
  text_features: Float[np.ndarray, "k d"],
  multi_label: bool,
) -> Method:
  tower = trained_leaves(encoder.params, settings.blocks)
  text = host_unit_rows(feature_rows("text_features", text_features, encoder.width))
  check_finite("text_features", text)
  # [d, k]: before the first step, the head is the zero-shot classifier.
  kernel = encoder.logit_scale * text.T
  if multi_label:
    # A scaled cosine is not a log-odds: shift the logits so that the mean prototype has logit 0.
    kernel = kernel - kernel.mean(axis=1, keepdims=True)
  head = {"weight": kernel, "bias": np.zeros(len(text), np.float32)}
  first = {"tower": _wide(tower), "head": _wide(head)}
  rates = block_rates(num_blocks(dict(weights.leaves(encoder.params))), settings.layer_decay)
  problem = Problem(
    TowerLogits(without_weights(encoder)), encoder_view(encoder), multi_label, rates
  )
  start = Model(first, {}, encoder.params)
  finish = functools.partial(_averaged, start, settings.wise_ft)
  return Method("fine_tune", problem, lambda seed: start, settings.recipe, finish=finish)


def _wide(leaves: dict[str, Any]) -> dict[str, Any]:
  return {name: np.asarray(leaf, np.float32) for name, leaf in leaves.items()}


def _averaged(first: Model, alpha: float, model: Model) -> Model:
  """Average weights and running averages, so that both ends are the networks themselves."""
  return Model(
    wise_ft(first.variables, model.variables, alpha),
    wise_ft(first.stats, model.stats, alpha),
    model.frozen,
  )


def _published_method(settings: FineTuneSettings, num_classes: int, multi_label: bool) -> Method:
  """Return the method for a ResNet or ViT with ImageNet weights and a head of zeros."""
  classifier = make_classifier(
    settings.network, settings.image_size, num_classes, compute_dtype(), "standard"
  )
  revision = settings.revision or None
  params, stats = load_published(classifier, settings.checkpoint, jax.random.key(0), revision)
  view = View(settings.image_size, IMAGENET_MEAN, IMAGENET_STD)
  rates = _published_rates(classifier.network.config, settings)
  problem = Problem(ClassifierLogits(classifier), view, multi_label, rates)
  start = Model(params, stats, {})
  finish = functools.partial(_averaged, start, settings.wise_ft)
  return Method("fine_tune", problem, lambda seed: start, settings.recipe, finish=finish)


def _published_rates(config: Any, settings: FineTuneSettings) -> tuple[tuple[str, float], ...]:
  """Return the learning-rate factors of a network's blocks and of the stem in front of them.

  A block decays by its distance from the head; frozen blocks have a rate of zero.

  Raises:
    UsageError: the network has fewer blocks than `settings.blocks`.
  """
  names = _published_blocks(config)
  if settings.blocks > len(names):
    raise UsageError(
      f"config.recognition.fine_tune.blocks is {settings.blocks}, but the network has {len(names)}."
    )
  frozen = len(names) - settings.blocks if settings.blocks else 0
  blocks = [
    (name, 0.0 if index < frozen else settings.layer_decay ** (len(names) - index))
    for index, name in enumerate(names)
  ]
  # Blocks first: `conv1` and `bn1` are names within the blocks of a ResNet, too.
  stem = 0.0 if frozen else settings.layer_decay ** (len(names) + 1)
  return (*blocks, *((name, stem) for name in STEM))


def _published_blocks(config: Any) -> list[str]:
  """Return the name prefixes of a network's blocks, in order."""
  if isinstance(config, ResNetConfig):
    return [
      f"layer{stage + 1}.{place}."
      for stage, depth in enumerate(config.depths)
      for place in range(depth)
    ]
  return [f"blocks.{index}." for index in range(config.depth)]


def fine_tune(
  images: AnyImages,
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"],
  test_images: AnyImages,
  test_labels: Int[np.ndarray, "m"] | Bool[np.ndarray, "m k"],
  text_features: Float[np.ndarray, "k d"] | None = None,
  checkpoint: str = "zoo/clip",
  protocol: str = "strict",
  seed: int = 0,
  metric: Metric = "accuracy",
  *,
  clip: TextEncoder | None = None,
  settings: FineTuneSettings | None = None,
  num_classes: int | None = None,
  loss_weights: Float[np.ndarray, "n"] | None = None,
  later: Bool[np.ndarray, "n"] | None = None,
  mesh: Mesh | None = None,
  place: Place | None = None,
) -> dict[str, Any]:
  """Fine-tune a pretrained network on external images and score it on test images.

  Args:
    images: external images: uint8 [n, h, w, 3], or a sequence of images of any size.
    labels: class indices, or multi-hot.
    test_images: test images; they are used for scoring only.
    test_labels: like `labels`.
    text_features: one text prototype per class, from `embed_texts` with the same CLIP: the initial
      head.
    checkpoint: a CLIP or SigLIP, if `settings.checkpoint` names no other network.
    protocol: `strict` chooses rate and length on held-out external images; `reference` follows
      WiSE-FT.
    seed: of the order and the augmentation.
    metric: recognition score.
    clip: the loaded encoder, instead of `checkpoint`.
    settings: which weights learn, and the recipe.
    num_classes: k; None infers it from the labels.
    loss_weights: weight of each image.
    later: images of a second phase.
    mesh: devices to use; None for the first device.
    place: name and checkpoints, instead of `mesh`.

  Returns:
    A dict as from `from_scratch`.

  Raises:
    UsageError: arrays do not match, or a name or setting is invalid.
    ModelError: the training diverged.
  """
  settings = checked_section(settings or FineTuneSettings(), "settings")
  if clip is None and not settings.checkpoint:
    clip = load_text_encoder(checkpoint)
  count = len(text_features) if text_features is not None else num_classes
  if num_classes not in (None, count):
    raise UsageError(f"num_classes is {num_classes}, but there are {count} text prototypes.")
  make = functools.partial(method, settings, clip, text_features)
  return fit_arrays(
    make, images, labels, test_images, test_labels, protocol, seed, metric, count, loss_weights, later, mesh, place
  )  # fmt: skip
