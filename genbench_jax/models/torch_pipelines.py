"""Run text-to-image pipelines of PyTorch's diffusers, if the user has installed torch."""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from genbench_jax.errors import RunError, UsageError


def load(checkpoint: str, dtype: str = "", device: str = "") -> Any:
  """Load a `DiffusionPipeline` onto its device, from safetensors only and without remote code.

  Args:
    checkpoint: folder with a `model_index.json`.
    dtype: `float32`, `float16` or `bfloat16`; by default bfloat16 on a GPU and float32 on a CPU.
    device: such as `cuda`; by default the first GPU if there is one.

  Raises:
    UsageError: torch or diffusers is not installed, or the dtype is unknown.
    RunError: diffusers can't load the checkpoint.
  """
  try:
    import diffusers
    import torch
  except ImportError as error:
    raise UsageError(
      f"backend 'diffusers' needs torch and diffusers, which you have to install: {error}."
    ) from error
  device = device or ("cuda" if torch.cuda.is_available() else "cpu")
  dtype = dtype or ("float32" if device == "cpu" else "bfloat16")
  if dtype not in ("float32", "float16", "bfloat16"):
    raise UsageError(f"dtype {dtype!r}: expected float32, float16 or bfloat16.")
  try:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
      checkpoint, torch_dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False
    )
  except (OSError, ValueError, TypeError, AttributeError, ImportError) as error:
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    raise RunError(f"diffusers can't load the pipeline {checkpoint!r}: {line}") from error
  pipeline.set_progress_bar_config(disable=True)
  return pipeline.to(device)


def images(
  pipeline: Any,
  steps: int,
  guidance_scale: float,
  prompts: Sequence[str],
  negative_prompts: Sequence[str],
  seeds: Sequence[int],
  size: tuple[int, int] | None,
) -> UInt8[np.ndarray, "n height width 3"]:
  """Generate images from prompts.

  Each image has its own CPU generator, so that it depends neither on its batch nor on the device.

  Args:
    pipeline: pipeline from `load`.
    steps: number of sampler steps.
    guidance_scale: guidance scale, as the pipeline defines it.
    prompts: one prompt per image.
    negative_prompts: one negative prompt per image; `""` for none.
    seeds: one seed per image.
    size: height and width in pixels; None for the pipeline's default.

  Raises:
    UsageError: the pipeline does not accept an argument.
  """
  import torch

  takes = inspect.signature(pipeline.__call__).parameters
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
      f"{type(pipeline).__name__} does not accept {', '.join(unknown)}: omit it, or wrap the pipeline in your own function."
    )
  with torch.inference_mode():
    made = pipeline(**given).images
  return np.stack([np.asarray(image.convert("RGB")) for image in made])
