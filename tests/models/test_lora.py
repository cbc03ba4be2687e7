"""LoRA files with all namings are fused by the formula; others are rejected by name."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from genbench_jax.errors import RunError, UsageError
from genbench_jax.models import lora, weights
from genbench_jax.models.lora import with_loras
from genbench_jax.models.original_unet import unet_names
from genbench_jax.models.stable_diffusion import open_parts
from genbench_jax.zoo.tiny import LORA_TARGETS, write_tiny_lora, write_tiny_sdxl


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
  return open_parts(write_tiny_sdxl(tmp_path_factory.mktemp("xl") / "xl"))


TARGET = "mid_block.attentions.0.proj_in"


def changed(parts, tmp_path, tensors, weight=1.0, part="unet", module=TARGET):
  path = tmp_path / "lora.safetensors"
  save_file({name: np.asarray(t, np.float32) for name, t in tensors.items()}, path)
  fused = with_loras(parts, [(path, weight)])
  name = f"{module}.weight"
  return fused.weights[part][name]() - parts.weights[part][name]()


def factors(rank=3):
  draw = np.random.default_rng(0)
  return draw.standard_normal((rank, 64)), draw.standard_normal((64, rank))


@pytest.mark.parametrize(
  "down_name,up_name",
  [
    ("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"),
    ("unet.{}.lora_A.default.weight", "unet.{}.lora_B.default.weight"),
    ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"),
    ("unet.{}.lora.down.weight", "unet.{}.lora.up.weight"),
    ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight",
     "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight"),
    ("lora_unet_middle_block_1_proj_in.lora_down.weight",
     "lora_unet_middle_block_1_proj_in.lora_up.weight"),
  ],
)  # fmt: skip
def test_every_naming_follows_the_formula(parts, tmp_path, down_name, up_name):
  down, up = factors()
  found = changed(
    parts, tmp_path, {down_name.format(TARGET): down, up_name.format(TARGET): up}, 0.5
  )
  np.testing.assert_allclose(found, 0.5 * up @ down, atol=1e-5)


def test_diffusers_oldest_format_names_attention_processors(parts, tmp_path):
  down, up = factors()
  block = "mid_block.attentions.0.transformer_blocks.0.attn1"
  tensors = {f"unet.{block}.processor.to_out_lora.down.weight": down}
  tensors[f"unet.{block}.processor.to_out_lora.up.weight"] = up
  found = changed(parts, tmp_path, tensors, module=f"{block}.to_out.0")
  np.testing.assert_allclose(found, up @ down, atol=1e-5)


def test_alpha_over_rank_scales_and_changes_add_up(parts, tmp_path):
  files = [
    (write_tiny_lora(tmp_path / f"{i}.safetensors", True, seed=i), 0.5 + i) for i in range(2)
  ]
  fused = with_loras(parts, files)
  for part, modules in LORA_TARGETS.items():
    for module in modules:
      total = 0
      for path, weight in files:
        tensors = load_file(path)
        prefix = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
        key = f"{prefix[part]}_{module.replace('.', '_')}"
        down, up = (tensors[f"{key}.lora_{x}.weight"] for x in ("down", "up"))
        product = np.tensordot(up.reshape(len(up), -1), down, axes=1)
        total = total + weight * float(tensors[f"{key}.alpha"]) / len(down) * product
      name = f"{module}.weight"
      delta = fused.weights[part][name]() - parts.weights[part][name]()
      np.testing.assert_allclose(delta, total, atol=1e-5)
  untouched = "mid_block.resnets.0.conv1.weight"
  assert fused.weights["unet"][untouched] is parts.weights["unet"][untouched]


def test_pefts_own_folders_state_alpha_beside_the_weights(parts, tmp_path):
  down, up = factors()
  pair = {f"base_model.model.{TARGET}.lora_{name}.weight": np.asarray(value, np.float32)
          for name, value in (("A", down), ("B", up))}  # fmt: skip
  save_file(pair, tmp_path / "adapter_model.safetensors")
  config, name = tmp_path / "adapter_config.json", f"{TARGET}.weight"
  found = {}
  for alpha in (6, 3):
    config.write_text(json.dumps({"peft_type": "LORA", "r": 3, "lora_alpha": alpha}))
    found[alpha] = fused = with_loras(parts, [(tmp_path, 1.0)])
    delta = fused.weights["unet"][name]() - parts.weights["unet"][name]()
    np.testing.assert_allclose(delta, alpha / 3 * up @ down, atol=1e-5)
  assert found[6].fingerprint != found[3].fingerprint
  for wrong, message in (
    ({"use_rslora": True}, "rank-stabilized"),
    ({"alpha_pattern": {"to_q": 8}}, "alpha_pattern"),
    ({"lora_alpha": "8"}, "lora_alpha is '8'"),
  ):
    config.write_text(json.dumps(wrong))
    with pytest.raises(RunError, match=message):
      with_loras(parts, [(tmp_path, 1.0)])


def test_a_factorized_convolution_has_a_core(parts, tmp_path):
  draw = np.random.default_rng(0)
  module = "up_blocks.0.resnets.0.conv1"
  down, up = draw.standard_normal((4, 128, 1, 1)), draw.standard_normal((64, 4, 1, 1))
  mid = draw.standard_normal((4, 4, 3, 3))
  key = f"lora_unet_{module.replace('.', '_')}"
  tensors = {f"{key}.lora_{n}.weight": t for n, t in (("down", down), ("up", up), ("mid", mid))}
  found = changed(parts, tmp_path, tensors, module=module)
  wanted = np.einsum("or,rshw,si->oihw", up[..., 0, 0], mid, down[..., 0, 0])
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_fingerprint_covers_file_and_weight(parts, tmp_path):
  path = write_tiny_lora(tmp_path / "a.safetensors")
  other = write_tiny_lora(tmp_path / "b.safetensors", seed=9)
  seen = {
    with_loras(parts, loras).fingerprint for loras in ([], [(path, 1)], [(path, 2)], [(other, 1)])
  }
  assert len(seen) == 4


@pytest.mark.parametrize(
  "tensors,message",
  [
    ({"unet.mid_block.attentions.0.proj_in.lora_A.weight": np.zeros((2, 64))}, "lacks one of the two"),
    ({"unet.nowhere.lora_A.weight": np.zeros((2, 64)), "unet.nowhere.lora_B.weight": np.zeros((64, 2))},
     r"does not have: unet\.nowhere"),
    ({"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": np.zeros((2, 2))}, "another kind of adapter"),
    ({}, "contains no LoRA"),
  ],
)  # fmt: skip
def test_files_that_are_not_loras_of_the_model_are_rejected(parts, tmp_path, tensors, message):
  with pytest.raises(RunError, match=message):
    changed(parts, tmp_path, tensors)


def test_wrong_shapes_nan_and_bad_weights_are_rejected(parts, tmp_path):
  down, up = factors()
  names = [f"unet.{TARGET}.lora_{x}.weight" for x in "AB"]
  with pytest.raises(RunError, match="for another model"):
    changed(parts, tmp_path, dict(zip(names, (down[:, :32], up), strict=True)))
  with pytest.raises(RunError, match="not finite"):
    changed(parts, tmp_path, dict(zip(names, (down * np.nan, up), strict=True)))
  for weight in (float("nan"), "1"):
    with pytest.raises(UsageError, match="weight"):
      changed(parts, tmp_path, dict(zip(names, (down, up), strict=True)), weight)
  (tmp_path / "lora.ckpt").write_bytes(b"pickle")
  with pytest.raises(UsageError, match="pickles are never opened"):
    with_loras(parts, [(tmp_path / "lora.ckpt", 1.0)])
  with pytest.raises(UsageError, match=r"expected a \.safetensors file"):
    with_loras(parts, [(tmp_path / "nothing", 1.0)])


def test_kohyas_names_follow_the_original_code(parts):
  names = unet_names(set(parts.weights["unet"]))
  assert names["middle_block.1.proj_in.weight"] == f"{TARGET}.weight"
  assert set(names.values()) == set(parts.weights["unet"])
  assert weights.is_table("text_model.embeddings.token_embedding")


def test_a_file_of_the_hub_is_downloaded_alone(tmp_path, monkeypatch):
  (tmp_path / "xl").mkdir()
  (tmp_path / "xl" / "style.safetensors").write_bytes(b"")
  asked = []

  def download(name, **options):
    asked.append((name, options["revision"], options["allow_patterns"]))
    return str(tmp_path)

  monkeypatch.setattr("huggingface_hub.snapshot_download", download)
  found = lora.lora_file("owner/name@v2/xl/style.safetensors")
  assert found == tmp_path / "xl" / "style.safetensors"
  assert lora.lora_file("owner/name/xl/style.safetensors") == found
  files = ["xl/style.safetensors"]
  assert asked == [("owner/name", "v2", files), ("owner/name", None, files)]
  with pytest.raises(UsageError, match="has no file 'other"):
    lora.lora_file("owner/name/other.safetensors")
  with pytest.raises(UsageError, match="owner/name/FILE"):
    lora.lora_file(tmp_path / "xl" / "missing.safetensors")
