"""The settings of an encoder: `config.encoder` and the entries of `config.encoders`."""

import dataclasses
from typing import Annotated

from genbench_jax.runtime.settings import AtLeast, LocalPath

# The encoder of the published benchmark, and the small CLIP of the package.
PUBLISHED_CLIP = "openai/clip-vit-base-patch32"
SHIPPED_CLIP = "zoo/clip"


@dataclasses.dataclass(frozen=True)
class Encoder:
  """Settings of an encoder. The main one is a CLIP or SigLIP; others may have no text tower.

  Attributes:
    checkpoint: a folder, a hub id, or a registered name such as `inception`; `zoo/clip` is the
      small CLIP of the package.
    revision: the hub revision, a commit; empty for local folders.
    sha256: the checksum that `genbench pins` prints; other checkpoints are rejected.
    batch_per_device: images per device and batch.
  """

  checkpoint: Annotated[str, LocalPath()] = SHIPPED_CLIP
  revision: str = ""
  sha256: str = ""
  batch_per_device: Annotated[int, AtLeast(1)] = 64
