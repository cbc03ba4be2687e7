"""Settings of textual inversion, and the published ones. Does not import JAX."""

import dataclasses
from typing import Annotated

from genbench_jax.benchmark.spec import RESIZES
from genbench_jax.runtime.settings import Above, AtLeast, Distinct, OneOf

SCHEDULES = ("cosine", "constant")
INITIALIZERS = ("class_name", "end_of_text")


@dataclasses.dataclass(frozen=True)
class Training:
  """Settings for learning the embedding of a new token from a few reference images.

  Attributes:
    steps: number of AdamW steps.
    batch: noisy references per token and step.
    learning_rate: peak rate. Token embeddings have a standard deviation of 0.014 in Stable
      Diffusion.
    schedule: after the warm-up, `cosine` to zero or `constant`.
    warm_up: steps over which the rate rises from zero.
    weight_decay: weight decay of AdamW.
    initializer: start of a token: the mean of the class name's tokens (`class_name`), or the
      end-of-text token (`end_of_text`), as in the published code.
    reference_resize: `crop` (shorter side, then center crop) or `squash`, to the model's square.
    reference_resolution: references are shrunk to this side and enlarged again; 0 for no change.
    flip: whether to mirror half of the references. Mirrored digits and letters may change their
      meaning.
    crops: random crops of each reference to learn from, in addition to the whole image.
    recolor: whether to learn from all six orders of the color channels. Useful if color does not
      identify the class, because tokens learn color before shape.
    sample_latents: whether to sample latents from the autoencoder's distribution instead of using
      its mean.
    clip_weight: weight of the CLIP-guided loss relative to the diffusion loss; 0 disables it.
    categories_per_device: tokens that a device trains together. It changes rounding, so it is part
      of the fingerprint.
    save_every: steps between saved states, from which a stopped run resumes.
  """

  steps: Annotated[int, AtLeast(1)] = 2000
  batch: Annotated[int, AtLeast(1)] = 8
  learning_rate: Annotated[float, Above(0)] = 4e-3
  schedule: Annotated[str, OneOf("textual_inversion.schedule", SCHEDULES)] = "cosine"
  warm_up: Annotated[int, AtLeast(0)] = 100
  weight_decay: Annotated[float, AtLeast(0)] = 0.01
  initializer: Annotated[str, OneOf("textual_inversion.initializer", INITIALIZERS)] = "class_name"
  reference_resize: Annotated[str, OneOf("textual_inversion.reference_resize", RESIZES)] = "crop"
  reference_resolution: Annotated[int, AtLeast(0)] = 0
  flip: bool = False
  crops: Annotated[int, AtLeast(0)] = 0
  recolor: bool = False
  sample_latents: bool = False
  clip_weight: Annotated[float, AtLeast(0)] = 0.0
  categories_per_device: Annotated[int, AtLeast(1)] = 1
  save_every: Annotated[int, AtLeast(1)] = 500


def reference_training(references: str) -> dict[str, object]:
  """Return the settings of GenBench's scripts for `original` or `retrieval` references.

  The learning rate includes their scaling by the batch of 8 on one device. Their CLIP-guided loss
  is not reproduced: it starts from clean latents, skips CLIP's normalization and averages over
  pairs that do not match.
  """
  return {
    "steps": 5000,
    "batch": 8,
    "learning_rate": 8 * {"original": 5e-4, "retrieval": 1e-4}[references],
    "schedule": "cosine",
    "warm_up": 100,
    "weight_decay": 0.01,
    "initializer": "end_of_text",
    "reference_resize": "squash",
    "reference_resolution": 224,
    "flip": True,
    "crops": 0,
    "recolor": False,
    "sample_latents": True,
    "clip_weight": 0.0,
  }


# Sources of images from which tokens can be learned.
TOKEN_REFERENCES = ("original", "retrieval", "folder")


@dataclasses.dataclass(frozen=True)
class TextualInversion(Training):
  """New tokens for the classes of a dataset, and how they are trained.

  Attributes:
    references: each entry adds image sets of every prompt strategy: `""` without new tokens,
      `original` or `retrieval` with tokens learned from such images, `folder` with tokens learned
      elsewhere.
    shots: reference images per class.
    scope: one token per `category`, or a single one for all classes of a `dataset`.
    templates: training prompts: the templates of the `dataset`, or `simple`, the class name alone.
    folder: tokens learned elsewhere, `CLASS/learned_embeds.safetensors`; `{dataset}` in the path is
      replaced by the name of the dataset.
    real_images: number of real images of the dataset from which those tokens were learned, for the
      report.
  """

  references: Annotated[
    tuple[str, ...], Distinct(), OneOf("textual_inversion.references", ("", *TOKEN_REFERENCES))
  ] = ("",)
  shots: Annotated[int, AtLeast(1)] = 5
  scope: Annotated[str, OneOf("textual_inversion.scope", ("category", "dataset"))] = "category"
  templates: Annotated[str, OneOf("textual_inversion.templates", ("dataset", "simple"))] = "dataset"
  folder: str = ""
  real_images: Annotated[int, AtLeast(0)] = 0
