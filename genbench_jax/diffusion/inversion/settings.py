"""How new tokens are learned: the settings of textual inversion, and the published ones. No JAX at import."""

import dataclasses
from typing import Annotated

from genbench_jax.runtime.settings import Above, AtLeast, Distinct, OneOf

SCHEDULES = ("cosine", "constant")
INITIALIZERS = ("class_name", "end_of_text")
RESIZES = ("crop", "squash")


@dataclasses.dataclass(frozen=True)
class Training:
  """How the embedding of a new token is learned from a few reference images.

  Attributes:
    steps: of AdamW.
    batch: noisy references of each token in a step.
    learning_rate: at its highest. Token embeddings have a deviation of 0.014 in Stable Diffusion.
    schedule: after the warm-up, `cosine` down to zero or `constant`.
    warm_up: steps in which the rate rises from zero.
    weight_decay: of AdamW.
    initializer: where a token starts: at the mean of the class name's tokens (`class_name`), or at the
      end-of-text token (`end_of_text`), as in the published code.
    reference_resize: `crop` (shorter side, then center crop) or `squash` to the model's square.
    reference_resolution: shrinks references to this side, then enlarges them again; 0 leaves them as they are.
    flip: whether half of the references are mirrored. Digits and letters turn into other ones.
    crops: random crops of each reference that are learned from besides the whole.
    recolor: whether references come in all six orders of their color channels, where color says nothing of the class:
      tokens learn color before shape.
    sample_latents: whether latents are drawn from the autoencoder's distribution, or are its mean.
    clip_weight: of the CLIP-guided loss beside the diffusion loss; 0 does without.
    categories_per_device: tokens that are trained at once on a device. Others would round otherwise: it counts
      among what the result is made from.
    save_every: steps after which the state is saved, so that a stopped run can go on.
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
  """The settings of GenBench's scripts for references that are `original` or `retrieval` images.

  The learning rate is theirs after their scaling by the batch of 8 on one device. Their CLIP-guided loss starts from
  clean latents, skips CLIP's normalization and averages over pairs that don't match: it is not repeated.
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


# Images that new tokens can be learned from.
TOKEN_REFERENCES = ("original", "retrieval", "folder")


@dataclasses.dataclass(frozen=True)
class TextualInversion(Training):
  """New tokens for the classes of a dataset, besides how they are trained.

  Attributes:
    references: each makes image sets of every prompt strategy: `""` without new tokens, `original` or
      `retrieval` with tokens learned from such images, `folder` with tokens made elsewhere.
    shots: reference images a class.
    scope: a token for each `category`, or one for all classes of a `dataset`.
    templates: prompts in training: those of the `dataset`, or `simple`, the class name alone.
    folder: tokens made elsewhere, `CLASS/learned_embeds.safetensors`; `{dataset}` in the path stands for the name of
      the dataset.
    real_images: how many real images of the dataset those tokens were learned from; the report states it.
  """

  references: Annotated[
    tuple[str, ...], Distinct(), OneOf("textual_inversion.references", ("", *TOKEN_REFERENCES))
  ] = ("",)
  shots: Annotated[int, AtLeast(1)] = 5
  scope: Annotated[str, OneOf("textual_inversion.scope", ("category", "dataset"))] = "category"
  templates: Annotated[str, OneOf("textual_inversion.templates", ("dataset", "simple"))] = "dataset"
  folder: str = ""
  real_images: Annotated[int, AtLeast(0)] = 0
