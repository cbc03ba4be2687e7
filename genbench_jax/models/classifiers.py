"""Image classifiers by name: networks, random and published weights, and pixel normalization."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.models import checkpoints, weights
from genbench_jax.models.classifier_shapes import NETWORKS, ResNetConfig, VitConfig
from genbench_jax.models.resnet import ResNet, initial_resnet
from genbench_jax.models.vit import Vit, initial_vit, resized_positions

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DOWNLOADS = ("config.json", "model*.safetensors")
# PyTorch's step counter of a batch norm; no result depends on it.
COUNTERS = r"num_batches_tracked$"


@dataclasses.dataclass(frozen=True)
class Classifier:
  """A network for one image size and number of classes.

  Attributes:
    name: a key of `NETWORKS`.
    image_size: side in pixels.
    num_classes: number of outputs.
    dtype: dtype of the computation; parameters stay in float32.
    stem: `standard`, `small`, `small_half` (stride 2) or `auto`; see `ResNetConfig.fitting` and
      `VitConfig.fitting`.
  """

  name: str
  image_size: int
  num_classes: int
  dtype: Any = jnp.float32
  stem: str = "auto"

  @functools.cached_property
  def network(self) -> ResNet | Vit:
    config = NETWORKS[self.name].fitting(self.image_size, self.stem)
    if isinstance(config, ResNetConfig):
      return ResNet(config, self.num_classes, self.dtype)
    return Vit(config, self.num_classes, self.dtype)

  @property
  def head(self) -> str:
    """Name of the last layer: torchvision's for a ResNet, timm's for a ViT."""
    return "fc" if isinstance(self.network, ResNet) else "head"

  def initial(self, key: Array) -> tuple[Any, Any]:
    """Return random parameters and initial running averages, `{}` for a network without batch norm."""
    if isinstance(self.network, ResNet):
      return initial_resnet(self.network, key, self.image_size)
    return initial_vit(self.network, key, self.image_size), {}

  def logits(
    self, params: Any, stats: Any, pixels: Float[Array, "b h w 3"], train: bool
  ) -> tuple[Float[Array, "b k"], Any]:
    """Return logits of normalized pixels and the updated running averages.

    Args:
      params: parameters.
      stats: running averages of the batch norms; empty for a ViT.
      pixels: normalized images.
      train: whether to normalize with the batch's moments and update the averages.
    """
    variables = {"params": params, "batch_stats": stats} if stats else {"params": params}
    if not (train and stats):
      return jnp.asarray(self.network.apply(variables, pixels, train=False)), stats
    found, changed = self.network.apply(variables, pixels, train=True, mutable=["batch_stats"])
    return jnp.asarray(found), changed["batch_stats"]


def make_classifier(
  name: str, image_size: int, num_classes: int, dtype: Any = jnp.float32, stem: str = "auto"
) -> Classifier:
  """Create a network by name.

  Args:
    name: a key of `NETWORKS`.
    image_size: side in pixels.
    num_classes: number of outputs.
    dtype: dtype of the computation.
    stem: see `Classifier`.

  Raises:
    UsageError: the network is unknown, or its patches do not divide the image size.
  """
  if name not in NETWORKS:
    raise unknown_name("network", name, NETWORKS)
  config = NETWORKS[name].fitting(image_size, stem)
  if isinstance(config, VitConfig) and image_size % config.patch_size:
    raise UsageError(
      f"{name} splits images into patches of {config.patch_size} pixels, which do not divide {image_size}."
    )
  return Classifier(name, image_size, num_classes, dtype, stem)


def load_published(
  classifier: Classifier, checkpoint: str, key: Array, revision: str | None = None
) -> tuple[Any, Any]:
  """Load published ImageNet weights, named as in timm and torchvision, with a new head of zeros.

  Position embeddings are interpolated to the classifier's number of patches.

  Args:
    classifier: network with the `standard` stem and the checkpoint's patch size.
    checkpoint: a folder or hub id, such as `timm/resnet50.a1_in1k`.
    key: random key; has no influence, since every parameter is loaded or zero.
    revision: revision of a hub id.

  Raises:
    RunError: a tensor is missing, unexpected or has the wrong shape.
  """
  folder = Path(checkpoints.locate(checkpoint, revision, DOWNLOADS))
  params, stats = classifier.initial(key)
  read = checkpoints.read_weights(folder)
  own = {**dict(weights.leaves(params)), **dict(weights.leaves(stats))}
  body = {name: tensor for name, tensor in read.items() if not name.startswith(classifier.head)}
  if "pos_embed" in body and "pos_embed" in own:
    places = own["pos_embed"].shape[1] - 1  # without the class token
    positions = body["pos_embed"]
    body["pos_embed"] = lambda: np.asarray(resized_positions(positions(), places))
  without_head = {name: leaf for name, leaf in params.items() if name != classifier.head}
  everything = {**without_head, **{name: {} for name in stats if name not in without_head}}
  loaded = weights.load(body, _merged(everything, stats), folder, ignored=COUNTERS)
  head = jax.tree.map(jnp.zeros_like, params[classifier.head])
  return _like(without_head, loaded) | {classifier.head: head}, _like(stats, loaded)


def _merged(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
  """Merge two trees: running averages join the parameters of their batch norm."""
  names = left.keys() | right.keys()
  return {
    name: _merged(left.get(name, {}), right.get(name, {}))
    if isinstance(left.get(name, right.get(name)), dict)
    else left.get(name, right.get(name))
    for name in names
  }


def _like(shapes: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
  """Select the part of `tree` whose names are in `shapes`."""
  return {
    name: _like(value, tree[name]) if isinstance(value, dict) else tree[name]
    for name, value in shapes.items()
  }
