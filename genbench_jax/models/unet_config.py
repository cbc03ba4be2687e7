"""Read a U-Net's `config.json` and check that our U-Net implements it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from genbench_jax.models.configuration import MOST_LAYERS, Settings
from genbench_jax.models.diffusion_settings import each_level, refuse_unknown, widths

# Settings that published U-Nets contain, and the values that ours implements.
FIXED: dict[str, tuple[Any, ...]] = {
  "act_fn": ("silu", "swish"),
  "mid_block_type": ("UNetMidBlock2DCrossAttn",),
  "center_input_sample": (False,),
  "downsample_padding": (1,),
  "mid_block_scale_factor": (1,),
  "dropout": (0,),
  "dual_cross_attention": (False,),
  "only_cross_attention": (False,),
  "mid_block_only_cross_attention": (None, False),
  "class_embed_type": (None,),
  "num_class_embeds": (None,),
  "class_embeddings_concat": (False,),
  "addition_embed_type": (None, "text_time"),
  "encoder_hid_dim": (None,),
  "encoder_hid_dim_type": (None,),
  "resnet_time_scale_shift": ("default",),
  "resnet_skip_time_act": (False,),
  "resnet_out_scale_factor": (1,),
  "time_embedding_type": ("positional",),
  "time_embedding_dim": (None,),
  "time_embedding_act_fn": (None,),
  "timestep_post_act": (None,),
  "conv_in_kernel": (3,),
  "conv_out_kernel": (3,),
  "attention_type": ("default",),
  "cross_attention_norm": (None,),
  "reverse_transformer_layers_per_block": (None,),
}
# Settings that are read below, or have no effect: the softmax is in float32 regardless of `upcast_attention`.
UNDERSTOOD = [
  "sample_size",
  "in_channels",
  "out_channels",
  "block_out_channels",
  "layers_per_block",
  "cross_attention_dim",
  "attention_head_dim",
  "num_attention_heads",
  "transformer_layers_per_block",
  "use_linear_projection",
  "norm_num_groups",
  "norm_eps",
  "flip_sin_to_cos",
  "freq_shift",
  "down_block_types",
  "up_block_types",
  "time_cond_proj_dim",
  "addition_time_embed_dim",
  "projection_class_embeddings_input_dim",
  "addition_embed_type_num_heads",
  "upcast_attention",
  "use_memory_efficient_attention",
  "split_head_dim",
]
# Block types, and whether they have attention.
DOWN_BLOCKS = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}
UP_BLOCKS = {"CrossAttnUpBlock2D": True, "UpBlock2D": False}
# Original height and width, crop top and left, target height and width.
NUM_SIZES = 6


@dataclasses.dataclass(frozen=True)
class UNetConfig:
  """Architecture of a U-Net. Tuples have one entry per level, from the highest resolution to the lowest.

  Attributes:
    sample_size: side of the latents in training.
    in_channels, out_channels: channels of the latents.
    block_out_channels: channels per level.
    layers_per_block: resnet blocks per level on the way down; one more on the way up.
    cross_attention_dim: width of the texts' hidden states.
    heads: attention heads.
    transformer_layers: transformer blocks after each resnet block.
    down_attends: whether a level has attention on the way down.
    up_attends: the same on the way up, from the lowest resolution to the highest.
    use_linear_projection: whether the transformers' projections are matrices, not 1 x 1 convolutions.
    norm_num_groups, norm_eps: groups and epsilon of the group norms.
    flip_sin_to_cos, freq_shift: form of the sinusoids, see `unet.sinusoids`.
    time_cond_proj_dim: width of the guidance scale's embedding; None without one.
    addition_time_embed_dim: width of the embedding of each image size; 0 without sizes and pooled texts.
    added_width: width of the pooled text and all size embeddings together; 0 without them.
  """

  sample_size: int = 64
  in_channels: int = 4
  out_channels: int = 4
  block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
  layers_per_block: int = 2
  cross_attention_dim: int = 1280
  heads: tuple[int, ...] = (8, 8, 8, 8)
  transformer_layers: tuple[int, ...] = (1, 1, 1, 1)
  down_attends: tuple[bool, ...] = (True, True, True, False)
  up_attends: tuple[bool, ...] = (False, True, True, True)
  use_linear_projection: bool = False
  norm_num_groups: int = 32
  norm_eps: float = 1e-5
  flip_sin_to_cos: bool = True
  freq_shift: float = 0
  time_cond_proj_dim: int | None = None
  addition_time_embed_dim: int = 0
  added_width: int = 0

  @property
  def takes_sizes(self) -> bool:
    """Whether the U-Net takes pooled texts and image sizes, as in SDXL."""
    return self.added_width > 0

  @property
  def pooled_width(self) -> int:
    """Width of the pooled text."""
    return self.added_width - NUM_SIZES * self.addition_time_embed_dim if self.takes_sizes else 0


def read_unet_config(settings: Settings) -> UNetConfig:
  """Read the configuration of a U-Net.

  Raises:
    RunError: a setting is out of range or not supported.
  """
  refuse_unknown(settings, FIXED, UNDERSTOOD)
  channels = widths(settings, "block_out_channels", (320, 640, 1280, 1280))
  levels = len(channels)
  # In diffusers' files, `attention_head_dim` is the number of heads; the misnomer is kept for compatibility.
  named = settings.values.get("num_attention_heads") is not None
  heads_key = "num_attention_heads" if named else "attention_head_dim"
  config = UNetConfig(
    sample_size=settings.integer("sample_size", 64, high=4096),
    in_channels=settings.integer("in_channels", 4, high=256),
    out_channels=settings.integer("out_channels", 4, high=256),
    block_out_channels=channels,
    layers_per_block=settings.integer("layers_per_block", 2, high=16),
    cross_attention_dim=settings.integer("cross_attention_dim", 1280),
    heads=each_level(settings, heads_key, 8, levels),
    transformer_layers=each_level(settings, "transformer_layers_per_block", 1, levels, MOST_LAYERS),
    down_attends=_attends(settings, "down_block_types", DOWN_BLOCKS, levels),
    up_attends=_attends(settings, "up_block_types", UP_BLOCKS, levels),
    use_linear_projection=settings.flag("use_linear_projection", False),
    norm_num_groups=settings.integer("norm_num_groups", 32, high=1024),
    norm_eps=settings.number("norm_eps", 1e-5, high=1),
    flip_sin_to_cos=settings.flag("flip_sin_to_cos", True),
    freq_shift=settings.number("freq_shift", 0, high=1),
    **_conditions(settings),
  )
  _check_divisors(settings, heads_key, config)
  return config


def _conditions(settings: Settings) -> dict[str, Any]:
  """Read the settings of conditions other than text and time."""
  found: dict[str, Any] = {}
  if settings.values.get("time_cond_proj_dim") is not None:
    found["time_cond_proj_dim"] = settings.integer("time_cond_proj_dim", low=4)
  if settings.values.get("addition_embed_type") == "text_time":
    found["addition_time_embed_dim"] = settings.integer("addition_time_embed_dim", low=2)
    found["added_width"] = settings.integer("projection_class_embeddings_input_dim")
    if found["added_width"] <= NUM_SIZES * found["addition_time_embed_dim"]:
      raise settings.error(
        "projection_class_embeddings_input_dim",
        f"it must exceed the width of {NUM_SIZES} size embeddings (refiners, with five, are not supported)",
      )
  return found


def _check_divisors(settings: Settings, heads_key: str, config: UNetConfig) -> None:
  for width, heads in zip(config.block_out_channels, config.heads, strict=True):
    if width % config.norm_num_groups:
      raise settings.error("norm_num_groups", f"it must divide {width}, the channels of a level")
    if width % heads:
      raise settings.error(heads_key, f"it must divide {width}, the channels of a level")


def _attends(
  settings: Settings, key: str, known: Mapping[str, bool], levels: int
) -> tuple[bool, ...]:
  """Return whether each block has attention."""
  with_attention, without = known
  usual = [with_attention] * (levels - 1) + [without]
  given = settings.values.get(key) or (usual if key.startswith("down") else usual[::-1])
  if not isinstance(given, list | tuple) or len(given) != levels:
    raise settings.error(key, f"expected one for each of the {levels} levels")
  if any(not isinstance(name, str) or name not in known for name in given):
    raise settings.error(key, f"only {' and '.join(known)} are supported")
  return tuple(known[name] for name in given)
