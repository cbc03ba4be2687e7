"""diffusers' own Flax U-Net and autoencoder as a second implementation, with their errors corrected.

diffusers removed these classes in 0.40. If an older version is installed,
`generation.implementation = "diffusers"` uses them instead of ours, and the tests compare both on the same
weights. Flax interceptors replace single methods while a module is applied, to correct these errors:

1. GEGLU uses the tanh approximation of GELU; PyTorch, and so every checkpoint, uses the exact function.
2. The transformer's GroupNorm has epsilon 1e-5; PyTorch has 1e-6. Every GroupNorm computes its variance
   as E[x^2] - E[x]^2, which loses two digits if the mean is large.
3. The autoencoder guesses the layout of latents from their last axis, and fails if the side equals the
   number of channels. Its decoder is called directly, channels-last.
"""

import dataclasses
import importlib.metadata
import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from genbench_jax.errors import RunError, UsageError
from genbench_jax.models import weights
from genbench_jax.models.autoencoder import AutoencoderConfig, read_autoencoder_config
from genbench_jax.models.checkpoints import Params
from genbench_jax.models.configuration import Settings
from genbench_jax.models.flax_names import paths, torch_name
from genbench_jax.models.layers import gelu, group_norm
from genbench_jax.models.unet import Conditions
from genbench_jax.models.unet_config import UNetConfig, read_unet_config

FIRST_WITHOUT_FLAX = (0, 40)


def check_installed() -> None:
  """Check that the installed diffusers has Flax classes.

  Raises:
    UsageError: diffusers is too new, or missing.
  """
  try:
    version = importlib.metadata.version("diffusers")
  except importlib.metadata.PackageNotFoundError:
    version = "none"
  numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
  if not numbers or numbers >= FIRST_WITHOUT_FLAX:
    raise UsageError(
      f"implementation 'diffusers' needs diffusers below 0.40, which removed its Flax classes; installed: {version}."
    )


@dataclasses.dataclass(frozen=True)
class StockUNet:
  """diffusers' `FlaxUNet2DConditionModel` behind the methods of our `UNet`.

  Attributes:
    module: the stock module.
    config: the configuration as our `UNet` reads it.
  """

  module: Any
  config: UNetConfig

  def clone(self, platform: str | None) -> "StockUNet":
    """Return self: the stock classes do not depend on the platform."""
    del platform
    return self

  def apply(
    self,
    variables: Params,
    latents: Float[Array, "b h w c"],
    timestep: Num[Array, "b"],
    conditions: Conditions,
  ) -> Float[Array, "b h w o"]:
    """Apply the U-Net like ours; the stock layout is channels-first."""
    added = None
    if self.config.takes_sizes:
      added = {"text_embeds": conditions.pooled, "time_ids": conditions.sizes}
    sample = latents.transpose(0, 3, 1, 2)
    with corrections():
      output = self.module.apply(
        variables, sample, timestep, conditions.text, added, return_dict=False
      )[0]
    return output.transpose(0, 2, 3, 1)


@dataclasses.dataclass(frozen=True)
class StockAutoencoder:
  """diffusers' `FlaxAutoencoderKL` behind the methods of our `Autoencoder`.

  Attributes:
    module: the stock module.
    config: the configuration as our `Autoencoder` reads it.
  """

  module: Any
  config: AutoencoderConfig

  def clone(self, platform: str | None) -> "StockAutoencoder":
    """Return self: the stock classes do not depend on the platform."""
    del platform
    return self

  def apply(self, variables: Params, images: Float[Array, "b h w c"], method: str) -> Any:
    """Apply `encode` or `decode` like our autoencoder."""
    with corrections():
      return self.module.apply(
        variables, images, method={"encode": _encode, "decode": _decode}[method]
      )


def _decode(vae: Any, latents: Float[Array, "b h w c"]) -> Float[Array, "b H W 3"]:
  return vae.decoder(vae.post_quant_conv(latents))


def _encode(
  vae: Any, images: Float[Array, "b H W 3"]
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
  mean, log_variance = jnp.split(vae.quant_conv(vae.encoder(images)), 2, axis=-1)
  return mean, jnp.clip(log_variance, -30, 20)


def stock_networks(
  configs: Mapping[str, Settings], dtype: Any, vae_dtype: Any
) -> tuple[StockUNet, StockAutoencoder]:
  """Create the stock modules that configurations describe.

  Args:
    configs: configurations of `unet` and `vae`.
    dtype: dtype of the U-Net's computation.
    vae_dtype: dtype of the autoencoder's computation.

  Raises:
    UsageError: diffusers has no Flax classes.
    RunError: the stock classes do not support the checkpoint.
  """
  check_installed()
  # transformers below 5 imports TensorFlow by default. diffusers logs a deprecation at every Flax module.
  os.environ.setdefault("USE_TF", "0")
  from diffusers import (  # type: ignore[attr-defined]  # releases below 0.40 have them
    FlaxAutoencoderKL,
    FlaxUNet2DConditionModel,
  )
  from diffusers.utils import logging

  logging.set_verbosity_error()
  unet, vae = read_unet_config(configs["unet"]), read_autoencoder_config(configs["vae"])
  plain_vae = vae.use_quant_conv and vae.use_post_quant_conv and vae.mid_block_add_attention
  if unet.time_cond_proj_dim is not None or not plain_vae or unet.norm_num_groups != 32:
    raise RunError(
      f"{configs['unet'].path.parent.parent}: diffusers' Flax classes support no guidance embedding, no norm groups other than 32"
      " and no autoencoder without 1 x 1 convolutions or attention; use implementation 'ours'."
    )
  return (
    StockUNet(_module(FlaxUNet2DConditionModel, configs["unet"], dtype), unet),
    StockAutoencoder(_module(FlaxAutoencoderKL, configs["vae"], vae_dtype), vae),
  )


def _module(module_class: Any, settings: Settings, dtype: Any) -> Any:
  known = {field.name for field in dataclasses.fields(module_class)} - {"parent", "name", "dtype"}
  given = {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in settings.values.items()
    if name in known and value is not None
  }
  return module_class(**given, dtype=dtype)


# ---- our parameters under Flax's names ----------------------------------------------------------


def stock_params(unet: StockUNet, vae: StockAutoencoder, params: Params) -> Params:
  """Arrange our parameters in the stock modules' trees. No array is copied, since layouts are the same.

  Args:
    unet: stock U-Net.
    vae: stock autoencoder.
    params: our parameters, by part.
  """
  config = unet.config
  side, pixels = (2 ** len(part.config.block_out_channels) for part in (unet, vae))
  sample = jnp.zeros((1, config.in_channels, side, side))
  added = None
  if config.takes_sizes:
    added = {"text_embeds": jnp.zeros((1, config.pooled_width)), "time_ids": jnp.zeros((1, 6))}
  text = jnp.zeros((1, 1, config.cross_attention_dim))
  shapes = {
    "unet": _shapes(unet.module, sample, jnp.zeros(1, jnp.int32), text, added),
    "vae": _shapes(vae.module, jnp.zeros((1, vae.config.in_channels, pixels, pixels))),
  }
  return params | {part: _renamed(params[part], tree) for part, tree in shapes.items()}


def _shapes(module: Any, *inputs: Any) -> Params:
  return jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))["params"]


def _renamed(params: Params, target: Params) -> Params:
  own = dict(weights.leaves(params))
  tree: Params = {}
  for path, _ in paths(target):
    node = tree
    for name in path[:-1]:
      node = node.setdefault(name, {})
    node[path[-1]] = own[torch_name(path)]
  return tree


# ---- corrections --------------------------------------------------------------------------------


def corrections() -> AbstractContextManager[Any]:
  """Return a context in which the stock modules compute what PyTorch's do."""
  from diffusers.models import attention_flax  # type: ignore[attr-defined]

  def intercept(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
    module = context.module
    if context.method_name != "__call__" or module.is_initializing():
      return method(*args, **kwargs)
    if isinstance(module, attention_flax.FlaxGEGLU):
      linear, gate = jnp.split(module.proj(args[0]), 2, axis=-1)
      return linear * gelu(gate)
    if isinstance(module, nn.GroupNorm):
      in_transformer = isinstance(module.parent, attention_flax.FlaxTransformer2DModel)
      params = module.variables["params"]
      eps = 1e-6 if in_transformer else module.epsilon
      groups = module.num_groups or 1
      return group_norm(args[0], params["scale"], params["bias"], groups, eps)
    return method(*args, **kwargs)

  return nn.intercept_methods(intercept)
