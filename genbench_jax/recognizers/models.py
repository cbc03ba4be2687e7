"""Files of trained recognizers: safetensors with the metadata needed to use them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from genbench_jax.errors import RunError
from genbench_jax.store.files import FORMAT, atomic_path, check_format
from genbench_jax.store.reading import regular


def save_model(path: Path, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
  """Write arrays, with `about` as JSON in the metadata; atomic.

  Args:
    path: file to write.
    arrays: arrays by name.
    about: JSON object about them.
  """
  from safetensors.numpy import save_file

  contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
  with atomic_path(path) as temporary:
    save_file(contiguous, temporary, metadata={"about": json.dumps({**about, "format": FORMAT})})


def load_model(path: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Read the arrays and the metadata.

  Raises:
    RunError: the file is missing or damaged, has a newer format, or is not a model of this kind.
  """
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(regular(path), framework="numpy") as file:
      about = json.loads((file.metadata() or {}).get("about", "{}"))
      arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except (OSError, SafetensorError, ValueError) as error:
    raise RunError(f"the model in {path} can't be read: {error}") from error
  if not isinstance(about, dict) or about.get("kind") != kind:
    raise RunError(f"{path} is not a {kind} file.")
  check_format(path, about.pop("format", FORMAT))  # files of the first versions have no format
  return arrays, about


def save_probe(path: Path, probe: dict[str, Any], normalize: bool, multi_label: bool) -> None:
  """Write a linear probe as returned by `linear_probe`.

  Args:
    path: path of the file.
    probe: result of `linear_probe`.
    normalize: whether the probe takes unit-norm features (False for reference).
    multi_label: whether its scores are independent probabilities.
  """
  arrays = {"weights": probe["weights"], "bias": probe["bias"]}
  settings = {key: probe[key] for key in ("lr", "weight_decay")}
  about = {"kind": "linear_probe", "normalize": normalize, "multi_label": multi_label, **settings}
  save_model(path, arrays, about)


def load_probe_scores(path: Path, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
  """Compute the class probabilities of a saved probe.

  Raises:
    RunError: the file cannot be read, is not a probe, or its probe takes features of another width.
  """
  import jax.numpy as jnp

  from genbench_jax.metrics.inputs import unit_rows
  from genbench_jax.recognizers.linear_probe import probe_scores

  arrays, about = load_model(path, "linear_probe")
  if set(arrays) != {"weights", "bias"} or arrays["weights"].shape[1:] != features.shape[1:]:
    raise RunError(f"the probe in {path} does not take features of shape {features.shape}.")
  inputs = jnp.asarray(features, jnp.float32)
  inputs = unit_rows(inputs) if about["normalize"] else inputs
  return np.asarray(probe_scores(inputs, arrays["weights"], arrays["bias"], about["multi_label"]))
