"""Count the operations of the trainable classifiers from their shapes: a multiply-add counts as two."""

from genbench_jax.models.classifier_shapes import NETWORKS, ResNetConfig, VitConfig


def network_flops(name: str, image_size: int, num_classes: int, stem: str = "auto") -> float:
  """Return the operations of one image's forward pass; a training step takes three times as many.

  Args:
    name: a key of `NETWORKS`.
    image_size: side in pixels.
    num_classes: number of outputs.
    stem: see `Classifier`.
  """
  config = NETWORKS[name].fitting(image_size, stem)
  body = (
    _resnet(config, image_size)
    if isinstance(config, ResNetConfig)
    else _transformer(config, image_size)
  )
  return 2.0 * (body + config.features * num_classes)


def _resnet(config: ResNetConfig, side: int) -> int:
  """Count the multiply-adds of the convolutions, including those on padding."""
  if config.stem == "standard":
    side = -(-side // 2)
    total = 49 * 3 * config.width * side * side
    side = -(-side // 2)
  else:
    side = -(-side // config.stem_stride)
    total = 9 * 3 * config.width * side * side
  # `inputs`: channels that enter a block. `last`: output channels over the block's width.
  inputs, last = config.width, 4 if config.block == "bottleneck" else 1
  for stage, depth in enumerate(config.depths):
    width = config.width * 2**stage
    for place in range(depth):
      before, side = side, -(-side // 2) if stage and not place else side
      if config.block == "basic":
        total += 9 * (inputs + width) * width * side * side
      else:
        total += inputs * width * before * before + (9 * width + last * width) * width * side * side
      # A projection shortcut (1 x 1 convolution) where the width or the resolution changes.
      if not place and (stage or inputs != last * width):
        total += inputs * last * width * side * side
      inputs = last * width
  return total


def _transformer(config: VitConfig, side: int) -> int:
  width, patches = config.width, (side // config.patch_size) ** 2
  tokens = patches + 1
  # Query, key, value and output projections and the two MLP layers; then the attention's two products.
  layer = tokens * width * width * (4 + 2 * config.mlp_ratio) + 2 * tokens * tokens * width
  return patches * 3 * config.patch_size**2 * width + config.depth * layer
