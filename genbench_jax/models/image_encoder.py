"""Models that embed images, and their registry.

To add an encoder, write a function that loads it and register it, under the `model_type` of its
configuration or under a name that users write before a colon (`inception:FILE.safetensors`).
"""

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int32

from genbench_jax.errors import RunError, UsageError
from genbench_jax.models import checkpoints
from genbench_jax.models.clip import DOWNLOADS, OPEN_CLIP_CONFIG, OPEN_CLIP_DOWNLOADS
from genbench_jax.models.image_input import ImageInput
from genbench_jax.models.weights import Params


@runtime_checkable
class ImageEncoder(Protocol):
  """Interface that `ImageEmbedder` needs.

  Attributes:
    params: parameters, on the host, in the dtype of the computation.
    input: image preprocessing.
    fingerprint: digest of the checkpoint; embedding sets are stored under it.
    width: width of the features.
  """

  @property
  def params(self) -> Params: ...
  @property
  def input(self) -> ImageInput: ...
  @property
  def fingerprint(self) -> str: ...
  @property
  def width(self) -> int: ...

  def embed_pixels(self, params: Params, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
    """Compute unnormalized image features of preprocessed pixels. Pure, for `jax.jit`."""
    ...

  def __hash__(self) -> int: ...


@runtime_checkable
class TextEncoder(ImageEncoder, Protocol):
  """An image encoder that also embeds texts in the same space, as the main encoder of a run must.

  Attributes:
    logit_scale: factor of the cosines before a softmax over classes.
  """

  @property
  def logit_scale(self) -> float: ...

  def embed_tokens(self, params: Params, tokens: Int32[Array, "b l"]) -> Float[Array, "b d"]:
    """Compute unnormalized text features of token ids. Pure, for `jax.jit`."""
    ...

  def tokenize(self, texts: Sequence[str]) -> Int32[np.ndarray, "n l"]:
    """Return token ids of texts, all of the same length."""
    ...


# Loads an encoder from (folder or file of the checkpoint, dtype or None).
Loader: TypeAlias = Callable[[Path, Any], ImageEncoder]


@dataclasses.dataclass(frozen=True)
class Registration:
  """How to load a kind of encoder.

  Attributes:
    load: the loader, or its location `module:function`, so that only used encoders are imported.
    hub: default folder or hub id, for a name without a place; empty if there is none.
    downloads: patterns of the files to download from a hub id.
    needs_checkpoint: whether a name without a place is rejected if `hub` is empty.
  """

  load: Loader | str
  hub: str = ""
  downloads: tuple[str, ...] = DOWNLOADS
  needs_checkpoint: bool = True

  def loader(self) -> Loader:
    """Return the loader, imported if necessary."""
    if not isinstance(self.load, str):
      return self.load
    module, _, name = self.load.partition(":")
    return getattr(importlib.import_module(module), name)


# A hub repository with `pt_inception-2015-12-05` converted to safetensors, among other networks.
INCEPTION = (
  "genbench_jax.models.inception:load_inception",
  "achiru/DiffSynth-Studio-ImageMetrics",
  ("FID/model.safetensors",),
)
ENCODERS: dict[str, Registration] = {
  "clip": Registration("genbench_jax.models.clip:load_clip_folder"),
  "dinov2": Registration("genbench_jax.models.dinov2:load_dinov2"),
  "dinov2_with_registers": Registration("genbench_jax.models.dinov2:load_dinov2"),
  "dinov3_vit": Registration("genbench_jax.models.dinov3:load_dinov3"),
  "inception": Registration(*INCEPTION),
  "openclip": Registration(
    "genbench_jax.models.open_clip:load_open_clip", downloads=OPEN_CLIP_DOWNLOADS
  ),
  "siglip": Registration("genbench_jax.models.siglip:load_siglip"),
}


def register_encoder(kind: str, load: Loader, hub: str = "", needs_checkpoint: bool = True) -> None:
  """Register a kind of encoder.

  Args:
    kind: the `model_type` of its checkpoints' `config.json`, or a name for users: `kind`, `kind:FOLDER`.
    load: called with the checkpoint's folder or file and a dtype, or None for the default dtype.
    hub: default folder or hub id for the name alone.
    needs_checkpoint: whether there is anything to load; if not, `load` gets an empty path for the bare name.

  Raises:
    UsageError: the kind is already registered.
  """
  if kind in ENCODERS:
    raise UsageError(f"the encoder {kind!r} is already registered.")
  ENCODERS[kind] = Registration(load, hub, needs_checkpoint=needs_checkpoint)


def load_image_encoder(
  checkpoint: str | Path, revision: str | None = None, dtype: Any = None
) -> ImageEncoder:
  """Load an encoder: from a folder or hub id, by its configuration's `model_type`, or by `kind:PLACE`.

  Args:
    checkpoint: folder, hub id, `kind`, or `kind:FOLDER`, `kind:FILE` or `kind:owner/name`.
    revision: commit, tag or branch of a hub id.
    dtype: dtype of parameters and computation; by default bfloat16 on accelerators and float32 on CPU.

  Raises:
    UsageError: there is no such checkpoint.
    RunError: the checkpoint is incomplete, corrupt or of another architecture.
  """
  kind, place = kind_and_place(str(checkpoint), revision)
  return ENCODERS[kind].loader()(place, dtype)


def kind_and_place(checkpoint: str, revision: str | None = None) -> tuple[str, Path]:
  """Return the kind of an encoder and the path of its checkpoint, without loading it.

  Raises:
    UsageError: there is no such checkpoint.
    RunError: its configuration is damaged or has an unknown model type.
  """
  place = named_place(checkpoint, revision)
  if place is not None:
    return checkpoint.partition(":")[0], place
  folder = checkpoints.locate(checkpoint, revision, DOWNLOADS)
  if not (folder / "config.json").is_file() and (folder / OPEN_CLIP_CONFIG).is_file():
    return "openclip", folder
  found = checkpoints.read_json(folder / "config.json").get("model_type")
  if not isinstance(found, str) or found not in ENCODERS:
    raise RunError(f"{folder} contains a model of type {found!r}; known are {', '.join(ENCODERS)}.")
  return found, folder


def load_text_encoder(checkpoint: str | Path, revision: str | None = None) -> TextEncoder:
  """Load an encoder of images and texts: a CLIP, a SigLIP, or a registered one that embeds both.

  Raises:
    UsageError: there is no such checkpoint.
    RunError: it embeds images only, or is incomplete, corrupt or of another architecture.
  """
  return with_texts(load_image_encoder(checkpoint, revision), checkpoint)


def with_texts(encoder: ImageEncoder, checkpoint: str | Path) -> TextEncoder:
  """Return the encoder if it also embeds texts.

  Raises:
    RunError: it embeds images only.
  """
  if not isinstance(encoder, TextEncoder):
    raise RunError(f"{checkpoint} embeds images only: texts need a CLIP or a SigLIP.")
  return encoder


def load_image_input(folder: Path) -> ImageInput:
  """Return the image preprocessing of the DINOv2 or DINOv3 in a folder, without reading its weights.

  Raises:
    RunError: the configuration is damaged.
  """
  if checkpoints.read_json(folder / "config.json").get("model_type") == "dinov3_vit":
    from genbench_jax.models.dinov3 import image_input
  else:
    from genbench_jax.models.dinov2 import image_input
  return image_input(folder)


def named_place(checkpoint: str, revision: str | None = None) -> Path | None:
  """Return the folder or file that `kind` or `kind:PLACE` refers to; None for a folder or hub id.

  The path is empty for an encoder without a checkpoint.

  Raises:
    UsageError: there is no such checkpoint.
  """
  kind, _, place = checkpoint.partition(":")
  if kind not in ENCODERS or Path(checkpoint).exists():
    return None
  return _place(kind, place, revision)


def _place(kind: str, place: str, revision: str | None) -> Path:
  """Return the folder or file of `kind:place`."""
  registration = ENCODERS[kind]
  wanted = place or registration.hub
  if not wanted and not registration.needs_checkpoint:
    return Path()
  if not wanted:
    raise UsageError(f"the encoder {kind!r} needs a checkpoint: write {kind}:FOLDER.")
  path = Path(wanted).expanduser()
  return path if path.is_file() else checkpoints.locate(wanted, revision, registration.downloads)
