"""Residual networks with torchvision's names: ResNet-18, ResNet-50, and a small one for small images.

The small-image stem, usual for 32 to 64 pixels, is one 3 x 3 convolution. The standard stem (7 x 7 with
stride 2, then pooling) would reduce a 32-pixel image to 8 x 8, and the last stage to a single pixel.

Reference:
  He et al., "Deep residual learning for image recognition", 2016 (arXiv 1512.03385). As in torchvision,
  a bottleneck's stride is in its 3 x 3 convolution (ResNet v1.5).
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genbench_jax.models import weights
from genbench_jax.models.batch_norm import BatchNorm
from genbench_jax.models.classifier_shapes import ResNetConfig
from genbench_jax.models.layers import Conv, Linear


class ResNet(nn.Module):
  """A residual network. torchvision's `ResNet`.

  Attributes:
    config: architecture.
    num_classes: number of outputs; 0 returns the features.
    dtype: dtype of the computation; None uses the input's.
  """

  config: ResNetConfig
  num_classes: int
  dtype: Any = None

  @nn.compact
  def __call__(self, pixels: Float[Array, "b h w 3"], train: bool = False) -> Float[Array, "b k"]:
    hidden = self._stem(pixels, train)
    for stage, depth in enumerate(self.config.depths):
      for place in range(depth):
        hidden = ResidualBlock(
          self.config.block,
          self.config.width * 2**stage,
          stride=2 if stage > 0 and place == 0 else 1,
          dtype=self.dtype,
          name=f"layer{stage + 1}.{place}",
        )(hidden, train)
    # Mean and head in float32 or wider: they are a thousandth of the work.
    wide = jnp.promote_types(hidden.dtype, jnp.float32)
    features = hidden.astype(wide).mean(axis=(1, 2))
    if not self.num_classes:
      return features
    return Linear(self.num_classes, dtype=wide, name="fc")(features)

  def _stem(self, pixels: Float[Array, "b h w 3"], train: bool) -> Float[Array, "b u v c"]:
    config = self.config
    small = config.stem == "small"
    size, stride = (3, config.stem_stride) if small else (7, 2)
    convolution = Conv(
      config.width, size, stride, size // 2, use_bias=False, dtype=self.dtype, name="conv1"
    )
    hidden = jax.nn.relu(BatchNorm(name="bn1")(convolution(pixels), train))
    return hidden if small else max_pool(hidden)


class ResidualBlock(nn.Module):
  """Convolutions with a shortcut, which is a 1 x 1 convolution where shapes change.

  torchvision's `BasicBlock` and `Bottleneck`.

  Attributes:
    kind: `basic` or `bottleneck`.
    width: channels of the 3 x 3 convolutions.
    stride: stride of the block.
    dtype: dtype of the computation; None uses the input's.
  """

  kind: str
  width: int
  stride: int = 1
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b u v d"]:
    # (features, kernel size, stride) of each convolution.
    convolutions = {
      "basic": ((self.width, 3, self.stride), (self.width, 3, 1)),
      "bottleneck": ((self.width, 1, 1), (self.width, 3, self.stride), (4 * self.width, 1, 1)),
    }[self.kind]
    hidden = x
    for number, (features, size, stride) in enumerate(convolutions, 1):
      hidden = self._conv(features, size, stride, f"conv{number}")(hidden)
      hidden = BatchNorm(name=f"bn{number}")(hidden, train)
      hidden = jax.nn.relu(hidden) if number < len(convolutions) else hidden
    features = convolutions[-1][0]
    if self.stride != 1 or x.shape[-1] != features:
      x = self._conv(features, 1, self.stride, "downsample.0")(x)
      x = BatchNorm(name="downsample.1")(x, train)
    return jax.nn.relu(hidden + x)

  def _conv(self, features: int, size: int, stride: int, name: str) -> Conv:
    return Conv(features, size, stride, size // 2, use_bias=False, dtype=self.dtype, name=name)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b u v c"]:
  """Return the maximum of 3 x 3 windows with stride 2 and one pixel of padding."""
  return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def initial_resnet(network: ResNet, key: Array, image_size: int) -> tuple[Any, Any]:
  """Return random parameters as torchvision draws them, and initial running averages.

  Convolutions are normal with variance 2 / (out k k) (He et al., fan-out). The last norm of a block
  starts at zero (Goyal et al., arXiv 1706.02677), so that every block starts as the identity.

  Args:
    network: the architecture.
    key: random key.
    image_size: side of the images, in pixels.
  """
  pixels = jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.float32)
  shapes = jax.eval_shape(network.init, key, pixels)
  last = "bn3" if network.config.block == "bottleneck" else "bn2"
  names = [name for name, _ in weights.leaves(shapes["params"])]
  keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

  def first(name: str, shape: tuple[int, ...]) -> Array:
    module, _, leaf = name.rpartition(".")
    if len(shape) == 4:
      height, width, _, out = shape
      return jax.random.normal(keys[name], shape) * math.sqrt(2 / (height * width * out))
    if len(shape) == 2 or module == "fc":
      # torch.nn.Linear: weight and bias are uniform within 1 / sqrt(inputs).
      bound = network.config.features**-0.5
      return jax.random.uniform(keys[name], shape, minval=-bound, maxval=bound)
    ones = leaf == "weight" and module.rpartition(".")[2] != last
    return jnp.ones(shape) if ones else jnp.zeros(shape)

  params = weights.tree_of(shapes["params"], lambda name, leaf: first(name, leaf.shape))
  stats = weights.tree_of(
    shapes["batch_stats"],
    lambda name, leaf: (jnp.ones if name.endswith("var") else jnp.zeros)(leaf.shape),
  )
  return params, stats
