"""Shapes of the image classifiers by name. No JAX: a plan and a config read them."""

import dataclasses

# Up to this side the small-image stem and patches of an eighth of the side are the defaults.
SMALL_IMAGE = 64
STEMS = ("auto", "standard", "small", "small_half")


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
  """The shape of a residual network.

  Attributes:
    block: `basic` (two 3 x 3 convolutions) or `bottleneck` (1 x 1, 3 x 3, 1 x 1, four times as wide at its end).
    depths: blocks of each stage; every stage after the first halves the sides and doubles the width.
    width: channels of the first stage.
    stem: `standard` (7 x 7, stride 2, pooling) or `small` (3 x 3).
    stem_stride: of the small stem.
  """

  block: str
  depths: tuple[int, ...]
  width: int = 64
  stem: str = "standard"
  stem_stride: int = 1

  @property
  def features(self) -> int:
    """Width of what the head sees."""
    return self.width * 2 ** (len(self.depths) - 1) * (4 if self.block == "bottleneck" else 1)

  def fitting(self, image_size: int, stem: str) -> "ResNetConfig":
    """The shape for images of a size; `auto` takes the small stem up to `SMALL_IMAGE` pixels."""
    if stem == "auto":
      stem = "small" if image_size <= SMALL_IMAGE else "standard"
    kind = "standard" if stem == "standard" else "small"
    return dataclasses.replace(self, stem=kind, stem_stride=2 if stem == "small_half" else 1)


@dataclasses.dataclass(frozen=True)
class VitConfig:
  """The shape of a vision transformer.

  Attributes:
    patch_size: side of a patch, in pixels.
    width: of a token.
    depth: layers.
    heads: of each attention.
    mlp_ratio: width of the hidden layer over that of a token.
  """

  patch_size: int = 16
  width: int = 384
  depth: int = 12
  heads: int = 6
  mlp_ratio: int = 4

  @property
  def features(self) -> int:
    """Width of what the head sees."""
    return self.width

  def fitting(self, image_size: int, stem: str) -> "VitConfig":
    """The shape for images of a size: unless the stem is `standard`, a small image keeps at least 8 x 8 patches."""
    if image_size > SMALL_IMAGE or stem == "standard":
      return self
    return dataclasses.replace(self, patch_size=max(1, min(self.patch_size, image_size // 8)))


# The first two are torchvision's, the third DeiT's small; `resnet8` and `vit_tiny` are for 32 pixels.
NETWORKS: dict[str, ResNetConfig | VitConfig] = {
  "resnet18": ResNetConfig("basic", (2, 2, 2, 2)),
  "resnet50": ResNetConfig("bottleneck", (3, 4, 6, 3)),
  "vit_s16": VitConfig(),
  "resnet8": ResNetConfig("basic", (1, 1, 1), width=16),
  "vit_tiny": VitConfig(patch_size=4, width=96, depth=4, heads=3),
}
