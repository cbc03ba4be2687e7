"""Any model that embeds images: a CLIP, or a DINOv2."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float

from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints
from genbench_jax.models.clip import DOWNLOADS, load_clip

KINDS = ("clip", "dinov2")


@runtime_checkable
class ImageEncoder(Protocol):
  """What `ImageEmbedder` asks of a model; see `clip.model.Clip` for what each is."""

  @property
  def params(self) -> checkpoints.Params: ...
  @property
  def image_size(self) -> int: ...
  @property
  def shorter(self) -> int: ...
  @property
  def image_mean(self) -> tuple[float, ...]: ...
  @property
  def image_std(self) -> tuple[float, ...]: ...
  @property
  def fingerprint(self) -> str: ...
  @property
  def width(self) -> int: ...

  def embed_pixels(
    self, params: checkpoints.Params, pixels: Float[Array, "b h w 3"]
  ) -> Float[Array, "b d"]: ...

  def __hash__(self) -> int: ...


def load_image_encoder(
  checkpoint: str, revision: str | None = None, dtype: Any = None
) -> ImageEncoder:
  """Loads a CLIP or a DINOv2 from a folder or hub id, by the type that its configuration names.

  Raises:
    UsageError: there is no such checkpoint.
    RunError: the checkpoint is incomplete, corrupt or of another architecture.
  """
  folder = checkpoints.locate(str(checkpoint), revision, DOWNLOADS)
  kind = checkpoints.read_json(folder / "config.json").get("model_type")
  if kind == "dinov2":
    from genbench_jax.models.dinov2 import load_dinov2

    return load_dinov2(folder, dtype)
  if kind == "clip":
    return load_clip(checkpoint, revision, dtype)
  raise RunError(f"{folder} holds a model of type {kind!r}; known are {', '.join(KINDS)}.")
