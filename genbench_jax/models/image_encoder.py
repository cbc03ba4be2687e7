"""Any model that embeds images, and the one registry of them.

An encoder is one file and one registration: a function that loads it, under the `model_type` of its configuration, or under a
name that users write before a colon (`inception:FILE.safetensors`).
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
from genbench_jax.models.clip import DOWNLOADS
from genbench_jax.models.image_input import ImageInput
from genbench_jax.models.weights import Params


@runtime_checkable
class ImageEncoder(Protocol):
  """What `ImageEmbedder` asks of a model.

  Attributes:
    params: its parameters, on the host, in the dtype of the computation.
    input: how it takes images.
    fingerprint: identity of the checkpoint; features are kept under it.
    width: of the features.
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
    """Image features, not normalized, of preprocessed pixels. Pure: made for `jax.jit`."""
    ...

  def __hash__(self) -> int: ...


@runtime_checkable
class TextEncoder(ImageEncoder, Protocol):
  """What a model has that embeds texts into the space of its images."""

  def embed_tokens(self, params: Params, tokens: Int32[Array, "b l"]) -> Float[Array, "b d"]:
    """Text features, not normalized, of token ids. Pure: made for `jax.jit`."""
    ...

  def tokenize(self, texts: Sequence[str]) -> Int32[np.ndarray, "n l"]:
    """Token ids of texts, all of one length."""
    ...


# (folder or file of the checkpoint, dtype or None) -> the encoder.
Loader: TypeAlias = Callable[[Path, Any], ImageEncoder]


@dataclasses.dataclass(frozen=True)
class Registration:
  """How a kind of encoder is had.

  Attributes:
    load: the function, or where it stands, as `module:function`, so that only what is used is imported.
    hub: folder or hub id that the bare name stands for; empty where the loader needs no checkpoint.
    downloads: patterns of the files that are needed of a hub id.
    needs_checkpoint: whether a bare name without `hub` is refused.
  """

  load: Loader | str
  hub: str = ""
  downloads: tuple[str, ...] = DOWNLOADS
  needs_checkpoint: bool = True

  def loader(self) -> Loader:
    """The function that loads the encoder."""
    if not isinstance(self.load, str):
      return self.load
    module, _, name = self.load.partition(":")
    return getattr(importlib.import_module(module), name)


# The hub holds a conversion of `pt_inception-2015-12-05` to safetensors under its own names, beside other networks.
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
  "siglip": Registration("genbench_jax.models.siglip:load_siglip"),
}


def register_encoder(kind: str, load: Loader, hub: str = "", needs_checkpoint: bool = True) -> None:
  """Add a kind of encoder.

  Args:
    kind: the `model_type` in its checkpoints' `config.json`, or the name that users write: `kind`, `kind:FOLDER`.
    load: called with the folder or file of the checkpoint and a dtype, or None for the default.
    hub: folder or hub id that the bare name stands for.
    needs_checkpoint: whether there is anything to load; if not, `load` gets an empty path for the bare name.

  Raises:
    UsageError: the kind is taken.
  """
  if kind in ENCODERS:
    raise UsageError(f"the encoder {kind!r} is registered already.")
  ENCODERS[kind] = Registration(load, hub, needs_checkpoint=needs_checkpoint)


def load_image_encoder(
  checkpoint: str | Path, revision: str | None = None, dtype: Any = None
) -> ImageEncoder:
  """Load an encoder from a folder or hub id, by the type that its configuration names, or by a name before a colon.

  Args:
    checkpoint: folder, hub id, `kind`, or `kind:FOLDER`, `kind:FILE` or `kind:owner/name`.
    revision: commit, tag or branch of a hub id.
    dtype: of parameters and computation; by default bfloat16 on accelerators and float32 on CPU.

  Raises:
    UsageError: there is no such checkpoint.
    RunError: the checkpoint is incomplete, corrupt or of another architecture.
  """
  place = named_place(str(checkpoint), revision)
  if place is not None:
    return ENCODERS[str(checkpoint).partition(":")[0]].loader()(place, dtype)
  folder = checkpoints.locate(str(checkpoint), revision, DOWNLOADS)
  found = checkpoints.read_json(folder / "config.json").get("model_type")
  if not isinstance(found, str) or found not in ENCODERS:
    raise RunError(f"{folder} holds a model of type {found!r}; known are {', '.join(ENCODERS)}.")
  return ENCODERS[found].loader()(folder, dtype)


def load_image_input(folder: Path) -> ImageInput:
  """How the DINOv2 or DINOv3 in a folder takes images, without its weights.

  Raises:
    RunError: its configuration is damaged.
  """
  if checkpoints.read_json(folder / "config.json").get("model_type") == "dinov3_vit":
    from genbench_jax.models.dinov3 import image_input
  else:
    from genbench_jax.models.dinov2 import image_input
  return image_input(folder)


def named_place(checkpoint: str, revision: str | None = None) -> Path | None:
  """Where a name before a colon leads: a folder, a file, or an empty path where there is nothing to load.

  None where the checkpoint is no such name but a folder or a hub id.

  Raises:
    UsageError: there is no such checkpoint.
  """
  kind, _, place = checkpoint.partition(":")
  if kind not in ENCODERS or Path(checkpoint).exists():
    return None
  return _place(kind, place, revision)


def _place(kind: str, place: str, revision: str | None) -> Path:
  """The folder or file that a name before a colon goes with."""
  registration = ENCODERS[kind]
  wanted = place or registration.hub
  if not wanted and not registration.needs_checkpoint:
    return Path()
  if not wanted:
    raise UsageError(f"the encoder {kind!r} needs a checkpoint: write {kind}:FOLDER.")
  path = Path(wanted).expanduser()
  return path if path.is_file() else checkpoints.locate(wanted, revision, registration.downloads)
