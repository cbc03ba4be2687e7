"""Checkpoints in the Hugging Face layout: where they stand, what tensors they hold, and which they are.

Neither torch nor pickle is used. `weights.load` makes parameters of what `read_weights` finds.
"""

import functools
import hashlib
import json
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import ml_dtypes  # noqa: F401  teaches NumPy, and so safetensors, the bfloat16 dtype
import numpy as np
from jaxtyping import Shaped

from genbench_jax.errors import RunError, UsageError
from genbench_jax.models.flax_names import VAE_ATTENTION, torch_state

Params: TypeAlias = dict[str, Any]
Tensor: TypeAlias = Shaped[np.ndarray, "..."]
Weights: TypeAlias = dict[str, Callable[[], Tensor]]

# The files that a folder's weights may stand in, best first.
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
# The largest vocabularies, in `tokenizer.json`, have about 40 MB.
LARGEST_TEXT = 1 << 28
# Hub ids that were withdrawn (huggingface/diffusers#12874), and who keeps the same files.
MIRRORS = {
  f"stabilityai/stable-diffusion-{name}": f"sd2-community/stable-diffusion-{name}"
  for name in ("2", "2-base", "2-1", "2-1-base")
}
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# The small trained checkpoints that ship with the package, named `zoo/clip` and so on.
ZOO = Path(__file__).parents[1] / "zoo" / "checkpoints"
# Files beside the weights that decide what a checkpoint computes: configurations and tokenizers.
IDENTITY = ("*.json", "merges.txt", "vocab.txt", "*.model", "*.npz")

# Buffers that older PyTorch versions stored: constants, not weights.
BUFFERS = re.compile(r"(^|\.)position_ids$")

# A text encoder saved by transformers 5 lacks the prefix that all published ones have.
BARE_TEXT = re.compile(
  r"embeddings\.(token|position)_embedding\.|encoder\.layers\.\d+\.(self_attn|layer_norm[12]|mlp)\.|final_layer_norm\."
)
OLD_VAE_ATTENTION = re.compile(r"(attentions\.\d+)\.(query|key|value|proj_attn)\.")


# ---- where a checkpoint stands ------------------------------------------------------------------


def is_shipped(checkpoint: str) -> bool:
  """Whether this is one of the checkpoints that ship with the package."""
  name = checkpoint.removeprefix("zoo/")
  return checkpoint != name and name in (folder.name for folder in ZOO.iterdir())


def locate(checkpoint: str, revision: str | None = None, patterns: Sequence[str] = ()) -> Path:
  """The local folder of a checkpoint: the given folder, or the download of a hub id.

  Args:
    checkpoint: `zoo/clip` or `zoo/diffusion`, a folder, or a hub id such as `openai/clip-vit-base-patch32`.
    revision: commit, tag or branch of a hub id.
    patterns: the files to download; only weights, configurations and tokenizers may be asked for.

  Raises:
    UsageError: there is no such folder and no such repository can be had.
  """
  if is_shipped(checkpoint):
    return ZOO / checkpoint.removeprefix("zoo/")
  folder = Path(checkpoint).expanduser()
  if folder.is_dir():
    return folder
  if not re.fullmatch(r"[\w.-]+/[\w.-]+", checkpoint) or folder.exists():
    raise UsageError(
      f"no checkpoint at {checkpoint!r}: give a folder in the Hugging Face layout, or a hub id `owner/name`."
    )
  from huggingface_hub import snapshot_download

  try:
    return Path(snapshot_download(checkpoint, revision=revision, allow_patterns=list(patterns)))
  except (OSError, ValueError) as error:  # no network, no such repository, no such revision
    at = f" at revision {revision!r}" if revision else ""
    if checkpoint in MIRRORS:
      raise UsageError(
        f"checkpoint {checkpoint!r} was withdrawn from the hub in November 2025; its maintained mirror is"
        f" {MIRRORS[checkpoint]!r}, with revisions of its own."
      ) from error
    raise UsageError(
      f"checkpoint {checkpoint!r}{at} is neither a local folder nor to be had from the hub"
      f" ({type(error).__name__}). Offline? Give the path of a downloaded folder."
    ) from error


def read_text(path: Path) -> str:
  """The text of a file of a checkpoint.

  Raises:
    RunError: it is missing, no regular file (a pipe would be waited for), too large, or no UTF-8.
  """
  try:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
      raise RunError(f"{path} is no regular file.")
    if status.st_size > LARGEST_TEXT:
      raise RunError(f"{path} has {status.st_size} bytes; at most {LARGEST_TEXT} are read.")
    return path.read_text(encoding="utf-8")
  except FileNotFoundError as error:
    raise RunError(f"{path} is missing from the checkpoint.") from error
  except (OSError, ValueError) as error:
    raise RunError(f"{path} is not readable: {error}.") from error


def read_json(path: Path) -> dict[str, Any]:
  """A JSON object from a file.

  Raises:
    RunError: the file is missing, or holds no JSON object.
  """
  try:
    value = json.loads(read_text(path))
  except (ValueError, RecursionError) as error:
    raise RunError(f"{path} is not readable as JSON: {error}.") from error
  if not isinstance(value, dict):
    raise RunError(f"{path} holds no JSON object.")
  return value


def weight_files(folder: Path) -> list[Path]:
  """The files that hold the weights of one model: one, or the shards that an index names.

  Raises:
    RunError: there are none, only pickles, or a shard is missing.
  """
  for name in WEIGHT_FILES:
    if (folder / name).is_file():
      return _shards(folder / name) if name.endswith(".json") else [folder / name]
  pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
  if pickles:
    raise RunError(
      f"{folder} has its weights only as pickles ({pickles[0]}), which are never opened: pickles can run code."
      " Convert them to safetensors."
    )
  raise RunError(f"{folder} has no weights: looked for {', '.join(WEIGHT_FILES)}.")


def _shards(index: Path) -> list[Path]:
  names = read_json(index).get("weight_map")
  if not isinstance(names, dict):
    raise RunError(f"{index} has no `weight_map` from tensors to files.")
  shards = sorted({index.parent / Path(str(name)).name for name in names.values()})
  missing = [shard.name for shard in shards if not shard.is_file()]
  if missing or not shards:
    raise RunError(f"{index} names shards that are missing: {', '.join(missing) or 'none named'}.")
  return shards


# ---- reading ------------------------------------------------------------------------------------


def read_weights(folder: Path) -> Weights:
  """Name -> function that reads the tensor, for every tensor of the model in `folder`, PyTorch names.

  Raises:
    RunError: the weights are missing or a file is corrupt; the message names it.
  """
  weights: Weights = {}
  for path in weight_files(folder):
    weights.update(_read_msgpack(path) if path.suffix == ".msgpack" else read_safetensors(path))
  return {_today(name): read for name, read in weights.items() if not BUFFERS.search(name)}


def read_safetensors(path: Path) -> Weights:
  """Name -> function that reads the tensor, for every tensor of a file.

  Raises:
    RunError: the file is corrupt.
  """
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(path, framework="numpy") as file:
      names = list(file.keys())
  except (SafetensorError, OSError) as error:
    raise RunError(f"{path} is corrupt or cut short ({error}). Download it again.") from error
  return {name: functools.partial(_read_tensor, path, name) for name in names}


def _read_tensor(path: Path, name: str) -> Tensor:
  """One tensor. The file is opened for it alone: pages of a file that stays mapped count as memory of the process."""
  from safetensors import safe_open

  with safe_open(path, framework="numpy") as file:
    return file.get_tensor(name)


def read_notes(path: Path) -> dict[str, str]:
  """The notes at the head of a safetensors file.

  Raises:
    RunError: the file is corrupt.
  """
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(path, framework="numpy") as file:
      return file.metadata() or {}
  except (SafetensorError, OSError) as error:
    raise RunError(f"{path} is corrupt or cut short ({error}). Download it again.") from error


def file_digest(path: Path) -> str:
  """SHA-256 of a file's content."""
  status = path.stat()
  return _sha256(path, status.st_size, status.st_mtime_ns)


def _read_msgpack(path: Path) -> Weights:
  from flax.serialization import msgpack_restore

  try:
    tree = msgpack_restore(path.read_bytes())
    state = torch_state(tree)
  except Exception as error:  # msgpack has a dozen ways to say that bytes are not msgpack
    raise RunError(
      f"{path} is corrupt or cut short ({type(error).__name__}). Download it again."
    ) from error
  return {name: functools.partial(np.asarray, tensor) for name, tensor in state.items()}


def _today(name: str) -> str:
  """The published name of a tensor that files of another age call otherwise."""
  name = f"text_model.{name}" if BARE_TEXT.match(name) else name
  return OLD_VAE_ATTENTION.sub(lambda match: f"{match[1]}.{VAE_ATTENTION[match[2]]}.", name)


# ---- identity -----------------------------------------------------------------------------------


def fingerprint(folder: Path) -> str:
  """SHA-256 over the configuration, tokenizer and weight files of a model or pipeline folder, and of its parts.

  The same weights in another file format count as another checkpoint; names of folders don't count. Of a file, which some
  encoders are, it is the file's own.
  """
  if folder.is_file():
    status = folder.stat()
    return _sha256(folder, status.st_size, status.st_mtime_ns)
  digest = hashlib.sha256()
  for part in [folder, *(path for path in sorted(folder.iterdir()) if _is_part(path))]:
    for path in _identity_files(part):
      status = path.stat()
      name = path.relative_to(folder).as_posix()
      digest.update(f"{name}\0{_sha256(path, status.st_size, status.st_mtime_ns)}\n".encode())
  return digest.hexdigest()


def _is_part(path: Path) -> bool:
  """Whether a folder inside a checkpoint belongs to it; hidden ones are caches."""
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
def _sha256(path: Path, size: int, modified: int) -> str:
  """Digest of a file; size and time of modification are there to make the cache notice changes."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
