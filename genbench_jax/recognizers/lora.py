"""Low-rank updates of both CLIP towers, trained on images and class names.

References:
  Zanella and Ben Ayed, "Low-rank few-shot adaptation of vision-language models", 2024 (arXiv
  2405.18541): CLIP-LoRA. Kim et al., "DataDream", 2024 (arXiv 2407.10910): the same on real and
  generated images, with loss weights 0.8 and 0.2.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from genbench_jax.embedding.library import AnyImages
from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.metrics.accuracy import Metric
from genbench_jax.metrics.inputs import unit_rows
from genbench_jax.models.image_encoder import TextEncoder, load_text_encoder
from genbench_jax.recognizers.arrays import fit_arrays
from genbench_jax.recognizers.fine_tune import encoder_view, without_weights
from genbench_jax.recognizers.low_rank import adapted, initial_adapters, merged
from genbench_jax.recognizers.method import Method, Place
from genbench_jax.recognizers.problem import Model, Problem
from genbench_jax.recognizers.settings import LoraSettings, Recipe, Template
from genbench_jax.recognizers.zero_shot import log_odds
from genbench_jax.runtime.settings import checked_section

TOWERS = {"image": "vision_model", "text": "text_model"}
MATRICES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
TEMPLATE = "a photo of a {}."
# Classes per pass through the text tower: the activations of a thousand would not fit.
CLASSES_AT_ONCE = 64

# Settings of the published code. CLIP-LoRA trains 500 steps per shot: see `published`.
PUBLISHED = {
  "clip_lora": LoraSettings(
    rank=2, alpha=1.0, dropout=0.25, matrices="qkv", towers="both", template=TEMPLATE,
    recipe=Recipe(
      optimizer="adamw", learning_rate=2e-4, weight_decay=1e-2, warmup=0.0, epochs=0, min_steps=500, batch_size=32,
      label_smoothing=0.0, min_crop=0.08,
    ),
  ),
  "datadream": LoraSettings(
    rank=16, alpha=32.0, dropout=0.1, matrices="qv", towers="both", template=TEMPLATE,
    recipe=Recipe(
      optimizer="adamw", learning_rate=1e-4, weight_decay=1e-4, warmup=0.3, epochs=10, min_steps=0, batch_size=64,
      label_smoothing=0.0, min_crop=0.5,
    ),
  ),
}  # fmt: skip
STEPS_PER_SHOT = 500


@dataclasses.dataclass(frozen=True)
class AdaptedLogits:
  """Scaled cosines of images and class names, with updates in both towers.

  In training, the updates are computed next to the layers, with dropout; in testing they are merged
  into the weights.
  """

  encoder: TextEncoder
  scale: float
  dropout: float
  multi_label: bool = False

  def __call__(
    self, variables: Any, stats: Any, frozen: Any, pixels: Float[Array, "b h w 3"], key: Any
  ) -> tuple[Float[Array, "b k"], Any]:
    params, tokens = frozen["params"], frozen["tokens"]
    if key is None:
      return self._logits(merged(params, variables, self.scale), tokens, pixels), stats
    params = adapted(params, variables, self.scale, self.dropout, key)
    return self._logits(params, tokens, pixels), stats

  def _logits(
    self, params: Any, tokens: Int[Array, "k l"], pixels: Float[Array, "b h w 3"]
  ) -> Float[Array, "b k"]:
    # In float32: bfloat16 keeps three digits of a cosine, and the scale is about 100.
    images = unit_rows(self.encoder.embed_pixels(params, pixels).astype(jnp.float32))
    parts = [
      self.encoder.embed_tokens(params, tokens[start : start + CLASSES_AT_ONCE])
      for start in range(0, len(tokens), CLASSES_AT_ONCE)
    ]
    text = unit_rows(jnp.concatenate(parts).astype(jnp.float32))
    scale = jnp.exp(jnp.asarray(params["logit_scale"], jnp.float32))
    logits = scale * jnp.matmul(images, text.T, precision="highest")
    return log_odds(logits) if self.multi_label else logits


def pattern(settings: LoraSettings) -> str:
  """Return a regular expression for the names of the layers with updates.

  Raises:
    UsageError: the tower is unknown.
  """
  if settings.towers not in ("both", *TOWERS):
    raise unknown_name("tower of lora", settings.towers, ("both", *TOWERS))
  towers = TOWERS.values() if settings.towers == "both" else [TOWERS[settings.towers]]
  matrices = "|".join(MATRICES[letter] for letter in sorted(set(settings.matrices)))
  return rf"^({'|'.join(towers)})\..*self_attn\.({matrices})$"


def published(settings: LoraSettings, shots: int) -> LoraSettings:
  """Return the settings of the paper named in `settings.paper`.

  Raises:
    UsageError: the paper is unknown.
  """
  if settings.paper not in PUBLISHED:
    raise unknown_name("paper of lora", settings.paper, PUBLISHED)
  found = PUBLISHED[settings.paper]
  if settings.paper == "clip_lora":
    steps = dataclasses.replace(found.recipe, min_steps=STEPS_PER_SHOT * max(1, shots))
    found = dataclasses.replace(found, recipe=steps)
  return found


def method(
  settings: LoraSettings,
  encoder: TextEncoder,
  class_names: Sequence[str],
  template: str,
  shots: int,
  num_classes: int,
  multi_label: bool,
  protocol: str = "strict",
) -> Method:
  """Return the method for training low-rank updates.

  Args:
    settings: which layers have updates, and the recipe.
    encoder: both towers.
    class_names: one name per class.
    template: prompt with one `{}`, if the settings have none.
    shots: images per class, which determine CLIP-LoRA's number of steps.
    num_classes: number of class names.
    multi_label: binary cross-entropies instead of the softmax.
    protocol: `reference` follows `settings.paper`.

  Raises:
    UsageError: a name is unknown, there are more or fewer class names than classes, or the encoder
      has no such layers.
  """
  if num_classes != len(class_names) or not class_names:
    raise UsageError(f"there are {num_classes} classes, but {len(class_names)} class names.")
  if protocol == "reference":
    settings = published(settings, shots)
  template = settings.template or template
  Template().check(template, "the template of lora")
  prompts = [template.replace("{}", name) for name in class_names]
  tokens = encoder.tokenize(prompts)
  # The update is alpha / rank * B A (Hu et al., section 4.1), so alpha need not follow the rank.
  scale = settings.alpha / settings.rank
  logits = AdaptedLogits(without_weights(encoder), scale, settings.dropout, multi_label)
  problem = Problem(logits, encoder_view(encoder), multi_label)
  make = functools.partial(initial_adapters, encoder.params, pattern(settings), settings.rank)
  if not make(0):
    raise UsageError("the encoder has no layers for recognition.lora: a CLIP or a SigLIP has.")
  frozen = {"params": encoder.params, "tokens": tokens}
  return Method("lora", problem, lambda seed: Model(make(seed), {}, frozen), settings.recipe)


def lora(
  images: AnyImages,
  labels: Int[np.ndarray, "n"] | Bool[np.ndarray, "n k"],
  test_images: AnyImages,
  test_labels: Int[np.ndarray, "m"] | Bool[np.ndarray, "m k"],
  class_names: Sequence[str],
  template: str = TEMPLATE,
  checkpoint: str = "zoo/clip",
  protocol: str = "strict",
  seed: int = 0,
  metric: Metric = "accuracy",
  *,
  clip: TextEncoder | None = None,
  settings: LoraSettings | None = None,
  loss_weights: Float[np.ndarray, "n"] | None = None,
  later: Bool[np.ndarray, "n"] | None = None,
  mesh: Mesh | None = None,
  place: Place | None = None,
) -> dict[str, Any]:
  """Train low-rank updates of both CLIP towers on external images and score them on test images.

  Args:
    images: external images: uint8 [n, h, w, 3], or a sequence of images of any size.
    labels: class indices, or multi-hot.
    test_images: test images; they are used for scoring only.
    test_labels: like `labels`.
    class_names: one name per class.
    template: prompt with one `{}` for the name.
    checkpoint: the CLIP.
    protocol: `strict` chooses rate and length on held-out external images; `reference` follows
      `settings.paper`.
    seed: of the updates, the order, the augmentation and the dropout.
    metric: recognition score.
    clip: the loaded encoder, instead of `checkpoint`.
    settings: which layers have updates, and the recipe.
    loss_weights: weight of each image.
    later: images of a second phase.
    mesh: devices to use; None for the first device.
    place: name and checkpoints, instead of `mesh`.

  Returns:
    A dict as from `from_scratch`.

  Raises:
    UsageError: arrays do not match, or a name or setting is invalid.
    ModelError: the training diverged.
  """
  if clip is None:
    clip = load_text_encoder(checkpoint)
  # Images per class, rounded up.
  shots = -(-len(images) // max(1, len(class_names)))
  settings = checked_section(settings or LoraSettings(), "settings")
  make = functools.partial(method, settings, clip, tuple(class_names), template, shots)
  return fit_arrays(
    make, images, labels, test_images, test_labels, protocol, seed, metric, len(class_names), loss_weights, later, mesh, place
  )  # fmt: skip
