"""CLIP checkpoints: the Flax module, its parameters and what goes with them."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints, upstream
from genbench_jax.models.tokenizer import load_tokenizer

DOWNLOADS = ("*.json", "merges.txt", "model*.safetensors", "flax_model.msgpack")
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
  """A CLIP ready to embed.

  Attributes:
    module: the Flax module.
    params: its parameters, on the host, in the dtype of the computation.
    tokenizer: a `CLIPTokenizer`.
    max_tokens: length of a tokenized text.
    image_size: side of the square images, in pixels.
    image_mean, image_std: of the red, green and blue channel, in [0, 1].
    fingerprint: identity of the checkpoint.
  """

  module: Any
  params: checkpoints.Params
  tokenizer: Any
  max_tokens: int
  image_size: int
  image_mean: tuple[float, ...]
  image_std: tuple[float, ...]
  fingerprint: str

  @property
  def shorter(self) -> int:
    """What the shorter side is scaled to before the square is cut from its center: the square's own."""
    return self.image_size

  @property
  def width(self) -> int:
    """Of its features."""
    return int(self.module.config.projection_dim)

  def embed_pixels(
    self, params: checkpoints.Params, pixels: Float[Array, "b h w 3"]
  ) -> Float[Array, "b d"]:
    """Image features, not normalized, of preprocessed pixels. Pure: made for `jax.jit`."""
    return self.module.apply({"params": params}, pixels, method=_image_features)

  def embed_tokens(
    self, params: checkpoints.Params, tokens: Int32[Array, "b l"]
  ) -> Float[Array, "b d"]:
    """Text features, not normalized, of token ids. Pure: made for `jax.jit`."""
    return self.module.apply({"params": params}, tokens, method=_text_features)


def _image_features(module: Any, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
  pooled = module.vision_model(pixel_values=pixels).pooler_output
  return module.visual_projection(pooled).astype(jnp.float32)


def _text_features(module: Any, tokens: Int32[Array, "b l"]) -> Float[Array, "b d"]:
  # No attention mask: the tower is causal, so the end-of-text token never sees the padding behind it.
  positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
  pooled = module.text_model(tokens, jnp.ones_like(tokens), positions).pooler_output
  return module.text_projection(pooled).astype(jnp.float32)


def compute_dtype() -> Any:
  """bfloat16 on accelerators, float32 on CPU, where bfloat16 is emulated."""
  return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def load_clip(checkpoint: str, revision: str | None = None, dtype: Any = None) -> Clip:
  """Loads a CLIP from a folder or hub id: OpenAI's, or an OpenCLIP conversion, in the Hugging Face layout.

  Args:
    checkpoint: local folder, or hub id such as `openai/clip-vit-base-patch32`.
    revision: commit, tag or branch of a hub id.
    dtype: of parameters and computation; by default bfloat16 on accelerators and float32 on CPU.

  Raises:
    UsageError: there is no such checkpoint.
    RunError: the checkpoint is incomplete, corrupt or of another architecture.
  """
  folder = checkpoints.locate(str(checkpoint), revision, DOWNLOADS)
  dtype = compute_dtype() if dtype is None else dtype
  module = _module(folder, dtype)
  size, mean, std = _preprocessing(folder, module.config.vision_config.image_size)
  tokenizer = load_tokenizer(folder)
  return Clip(
    module=module,
    params=checkpoints.load_params(folder, parameter_shapes(folder), dtype),
    tokenizer=tokenizer,
    max_tokens=min(tokenizer.model_max_length, module.config.text_config.max_position_embeddings),
    image_size=size,
    image_mean=mean,
    image_std=std,
    fingerprint=checkpoints.fingerprint(folder),
  )


def _module(folder: Path, dtype: Any) -> Any:
  upstream.silence()
  from transformers import CLIPConfig, FlaxCLIPModel

  config = checkpoints.read_json(folder / "config.json")
  if config.get("model_type") != "clip":
    raise RunError(f"{folder} holds a model of type {config.get('model_type')!r}, not 'clip'.")
  return FlaxCLIPModel.module_class(CLIPConfig.from_dict(config), dtype=dtype)


def parameter_shapes(folder: Path) -> checkpoints.Params:
  """The parameter tree of the CLIP whose `config.json` stands in `folder`, as shapes."""
  module = _module(folder, jnp.float32)
  size = module.config.vision_config.image_size
  length = module.config.text_config.max_position_embeddings
  pixels = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
  tokens = jax.ShapeDtypeStruct((1, length), np.int32)
  return checkpoints.shapes_of(module.init, tokens, pixels, tokens, tokens)


def _preprocessing(
  folder: Path, image_size: int
) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
  """Side, mean and std, from `preprocessor_config.json` where there is one, else OpenAI's."""
  path = folder / "preprocessor_config.json"
  config = checkpoints.read_json(path) if path.is_file() else {}
  crop = config.get("crop_size", image_size)
  side = crop.get("height") if isinstance(crop, dict) else crop
  if side != image_size:
    raise RunError(f"{path} crops to {side} pixels, but the model takes {image_size}.")
  mean, std = config.get("image_mean", OPENAI_MEAN), config.get("image_std", OPENAI_STD)
  return image_size, tuple(map(float, mean)), tuple(map(float, std))
