"""The settings of a generator: `config.generation` and the entries of `config.generators`."""

import dataclasses
from typing import Annotated

from genbench_jax.errors import UsageError
from genbench_jax.models.diffusion_settings import IMPLEMENTATIONS
from genbench_jax.prompts.strategies import STRATEGIES
from genbench_jax.runtime.settings import AtLeast, AtMost, LocalPath, OneOf

# Pixels that a device decodes at once: four images of 512 x 512. The decoder's temporaries are much
# larger than the U-Net's.
DECODED_AT_ONCE = 4 * 512 * 512
SCHEDULERS = (
  "pndm",
  "ddim",
  "dpmsolver++",
  "euler",
  "euler_ancestral",
  "lcm",
  "tcd",
  "auto",
)
BACKEND_DTYPES = ("", "float32", "float16", "bfloat16")
# Settings of our sampler and model, which other programs do not know.
OURS_ONLY = (
  "loras", "autoencoder", "eta", "guidance_rescale", "timesteps", "scheduler_settings",
)  # fmt: skip


class KeptImages:
  """Constraint of `keep_images`: `all`, `none` or a positive number as text."""

  def check(self, value: str, path: str) -> None:
    if value not in ("all", "none") and not (
      value.isascii() and value.isdecimal() and int(value) > 0
    ):
      raise UsageError(
        f"{path} is {value!r}, expected 'all', 'none' or a number of images per class."
      )


@dataclasses.dataclass(frozen=True)
class Generation:
  """How images are generated.

  Attributes:
    checkpoint: a Stable Diffusion folder, hub id or single `.safetensors` file; `zoo/diffusion` is
      the small model that ships.
    revision: the hub revision, a commit; empty for local folders.
    sha256: the checksum that `genbench pins` prints; other checkpoints are rejected.
    strategies: prompt strategies; each makes an image set.
    steps: sampler steps.
    guidance_scale: scale of classifier-free guidance; 1 or less disables it.
    scheduler: the sampler; `auto` uses the checkpoint's own.
    height: pixels; 0 uses the model's own size.
    width: pixels; 0 uses the model's own size.
    batch_per_device: images per device; 0 uses as many as fit into its memory.
    keep_images: `all` images, `none`, or a number per class as text, such as `4`. Unless all are
      kept, the devices that generate the images embed them, and only their features and that many
      images of each class are stored.
    shard_size: images per shard, which is also the most that an interrupted run loses.
    implementation: implementation of the networks: `ours`, or `diffusers` for the stock Flax
      classes of diffusers below 0.40.
    backend: another program that makes the images: `diffusers` for any PyTorch pipeline, or
      `module:function`; empty is this package.
    backend_dtype: dtype of a `diffusers` pipeline: `float32`, `float16` or `bfloat16`; empty is
      bfloat16 on a GPU and float32 on a CPU.
    backend_device: its device, such as `cuda:1`; empty is the first GPU, or else the CPU.
    eta: fraction of fresh noise in `ddim` and `tcd`.
    guidance_rescale: how far to restore the standard deviation that guidance inflates, 0 to 1
      (2305.08891).
    timesteps: explicit descending timesteps instead of `steps`.
    scheduler_settings: keys of `scheduler_config.json` that override the checkpoint's, as a JSON
      object.
    loras: files of low-rank updates, each as `FILE:WEIGHT`; a file of the hub is
      `owner/name/FILE.safetensors`, or `owner/name@COMMIT/FILE.safetensors`.
    lora_sha256: checksums of these files, in their order; other files are rejected.
    autoencoder: folder or hub id of an autoencoder in place of the checkpoint's.
    autoencoder_revision: its hub revision, a commit; empty for local folders.
    autoencoder_sha256: its checksum.
    negative_prompt: appended to the negative prompt of the strategy.
  """

  checkpoint: Annotated[str, LocalPath()] = "zoo/diffusion"
  revision: str = ""
  sha256: str = ""
  strategies: Annotated[tuple[str, ...], OneOf("strategy", STRATEGIES)] = ("defined_template",)
  steps: Annotated[int, AtLeast(1)] = 50
  guidance_scale: Annotated[float, AtLeast(0)] = 7.5
  scheduler: Annotated[str, OneOf("scheduler", SCHEDULERS)] = "dpmsolver++"
  height: Annotated[int, AtLeast(0)] = 0
  width: Annotated[int, AtLeast(0)] = 0
  batch_per_device: Annotated[int, AtLeast(0)] = 8
  keep_images: Annotated[str, KeptImages()] = "all"
  shard_size: Annotated[int, AtLeast(1)] = 512
  implementation: Annotated[str, OneOf("implementation", IMPLEMENTATIONS)] = "ours"
  backend: str = ""
  backend_dtype: Annotated[str, OneOf("dtype", BACKEND_DTYPES)] = ""
  backend_device: str = ""
  eta: Annotated[float, AtLeast(0), AtMost(1)] = 0.0
  guidance_rescale: Annotated[float, AtLeast(0), AtMost(1)] = 0.0
  timesteps: tuple[int, ...] = ()
  scheduler_settings: str = ""
  loras: tuple[str, ...] = ()
  lora_sha256: tuple[str, ...] = ()
  autoencoder: str = ""
  autoencoder_revision: str = ""
  autoencoder_sha256: str = ""
  negative_prompt: str = ""

  def check(self, path: str) -> None:
    """Check settings that depend on each other.

    Args:
      path: path of the section for messages, such as `config.generation`.

    Raises:
      UsageError: there are more or fewer checksums than LoRAs, or a backend cannot heed a setting.
    """
    if self.lora_sha256 and len(self.lora_sha256) != len(self.loras):
      raise UsageError(
        f"{path}.lora_sha256 has {len(self.lora_sha256)} checksums for {len(self.loras)} files in"
        f" {path}.loras: give one for each, or none."
      )
    ignored = [name for name in OURS_ONLY if getattr(self, name)] if self.backend else []
    if ignored:
      raise UsageError(
        f"{path}.{ignored[0]} has no effect with backend {self.backend!r}: remove it, or make a"
        " function that uses it the backend (docs/extending.md)."
      )
    if self.backend and bool(self.height) != bool(self.width):
      raise UsageError(
        f"{path}: backend {self.backend!r} takes height and width together; give both, or neither for"
        " its own size."
      )

  def kept_images(self, per_class: int) -> int:
    """Return how many of `per_class` images are kept."""
    kept = {"all": per_class, "none": 0}.get(self.keep_images)
    return min(per_class, int(self.keep_images)) if kept is None else kept
