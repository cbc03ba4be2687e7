"""Other programs that make images: any pipeline of PyTorch's diffusers, or a function of one's own.

A backend is a function `(prompts, negative_prompts, seeds, size) -> uint8 images [n, height, width, 3]`: one seed for each
image, and a size (height, width) in pixels, or None for the generator's own. The same prompt and seed should give the same image,
whatever else is in the batch; nothing here can check that.
"""

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8

from genbench_jax.errors import RunError, UsageError

Size: TypeAlias = tuple[int, int] | None
Images: TypeAlias = UInt8[np.ndarray, "n height width 3"]
Backend: TypeAlias = Callable[[Sequence[str], Sequence[str], Sequence[int], Size], Images]

DIFFUSERS = "diffusers"
# What any pipeline may need of a hub repository: configurations, tokenizers and safetensors, no code and no pickles.
DOWNLOADS = ("*.json", "*/*.json", "*/*.txt", "*/*.model", "*/*.safetensors")
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_function(backend: str) -> bool:
  """Whether a backend names a function, `module:function`."""
  return bool(FUNCTION.fullmatch(backend))


def check_backend(backend: str) -> None:
  """Refuse what names no backend.

  Raises:
    UsageError: it is neither empty, `diffusers` nor `module:function`.
  """
  if backend and backend != DIFFUSERS and not is_function(backend):
    raise UsageError(
      f"backend {backend!r}: wanted 'diffusers' for a PyTorch pipeline, or 'module:function' for a function of your own."
    )


def load_function(backend: str) -> Backend:
  """A function of the user's own, with its images checked.

  Raises:
    UsageError: there is no such module or function.
  """
  module_name, _, name = backend.partition(":")
  try:
    function = getattr(importlib.import_module(module_name), name)
  except (ImportError, AttributeError) as error:
    raise UsageError(f"backend {backend!r} can't be imported: {error}.") from error
  if not callable(function):
    raise UsageError(f"backend {backend!r} is no function.")
  return checked(function, backend)


def function_fingerprint(backend: str) -> str:
  """Stands for the function's name and the file that it is in; what that file imports, it does not see."""
  module = importlib.import_module(backend.partition(":")[0])
  source = Path(inspect.getfile(module)).read_bytes()
  return hashlib.sha256(backend.encode() + b"\0" + source).hexdigest()


def checked(function: Callable[..., Any], name: str) -> Backend:
  """The function, whose images are refused where they are not what they should be.

  Raises:
    RunError: when called: the images are not uint8 RGB, one for each prompt, in the size asked for.
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
        f"backend {name!r} gave {made.dtype} images of shape {list(made.shape)}, wanted uint8 {wanted}."
      )
    return made

  return images


# ---- PyTorch's diffusers ------------------------------------------------------------------------


def load_pipeline(
  checkpoint: str, steps: int, guidance_scale: float, dtype: str = "", device: str = ""
) -> Backend:
  """Any text-to-image pipeline of PyTorch's diffusers.

  Args:
    checkpoint: folder with a `model_index.json`.
    steps: sampler steps.
    guidance_scale: as the pipeline takes it.
    dtype: `float32`, `float16` or `bfloat16`; by default bfloat16 on a GPU and float32 on a CPU.
    device: such as `cuda`; by default the first GPU, where there is one.

  Raises:
    UsageError: torch or diffusers is not installed, or there is no such dtype.
    RunError: diffusers can't load the checkpoint.
  """
  try:
    import diffusers
    import torch
  except ImportError as error:
    raise UsageError(
      f"backend 'diffusers' needs torch and diffusers, installed by you: {error}."
    ) from error
  device = device or ("cuda" if torch.cuda.is_available() else "cpu")
  dtype = dtype or ("float32" if device == "cpu" else "bfloat16")
  if dtype not in ("float32", "float16", "bfloat16"):
    raise UsageError(f"dtype {dtype!r}: wanted float32, float16 or bfloat16.")
  try:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
      checkpoint, torch_dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
    )
  except (OSError, ValueError, TypeError, AttributeError, ImportError) as error:
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    raise RunError(f"diffusers can't load the pipeline {checkpoint!r}: {line}") from error
  pipeline.set_progress_bar_config(disable=True)
  return pipeline_backend(pipeline.to(device), steps, guidance_scale)


def pipeline_backend(pipeline: Any, steps: int, guidance_scale: float) -> Backend:
  """A pipeline that is loaded already.

  Each image has its own generator, on the CPU, so that it depends neither on its batch nor on the device.

  Args:
    pipeline: a `DiffusionPipeline`.
    steps: sampler steps.
    guidance_scale: as the pipeline takes it.
  """
  import torch

  takes = inspect.signature(pipeline.__call__).parameters

  def images(
    prompts: Sequence[str], negative_prompts: Sequence[str], seeds: Sequence[int], size: Size
  ) -> Images:
    generators = [torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds]
    given: dict[str, Any] = {"prompt": list(prompts), "num_inference_steps": steps}
    given |= {"guidance_scale": guidance_scale, "generator": generators, "output_type": "pil"}
    if size is not None:
      given |= {"height": size[0], "width": size[1]}
    if any(negative_prompts):
      given["negative_prompt"] = list(negative_prompts)
    unknown = [name for name in given if name not in takes]
    if unknown:
      raise UsageError(
        f"{type(pipeline).__name__} takes no {', '.join(unknown)}: leave it out, or wrap it in a function of your own."
      )
    with torch.inference_mode():
      made = pipeline(**given).images
    return np.stack([np.asarray(image.convert("RGB")) for image in made])

  return checked(images, type(pipeline).__name__)
