"""Locate, read and fingerprint checkpoints in the Hugging Face layout, without torch and without pickle.

`weights.load` makes parameters from the result of `read_weights`.
"""

import functools
import hashlib
import json
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import ml_dtypes  # noqa: F401  teaches NumPy, and so safetensors, the bfloat16 dtype
import numpy as np
from jaxtyping import Shaped

from genbench_jax.errors import RunError, UsageError
from genbench_jax.models import hub
from genbench_jax.models.flax_names import VAE_ATTENTION, torch_state
from genbench_jax.store.digests import identity
from genbench_jax.store.reading import regular

Params: TypeAlias = dict[str, Any]
Tensor: TypeAlias = Shaped[np.ndarray, "..."]
Weights: TypeAlias = dict[str, Callable[[], Tensor]]

# Weight files by priority: the first that exists is read.
WEIGHT_FILES = (
  "diffusion_pytorch_model.safetensors",
  "model.safetensors",
  "diffusion_pytorch_model.safetensors.index.json",
  "model.safetensors.index.json",
  "diffusion_pytorch_model.fp16.safetensors",
  "model.fp16.safetensors",
  "diffusion_pytorch_model.safetensors.index.fp16.json",
  "model.safetensors.index.fp16.json",
  "diffusion_flax_model.msgpack",
  "flax_model.msgpack",
)
# The largest published `tokenizer.json` files have about 40 MB; this is 256 MiB.
LARGEST_TEXT = 1 << 28
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# The small trained checkpoints that ship with the package, named `zoo/clip` etc.
ZOO = Path(__file__).parents[1] / "zoo" / "checkpoints"
# Files other than `WEIGHT_FILES` that affect what a checkpoint computes: configurations, tokenizers, and weights in
# the formats of big_vision and OpenCLIP.
IDENTITY = ("*.json", "merges.txt", "vocab.txt", "*.model", "*.npz", "open_clip_model.safetensors")

# Constant buffers that older PyTorch versions saved with the weights.
BUFFERS = re.compile(r"(^|\.)position_ids$")

# A text encoder saved by transformers 5 lacks the prefix `text_model.` of all published checkpoints.
BARE_TEXT = re.compile(
  r"embeddings\.(token|position)_embedding\.|encoder\.layers\.\d+\.(self_attn|layer_norm[12]|mlp)\.|final_layer_norm\."
)
OLD_VAE_ATTENTION = re.compile(r"(attentions\.\d+)\.(query|key|value|proj_attn)\.")


# ---- location -----------------------------------------------------------------------------------


def is_shipped(checkpoint: str) -> bool:
  """Return whether `checkpoint` ships with the package."""
  name = checkpoint.removeprefix("zoo/")
  return checkpoint != name and name in (folder.name for folder in ZOO.iterdir())


def is_single_file(checkpoint: str | Path) -> bool:
  """Return whether this is a checkpoint in one file, and not a folder or a hub id."""
  path = Path(checkpoint).expanduser()
  return path.suffix == ".safetensors" and path.is_file()


def locate(checkpoint: str, revision: str | None = None, patterns: Sequence[str] = ()) -> Path:
  """Return the local folder of a checkpoint; download it if it is a hub id.

  Args:
    checkpoint: `zoo/clip` or `zoo/diffusion`, a folder, or a hub id such as `openai/clip-vit-base-patch32`.
    revision: commit, tag or branch of a hub id.
    patterns: files to download; callers list only weights, configurations and tokenizers.

  Raises:
    UsageError: the folder does not exist and the hub has no such repository.
    RunError: a file of the checkpoint is a broken link.
  """
  if is_shipped(checkpoint):
    return ZOO / checkpoint.removeprefix("zoo/")
  folder = Path(checkpoint).expanduser()
  if folder.is_dir():
    return _without_broken_files(folder)
  if not hub.HUB_ID.fullmatch(checkpoint) or folder.exists():
    raise UsageError(
      f"no checkpoint at {checkpoint!r}: give a folder in the Hugging Face layout, or a hub id `owner/name`."
    )
  return _without_broken_files(hub.download(checkpoint, revision, patterns))


def _without_broken_files(folder: Path) -> Path:
  """Return a checkpoint's folder after a look at its configurations and tokenizers.

  A link to a file that was not downloaded would count as a missing file, and a default would silently take its
  place.

  Raises:
    RunError: a file is a broken link, or not a regular file.
  """
  for part in (folder, *filter(_is_part, folder.iterdir())):
    for path in (path for pattern in IDENTITY for path in part.glob(pattern)):
      if not path.is_file() and not path.is_dir() and not path.name.startswith("."):
        raise RunError(
          f"{path} is a broken link or not a regular file: download the checkpoint again."
        )
  return folder


def read_text(path: Path) -> str:
  """Return the text of a checkpoint's file.

  Raises:
    RunError: the file is missing, too large, not UTF-8, or not a regular file (reading a pipe would block).
  """
  try:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
      raise RunError(f"{path} is not a regular file.")
    if status.st_size > LARGEST_TEXT:
      raise RunError(f"{path} has {status.st_size} bytes; the limit is {LARGEST_TEXT}.")
    return path.read_text(encoding="utf-8")
  except FileNotFoundError as error:
    raise RunError(f"{path} is missing from the checkpoint.") from error
  except (OSError, ValueError) as error:
    raise RunError(f"{path} can't be read: {error}.") from error


def read_json(path: Path) -> dict[str, Any]:
  """Return the JSON object in a file.

  Raises:
    RunError: the file is missing or does not contain a JSON object.
  """
  try:
    value = json.loads(read_text(path))
  except (ValueError, RecursionError) as error:
    raise RunError(f"{path} is not valid JSON: {error}.") from error
  if not isinstance(value, dict):
    raise RunError(f"{path} does not contain a JSON object.")
  return value


def weight_files(folder: Path) -> list[Path]:
  """Return the files with a model's weights: a single file, or the shards listed by an index.

  Raises:
    RunError: there are no weights, only pickles, or a shard is missing.
  """
  for name in WEIGHT_FILES:
    if (folder / name).is_file():
      return _shards(folder / name) if name.endswith(".json") else [folder / name]
  pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
  if pickles:
    raise RunError(
      f"{folder} has weights only as pickles ({pickles[0]}), which are never opened because they can run code."
      " Convert them to safetensors."
    )
  raise RunError(f"{folder} has no weights; expected one of {', '.join(WEIGHT_FILES)}.")


def _shards(index: Path) -> list[Path]:
  names = read_json(index).get("weight_map")
  if not isinstance(names, dict):
    raise RunError(f"{index} has no `weight_map` that maps tensors to files.")
  shards = sorted({index.parent / Path(str(name)).name for name in names.values()})
  missing = [shard.name for shard in shards if not shard.is_file()]
  if missing or not shards:
    raise RunError(f"{index} names shards that are missing: {', '.join(missing) or 'none named'}.")
  return shards


# ---- reading ------------------------------------------------------------------------------------


def read_weights(folder: Path) -> Weights:
  """Return a map from PyTorch tensor names to functions that read the tensor, for a model's folder.

  Raises:
    RunError: the weights are missing or a file is corrupt.
  """
  weights: Weights = {}
  for path in weight_files(folder):
    weights.update(_read_msgpack(path) if path.suffix == ".msgpack" else read_safetensors(path))
  return {_today(name): read for name, read in weights.items() if not BUFFERS.search(name)}


def read_safetensors(path: Path) -> Weights:
  """Return a map from tensor names to functions that read the tensor, for a safetensors file.

  Raises:
    RunError: the file is corrupt.
  """
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(regular(path), framework="numpy") as file:
      names = list(file.keys())
  except (SafetensorError, OSError) as error:
    raise RunError(f"{path} is corrupt or cut short ({error}). Download it again.") from error
  return {name: functools.partial(_read_tensor, path, name) for name in names}


def _read_tensor(path: Path, name: str) -> Tensor:
  """Read one tensor. The file is opened for each: pages of a mapped file count as the process's memory."""
  from safetensors import safe_open

  with safe_open(path, framework="numpy") as file:
    return file.get_tensor(name)


def under(weights: Weights, prefix: str) -> Weights:
  """Return the tensors whose names have a prefix, without it."""
  return {
    name.removeprefix(prefix): read for name, read in weights.items() if name.startswith(prefix)
  }


def tensor_shape(weights: Weights, name: str) -> tuple[int, ...]:
  """Return the shape of a tensor.

  Raises:
    RunError: there is no such tensor.
  """
  try:
    return tuple(np.shape(weights[name]()))
  except KeyError as error:
    raise RunError(f"the checkpoint lacks {name}.") from error


def numbered(names: Iterable[str], pattern: str) -> int:
  """Return how many numbers, from 0, a pattern finds at the start of tensor names, such as layers."""
  return 1 + max(
    (int(match[1]) for name in names if (match := re.match(pattern, name))), default=-1
  )


def read_notes(path: Path) -> dict[str, str]:
  """Return the metadata of a safetensors file.

  Raises:
    RunError: the file is corrupt.
  """
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(regular(path), framework="numpy") as file:
      return file.metadata() or {}
  except (SafetensorError, OSError) as error:
    raise RunError(f"{path} is corrupt or cut short ({error}). Download it again.") from error


def file_states(checkpoint: str | Path) -> tuple[tuple[str, tuple[int, ...]], ...]:
  """Return each file of a local checkpoint with the metadata that change with its content; none for a hub id.

  Nothing is read, so that a model in memory can be compared with its files at every use.
  """
  place = Path(checkpoint).expanduser()
  if place.is_dir():
    parts = [place, *sorted(filter(_is_part, place.iterdir()))]
    paths = [path for part in parts for path in sorted(part.iterdir())]
  else:
    paths = [place]
  return tuple((str(path), identity(path.stat())) for path in paths if path.is_file())


def file_digest(path: Path) -> str:
  """Return the SHA-256 of a file's content."""
  return _sha256(path, identity(path.stat()))


def _read_msgpack(path: Path) -> Weights:
  from flax.serialization import msgpack_restore

  try:
    tree = msgpack_restore(path.read_bytes())
    state = torch_state(tree)
  except Exception as error:  # msgpack raises many types for bytes that are not msgpack
    raise RunError(
      f"{path} is corrupt or cut short ({type(error).__name__}). Download it again."
    ) from error
  return {name: functools.partial(np.asarray, tensor) for name, tensor in state.items()}


def _today(name: str) -> str:
  """Return the current name of a tensor that older or newer files name differently."""
  name = f"text_model.{name}" if BARE_TEXT.match(name) else name
  return OLD_VAE_ATTENTION.sub(lambda match: f"{match[1]}.{VAE_ATTENTION[match[2]]}.", name)


# ---- identity -----------------------------------------------------------------------------------


def fingerprint(folder: Path) -> str:
  """Return the SHA-256 over all configuration, tokenizer and weight files of a model or pipeline.

  Another file format of the same weights counts as another checkpoint; the folder's name does not
  matter. For a checkpoint that is a single file, as for some encoders, it is the file's SHA-256.
  """
  if folder.is_file():
    return file_digest(folder)
  digest = hashlib.sha256()
  for part in [folder, *(path for path in sorted(folder.iterdir()) if _is_part(path))]:
    for path in _identity_files(part):
      name = path.relative_to(folder).as_posix()
      digest.update(f"{name}\0{file_digest(path)}\n".encode())
  return digest.hexdigest()


def _is_part(path: Path) -> bool:
  """Return whether a subfolder belongs to the checkpoint; hidden folders are caches."""
  return path.is_dir() and not path.name.startswith(".")


def _identity_files(folder: Path) -> list[Path]:
  texts = [
    path
    for pattern in IDENTITY
    for path in folder.glob(pattern)
    if path.is_file() and not path.name.startswith(".")
  ]
  has_weights = any((folder / name).is_file() for name in WEIGHT_FILES)
  return sorted([*texts, *(weight_files(folder) if has_weights else [])])


@functools.lru_cache(maxsize=1024)
def _sha256(path: Path, unchanged: tuple[int, ...]) -> str:
  """Return a file's digest. Its metadata are part of the cache key, to notice changes."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
