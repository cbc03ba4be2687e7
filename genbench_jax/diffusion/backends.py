"""Image generators outside this package: any pipeline of Diffusers (PyTorch), or a user function.

A backend is a function `(prompts, negative_prompts, seeds, size) -> uint8 images [n, height, width,
3]`, with one seed per image and a size (height, width) in pixels, or None for the generator's own.
The same prompt and seed should give the same image whatever else is in the batch; this cannot be
checked here.
"""

import functools
import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8

from genbench_jax.errors import RunError, UsageError
from genbench_jax.models import torch_pipelines

Size: TypeAlias = tuple[int, int] | None
Images: TypeAlias = UInt8[np.ndarray, "n height width 3"]
Backend: TypeAlias = Callable[[Sequence[str], Sequence[str], Sequence[int], Size], Images]

DIFFUSERS = "diffusers"
# Files of a hub repository that a pipeline may need: configurations, tokenizers and safetensors; no
# code, no pickles.
DOWNLOADS = ("*.json", "*/*.json", "*/*.txt", "*/*.model", "*/*.safetensors")
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_function(backend: str) -> bool:
  """Return whether a backend names a function, `module:function`."""
  return bool(FUNCTION.fullmatch(backend))


def check_backend(backend: str) -> None:
  """Reject a string that does not name a backend.

  Raises:
    UsageError: it is not empty, `diffusers` or `module:function`.
  """
  if backend and backend != DIFFUSERS and not is_function(backend):
    raise UsageError(
      f"backend {backend!r}: expected 'diffusers' for a PyTorch pipeline, or 'module:function' for a function of your own."
    )


def load_function(backend: str) -> Backend:
  """Import a user function and add checks of its images.

  Raises:
    UsageError: the module or function does not exist, or is not callable.
  """
  function = getattr(_module(backend), backend.partition(":")[2], None)
  if not callable(function):
    raise UsageError(f"backend {backend!r} is not a function of that module.")
  return checked(function, backend)


def function_fingerprint(backend: str) -> str:
  """Return a digest of the function's name and source file, without the file's imports.

  Raises:
    UsageError: the module does not exist.
  """
  source = Path(inspect.getfile(_module(backend))).read_bytes()
  return hashlib.sha256(backend.encode() + b"\0" + source).hexdigest()


def _module(backend: str) -> ModuleType:
  try:
    return importlib.import_module(backend.partition(":")[0])
  except ImportError as error:
    raise UsageError(f"backend {backend!r} can't be imported: {error}.") from error


def checked(function: Callable[..., Any], name: str) -> Backend:
  """Wrap a function so that wrong images are rejected.

  Raises:
    RunError: when called, if the images are not uint8 RGB, one per prompt, in the requested size.
  """

  def images(
    prompts: Sequence[str], negative_prompts: Sequence[str], seeds: Sequence[int], size: Size
  ) -> Images:
    made = np.asarray(function(list(prompts), list(negative_prompts), list(seeds), size))
    right = made.ndim == 4 and made.shape[0] == len(prompts) and made.shape[3] == 3
    if not right or made.dtype != np.uint8 or (size is not None and made.shape[1:3] != size):
      wanted = (
        f"[{len(prompts)}, {'height, width' if size is None else f'{size[0]}, {size[1]}'}, 3]"
      )
      raise RunError(
        f"backend {name!r} returned {made.dtype} images of shape {list(made.shape)}, expected uint8 {wanted}."
      )
    return made

  return images


# ---- PyTorch's diffusers ------------------------------------------------------------------------


def load_pipeline(
  checkpoint: str, steps: int, guidance_scale: float, dtype: str = "", device: str = ""
) -> Backend:
  """Load any text-to-image pipeline of Diffusers (PyTorch).

  Args:
    checkpoint: folder or hub id.
    steps: number of sampler steps.
    guidance_scale: scale of classifier-free guidance.
    dtype, device: see `torch_pipelines.load`.

  Raises:
    UsageError: torch or diffusers is not installed, or the dtype is unknown.
    RunError: diffusers cannot load the checkpoint.
  """
  pipeline = torch_pipelines.load(checkpoint, dtype, device)
  made = functools.partial(torch_pipelines.images, pipeline, steps, guidance_scale)
  return checked(made, type(pipeline).__name__)
