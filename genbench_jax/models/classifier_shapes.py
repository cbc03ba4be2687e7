"""Architectures of the image classifiers by name. Free of JAX, because plans and configs read it."""

import dataclasses

# Up to this side in pixels, `auto` means a small stem, and patches are at most an eighth of the side.
SMALL_IMAGE = 64
STEMS = ("auto", "standard", "small", "small_half")


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
  """Architecture of a residual network.

  Attributes:
    block: `basic` (two 3 x 3 convolutions) or `bottleneck` (1 x 1, 3 x 3, 1 x 1, output 4 times as wide).
    depths: blocks per stage; every stage after the first halves the resolution and doubles the width.
    width: channels of the first stage.
    stem: `standard` (7 x 7, stride 2, max pooling) or `small` (3 x 3).
    stem_stride: stride of the small stem.
  """

  block: str
  depths: tuple[int, ...]
  width: int = 64
  stem: str = "standard"
  stem_stride: int = 1

  @property
  def features(self) -> int:
    """Width of the features before the head."""
    return self.width * 2 ** (len(self.depths) - 1) * (4 if self.block == "bottleneck" else 1)

  def fitting(self, image_size: int, stem: str) -> "ResNetConfig":
    """Adapt to an image size; `auto` chooses the small stem up to `SMALL_IMAGE` pixels."""
    if stem == "auto":
      stem = "small" if image_size <= SMALL_IMAGE else "standard"
    kind = "standard" if stem == "standard" else "small"
    return dataclasses.replace(self, stem=kind, stem_stride=2 if stem == "small_half" else 1)


@dataclasses.dataclass(frozen=True)
class VitConfig:
  """Architecture of a vision transformer.

  Attributes:
    patch_size: side of a patch, in pixels.
    width: width of a token.
    depth: number of layers.
    heads: attention heads per layer.
    mlp_ratio: width of the MLP's hidden layer over that of a token.
  """

  patch_size: int = 16
  width: int = 384
  depth: int = 12
  heads: int = 6
  mlp_ratio: int = 4

  @property
  def features(self) -> int:
    """Width of the features before the head."""
    return self.width

  def fitting(self, image_size: int, stem: str) -> "VitConfig":
    """Adapt to an image size: small images get at least 8 x 8 patches unless `stem` is `standard`."""
    if image_size > SMALL_IMAGE or stem == "standard":
      return self
    return dataclasses.replace(self, patch_size=max(1, min(self.patch_size, image_size // 8)))


# torchvision's ResNet-18 and ResNet-50 and DeiT's small ViT; `resnet8` and `vit_tiny` suit 32 pixels.
NETWORKS: dict[str, ResNetConfig | VitConfig] = {
  "resnet18": ResNetConfig("basic", (2, 2, 2, 2)),
  "resnet50": ResNetConfig("bottleneck", (3, 4, 6, 3)),
  "vit_s16": VitConfig(),
  "resnet8": ResNetConfig("basic", (1, 1, 1), width=16),
  "vit_tiny": VitConfig(patch_size=4, width=96, depth=4, heads=3),
}
