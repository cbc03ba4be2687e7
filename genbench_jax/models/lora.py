"""Fuse low-rank adaptations (LoRA) into a diffusion model's weights while they are read.

    W <- W + weight * alpha / rank * (up down)

Supports files of diffusers, PEFT and kohya's trainers, for the U-Net and both text encoders, with linear
layers and convolutions.

Reference:
  Hu et al., "LoRA: Low-rank adaptation of large language models", 2021 (arXiv 2106.09685).
"""

import functools
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from genbench_jax.errors import RunError, UsageError
from genbench_jax.models import checkpoints, hub
from genbench_jax.models.checkpoints import Weights
from genbench_jax.models.diffusion_parts import CheckpointParts
from genbench_jax.models.original_unet import unet_names
from genbench_jax.store.image_files import visible

# Trainers' names of the two factors and of the core of a factorized convolution.
FACTORS = {
  "lora_A": "down",
  "lora_B": "up",
  "lora_down": "down",
  "lora_up": "up",
  "lora_mid": "mid",
  "lora.down": "down",
  "lora.up": "up",
  "lora_linear_layer.down": "down",
  "lora_linear_layer.up": "up",
}
# PEFT may insert an adapter's name before `.weight`.
TENSOR = re.compile(rf"(.+)\.({'|'.join(map(re.escape, FACTORS))})(?:\.\w+)?\.weight$")
# Diffusers' oldest format: factors inside the attention processor.
PROCESSOR = re.compile(r"(.+)\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight$")
ALPHA = re.compile(r"(.+)\.(?:lora_)?alpha$")
# A file of a hub repository, with or without a revision.
HUB_FILE = re.compile(
  r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w.-]+))?/((?:\w[\w.-]*/)*\w[\w.-]*\.safetensors)"
)
# PEFT's own folders: the weights, and the configuration that states their alpha.
PEFT_FILES = ("adapter_model.safetensors", "adapter_config.json")
# Prefix -> part. Longer prefixes come first, since the first match wins.
DOTTED = {"text_encoder_2.": "text_encoder_2", "text_encoder.": "text_encoder", "unet.": "unet"}
KOHYA = {
  "lora_unet_": "unet",
  "lora_te1_": "text_encoder",
  "lora_te2_": "text_encoder_2",
  "lora_te_": "text_encoder",
}


class Change(NamedTuple):
  """The change that a LoRA file makes to one tensor.

  Attributes:
    file: its path, for messages.
    factors: `down`, `up` and optionally `mid` -> function that reads the factor.
    alpha: function that reads the scale's numerator; None if it equals the rank.
    weight: the user's weight of the LoRA.
  """

  file: Path
  factors: Mapping[str, Any]
  alpha: Any
  weight: float


def with_loras(
  parts: CheckpointParts, loras: Sequence[tuple[str | Path, float]]
) -> CheckpointParts:
  """Return a checkpoint whose weights are changed as they are read.

  Args:
    parts: the checkpoint.
    loras: (file or folder, weight) pairs; their changes add up.

  Raises:
    UsageError: a file does not exist, or a weight is not a finite number.
    RunError: a file is damaged, of another kind of adapter, or made for another model.
  """
  if not loras:
    return parts
  changes: dict[tuple[str, str], list[Change]] = {}
  names = _known_names(parts)
  digest = hashlib.sha256(parts.fingerprint.encode())
  for given, weight in loras:
    path = lora_file(given)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
      raise UsageError(f"{path}: the LoRA's weight is {weight!r}; expected a finite number.")
    for place, change in _changes(path, float(weight), names).items():
      changes.setdefault(place, []).append(change)
    digest.update(f"{checkpoints.file_digest(path)} {float(weight)!r}\n".encode())
    if beside := _peft_config(path):  # its alpha changes the images, too
      digest.update(json.dumps(beside, sort_keys=True).encode())
  weights = {part: _fused(part, own, changes) for part, own in parts.weights.items()}
  return parts._replace(weights=weights, fingerprint=digest.hexdigest())


def _fused(
  part: str, weights: Weights, changes: Mapping[tuple[str, str], Sequence[Change]]
) -> Weights:
  fused = dict(weights)
  for (place, module), module_changes in changes.items():
    if place == part:
      name = f"{module}.weight"
      fused[name] = functools.partial(_changed, weights[name], name, tuple(module_changes))
  return fused


def _changed(read: Any, name: str, changes: Sequence[Change]) -> Float32[np.ndarray, "..."]:
  """Return a tensor with all changes added, in float32: bfloat16 would round away small changes."""
  tensor = np.asarray(read(), np.float32)
  for change in changes:
    delta = _delta(change, name)
    if delta.size != tensor.size or delta.shape[:1] != tensor.shape[:1]:
      raise RunError(
        f"{change.file}: the change of {name} has shape {list(delta.shape)} but the tensor {list(tensor.shape)}: the LoRA is"
        " for another model."
      )
    tensor = tensor + delta.reshape(tensor.shape)
  return tensor


def _delta(change: Change, name: str) -> Float32[np.ndarray, "..."]:
  """Compute weight * alpha / rank * (up down); convolutions are contracted over the rank."""
  factors = {kind: np.asarray(read(), np.float32) for kind, read in change.factors.items()}
  down, up = factors["down"], factors["up"]
  rank = down.shape[0]
  matrices = up.reshape(up.shape[0], -1)
  if matrices.shape[1] != rank:
    raise RunError(
      f"{change.file}: the factors of {name} have incompatible shapes {down.shape} and {up.shape}."
    )
  if "mid" in factors:  # a convolution between two 1 x 1 convolutions (kohya's CP decomposition)
    inner = down.reshape(rank, -1)
    product = np.einsum("or,rshw,si->oihw", matrices, factors["mid"], inner, optimize=True)
  else:
    product = np.tensordot(matrices, down, axes=1)
  alpha = rank if change.alpha is None else float(np.asarray(change.alpha()))
  if not np.isfinite(product).all() or not math.isfinite(alpha):
    raise RunError(f"{change.file}: the change of {name} is not finite.")
  return change.weight * alpha / rank * product


def lora_file(given: str | Path) -> Path:
  """Return a LoRA's safetensors file, downloaded if necessary.

  Args:
    given: the file, a folder with one, a shipped one (`zoo/few_step`), or a file of a hub repository,
      `owner/name/FILE.safetensors` or `owner/name@REVISION/FILE.safetensors`.

  Raises:
    UsageError: there is no such file, or only a pickle.
  """
  if checkpoints.is_single_file(given):
    return Path(given).expanduser()
  if match := HUB_FILE.fullmatch(str(given)):
    return _hub_file(*match.groups())
  path = Path(given).expanduser()
  if checkpoints.is_shipped(str(given)):
    path = checkpoints.locate(str(given))
  found = visible(path, "*.safetensors") if path.is_dir() else []
  if len(found) == 1:
    return found[0]
  if path.is_file():
    raise UsageError(f"{path} is not a safetensors file, and pickles are never opened: convert it.")
  raise UsageError(
    f"LoRA {str(given)!r}: expected a .safetensors file, a folder with one, or owner/name/FILE.safetensors on the hub."
  )


def _hub_file(checkpoint: str, revision: str | None, name: str) -> Path:
  wanted = [name]
  if Path(name).name == PEFT_FILES[0]:
    wanted.append(str(Path(name).with_name(PEFT_FILES[1])))
  path = hub.download(checkpoint, revision, wanted) / name
  if not path.is_file():
    raise UsageError(f"the hub's {checkpoint} has no file {name!r}: check the LoRA's name.")
  return path


# ---- names in files and in the model ------------------------------------------------------------


def _known_names(parts: CheckpointParts) -> dict[str, dict[str, str]]:
  """Return part -> (every name that trainers give to a module -> our name)."""
  known: dict[str, dict[str, str]] = {}
  for part, weights in parts.weights.items():
    modules = [name.removesuffix(".weight") for name in weights if name.endswith(".weight")]
    known[part] = {module: module for module in modules}
    known[part] |= {module.replace(".", "_"): module for module in modules}
  if "unet" in known:
    # kohya's SDXL trainers use the names of the original code.
    original = unet_names(set(parts.weights["unet"]))
    for theirs, ours in original.items():
      if ours.endswith(".weight"):
        alias = theirs.removesuffix(".weight").replace(".", "_")
        known["unet"].setdefault(alias, ours.removesuffix(".weight"))
  return known


def _changes(
  path: Path, weight: float, known: Mapping[str, Mapping[str, str]]
) -> dict[tuple[str, str], Change]:
  """Return (part, module) -> its change.

  Raises:
    RunError: the file contains other tensors.
  """
  factors: dict[str, dict[str, Any]] = {}
  alphas: dict[str, Any] = {}
  strange = []
  for name, read in checkpoints.read_safetensors(path).items():
    if match := PROCESSOR.match(name):
      module = f"{match[1]}.{match[2]}" + (".0" if match[2] == "to_out" else "")
      factors.setdefault(module, {})[match[3]] = read
    elif match := TENSOR.match(name):
      factors.setdefault(match[1], {})[FACTORS[match[2]]] = read
    elif match := ALPHA.match(name):
      alphas[match[1]] = read
    else:
      strange.append(name)
  _refuse(path, "contains tensors of another kind of adapter than LoRA", strange)
  incomplete = [module for module, pair in factors.items() if not {"down", "up"} <= pair.keys()]
  _refuse(path, "lacks one of the two factors of", incomplete)
  if not factors:
    raise RunError(f"{path} contains no LoRA.")
  places = {module: _place(module, known) for module in factors}
  _refuse(path, "changes what the model does not have", [m for m, p in places.items() if p is None])
  stated = _alphas_of_notes(path)
  return {
    place: Change(path, factors[module], alphas.get(module, stated.get(place[0])), weight)
    for module, place in places.items()
    if place is not None
  }


def _place(module: str, known: Mapping[str, Mapping[str, str]]) -> tuple[str, str] | None:
  """Return the part and module that a file's name refers to; None if the model has none."""
  module = module.removeprefix("base_model.model.")
  for prefix, part in (KOHYA | DOTTED).items():
    if module.startswith(prefix):
      own = known.get(part, {}).get(module.removeprefix(prefix))
      return None if own is None else (part, own)
  own = known.get("unet", {}).get(module)  # PEFT's files for a U-Net alone have no prefix
  return None if own is None else ("unet", own)


def _peft_config(path: Path) -> dict[str, Any]:
  """Return the configuration beside a file that PEFT wrote; empty if there is none."""
  beside = path.with_name(PEFT_FILES[1])
  is_pefts = path.name == PEFT_FILES[0] and beside.is_file()
  return checkpoints.read_json(beside) if is_pefts else {}


def _alphas_of_notes(path: Path) -> dict[str, Any]:
  """Return part -> alpha, if diffusers wrote it into the file's metadata or PEFT beside the file."""
  notes = checkpoints.read_notes(path).get("lora_adapter_metadata")
  try:
    settings = json.loads(notes) if notes else {}
  except ValueError as error:
    raise RunError(f"{path}: the adapter's metadata is not valid JSON.") from error
  if not isinstance(settings, dict):
    raise RunError(f"{path}: the adapter's metadata is not a JSON object.")
  # PEFT's folder holds the adapter of one network, whichever it is.
  beside = _peft_config(path).items()
  settings |= {f"{part}.{key}": value for part in DOTTED.values() for key, value in beside}
  found = {}
  for part in DOTTED.values():
    if settings.get(f"{part}.use_dora") or settings.get(f"{part}.use_rslora"):
      raise RunError(f"{path} is a DoRA or a rank-stabilized LoRA, which are not supported.")
    if settings.get(f"{part}.alpha_pattern"):
      raise RunError(f"{path} scales layers differently (alpha_pattern), which is not supported.")
    alpha = settings.get(f"{part}.lora_alpha")
    if alpha is None:
      continue
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
      raise RunError(f"{path}: the adapter's lora_alpha is {alpha!r}, expected a number.")
    found[part] = functools.partial(float, alpha)
  return found


def _refuse(path: Path, problem: str, names: Sequence[str]) -> None:
  if names:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    raise RunError(f"{path} {problem}: {', '.join(sorted(names)[:5])}{more}.")
