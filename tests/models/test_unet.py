"""The U-Net agrees with PyTorch on every platform's kernels, and rejects unsupported configurations."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu

from genbench_jax.errors import RunError
from genbench_jax.models import weights
from genbench_jax.models.configuration import Settings
from genbench_jax.models.diffusion_model import apply_unet
from genbench_jax.models.diffusion_networks import build_networks, network_shapes
from genbench_jax.models.unet import Conditions
from genbench_jax.models.unet_config import read_unet_config
from genbench_jax.zoo.tiny import UNET


def read(**changes):
  return read_unet_config(Settings(UNET | changes, Path("unet/config.json")))


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_unet_matches_pytorch_even_on_faint_latents(tiny_diffusion, golden_diffusion, platform):
  latents, text = golden_diffusion["unet/latents"], golden_diffusion["unet/text"]
  unet = tiny_diffusion.unet
  run = jax.jit(
    lambda params: apply_unet(unet, params, latents, jnp.float32(321), Conditions(text), platform)
  )
  with tpu.force_tpu_interpret_mode():
    output = run(tiny_diffusion.params["unet"])
  wanted = golden_diffusion["unet/output"]
  np.testing.assert_allclose(output, wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.slow
def test_the_gate_and_the_transformers_norm_match_pytorch(tiny_diffusion, golden_diffusion):
  """Flax's defaults, tanh instead of erf and 1e-5 instead of 1e-6, are far outside the tolerance above."""
  from genbench_jax.models import unet_transformer

  gate = unet_transformer.gelu
  latents, text = golden_diffusion["unet/latents"], golden_diffusion["unet/text"]
  arguments = (tiny_diffusion.params["unet"], latents, jnp.float32(321), Conditions(text))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(unet_transformer, "gelu", lambda x: jax.nn.gelu(x, approximate=True))
    other = apply_unet(tiny_diffusion.unet, *arguments, "plain")
  assert unet_transformer.gelu is gate
  wanted = golden_diffusion["unet/output"]
  assert np.abs(other - wanted).max() > 3e-5 * np.abs(wanted).max()


@pytest.mark.slow
@pytest.mark.parametrize(
  "name",
  ["stable-diffusion-1.5", "stable-diffusion-2.1-base", "stable-diffusion-2.1", "sdxl-base-1.0"],
)
def test_every_key_of_stable_diffusion_is_mapped(published, expected_shapes, name):
  parts = [key.split("/")[1] for key in published if key.startswith(f"{name}/")]
  configs = {
    part: Settings(published[f"{name}/{part}"]["config"], Path(name) / part) for part in parts
  }
  shapes = network_shapes(*build_networks(configs, jnp.float32))
  assert sorted(shapes) == sorted(parts)
  for part, tree in shapes.items():
    expected = expected_shapes(published[f"{name}/{part}"]["shapes"])
    assert weights.torch_shapes(tree) == expected, part


@pytest.mark.parametrize(
  "changes",
  [
    {"class_embed_type": "timestep"},
    {"addition_embed_type": "image"},
    {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"},
    {"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]},
    {"block_out_channels": [32, 10**9]},
    {"block_out_channels": []},
    {"attention_head_dim": [2, 5]},
    {"attention_head_dim": [2, 4, 8]},
    {"transformer_layers_per_block": 10**6},
    {"layers_per_block": 0},
    {"norm_eps": float("nan")},
    {"norm_num_groups": 5},
    {"a_setting_of_next_year": "yes"},
    {"resnet_time_scale_shift": "scale_shift"},
    {"only_cross_attention": [True, False]},
  ],
)
def test_unsupported_settings_are_rejected_by_name(changes):
  with pytest.raises(RunError, match=next(iter(changes))):
    read(**changes)


def test_refiners_are_rejected():
  sizes = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
  with pytest.raises(RunError, match="refiners"):
    read(**sizes, projection_class_embeddings_input_dim=1536)


def test_a_single_number_of_heads_applies_to_every_level():
  assert read(attention_head_dim=8).heads == (8, 8)
  assert read(num_attention_heads=4).heads == (4, 4)
  assert read(transformer_layers_per_block=[1, 3]).transformer_layers == (1, 3)
