"""Settings of the recognizers that learn prompts: sections of the config, so nothing heavy is imported."""

import dataclasses
from typing import Annotated

from genbench_jax.runtime.settings import Above, AtLeast, OneOf

POSITIONS = ("end", "middle")
DEPTHS = ("shallow", "deep")


@dataclasses.dataclass(frozen=True)
class CoopSettings:
  """How a context is learned; the defaults are the paper's, steps aside.

  Attributes:
    context_length: number of context vectors, where no `template` sets it.
    per_class: a context for each class instead of one for all.
    position: context before the class name (`end`), or half of it before and half behind (`middle`).
    template: words to begin with, such as "a photo of a"; empty is normal noise of 0.02.
    steps: optimization steps.
    batch_size: images a step.
    learning_rate: peak rate of SGD with momentum 0.9; linear warm-up, then a cosine to zero.
    warmup: steps of warm-up.
    weight_decay: L2 added to the gradient.
    classes_at_once: classes that go through the text tower at once, on each device.
  """

  context_length: Annotated[int, AtLeast(1)] = 16
  per_class: bool = False
  position: Annotated[str, OneOf("position of the context", POSITIONS)] = "end"
  template: str = ""
  steps: Annotated[int, AtLeast(1)] = 1000
  batch_size: Annotated[int, AtLeast(1)] = 32
  learning_rate: Annotated[float, Above(0)] = 0.002
  warmup: Annotated[int, AtLeast(0)] = 50
  weight_decay: Annotated[float, AtLeast(0)] = 5e-4
  classes_at_once: Annotated[int, AtLeast(1)] = 32


@dataclasses.dataclass(frozen=True)
class VptSettings:
  """How visual prompts are learned.

  Attributes:
    depth: `shallow` or `deep`.
    prompt_length: tokens in each layer that has them.
    steps: optimization steps.
    batch_size: images a step.
    images_at_once: images of a micro-batch on each device; gradients of micro-batches are summed.
    learning_rate: peak rate of AdamW; linear warm-up, then a cosine to zero.
    warmup: steps of warm-up.
    weight_decay: of AdamW.
  """

  depth: Annotated[str, OneOf("depth of visual prompts", DEPTHS)] = "deep"
  prompt_length: Annotated[int, AtLeast(1)] = 8
  steps: Annotated[int, AtLeast(1)] = 1000
  batch_size: Annotated[int, AtLeast(1)] = 32
  images_at_once: Annotated[int, AtLeast(1)] = 32
  learning_rate: Annotated[float, Above(0)] = 0.002
  warmup: Annotated[int, AtLeast(0)] = 50
  weight_decay: Annotated[float, AtLeast(0)] = 1e-4
