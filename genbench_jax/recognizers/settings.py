"""Settings of the recognizers that train: sections of the config, so nothing heavy is imported."""

import dataclasses
import math
from typing import Annotated

from genbench_jax.errors import UsageError
from genbench_jax.models.classifier_shapes import NETWORKS, STEMS
from genbench_jax.runtime.protocol import PROTOCOLS
from genbench_jax.runtime.settings import Above, AtLeast, AtMost, Below, Distinct, LocalPath, OneOf

POSITIONS = ("end", "middle")
DEPTHS = ("shallow", "deep")


@dataclasses.dataclass(frozen=True)
class CoopSettings:
  """Learned context in the text tower. The defaults are the paper's, except for the steps.

  Attributes:
    context_length: number of context vectors, unless `template` sets it.
    per_class: whether each class has its own context.
    position: context before the class name (`end`), or half before and half after it (`middle`).
    template: initial words, such as "a photo of a"; empty means normal noise with deviation 0.02.
    steps: optimization steps.
    batch_size: images per step.
    learning_rate: peak rate of SGD with momentum 0.9; linear warm-up, then a cosine to zero.
    warmup: warm-up steps.
    weight_decay: L2 penalty added to the gradient.
    classes_at_once: classes in the text tower at once, on each device.
    paper: use the paper's length, warm-up and augmentation: 50 epochs at 1 shot, 100 at 2 to 4 and
      200 beyond, the first at a constant 1e-5. Images are cropped (8 % of the area or more),
      mirrored and encoded at each step.
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
  paper: bool = False

  def for_images(self, num_images: int, num_classes: int) -> "CoopSettings":
    """Return the settings, with the paper's epochs for this number of images if `paper` is set."""
    if not self.paper:
      return self
    shots = -(-num_images // num_classes)
    epochs = 50 if shots <= 1 else 100 if shots <= 4 else 200
    steps_of_epoch = -(-num_images // min(self.batch_size, num_images))
    return dataclasses.replace(self, steps=epochs * steps_of_epoch, warmup=steps_of_epoch)


@dataclasses.dataclass(frozen=True)
class VptSettings:
  """Learned tokens in the vision tower.

  Attributes:
    depth: `shallow` or `deep`.
    prompt_length: number of tokens in each layer that has them.
    steps: optimization steps.
    batch_size: images per step.
    images_at_once: images of a micro-batch on each device; gradients of micro-batches are summed.
    learning_rate: peak rate of AdamW; linear warm-up, then a cosine to zero.
    warmup: warm-up steps.
    weight_decay: weight decay of AdamW.
    paper: use the paper's head, optimizer, length and augmentation: a linear classifier trained
      from random weights instead of the text prototypes, SGD with momentum 0.9, 100 epochs with 10
      of warm-up, random crops and mirroring.
    search: use the paper's search: each of its rates (0.05 to 50 at batch 256) with each of its
      decays (0 to 0.01) is trained on four fifths of the images and tested on the others, 40
      trainings in all. The best pair replaces `learning_rate` and `weight_decay`.
  """

  depth: Annotated[str, OneOf("depth of visual prompts", DEPTHS)] = "deep"
  prompt_length: Annotated[int, AtLeast(1)] = 8
  steps: Annotated[int, AtLeast(1)] = 1000
  batch_size: Annotated[int, AtLeast(1)] = 32
  images_at_once: Annotated[int, AtLeast(1)] = 32
  learning_rate: Annotated[float, Above(0)] = 0.002
  warmup: Annotated[int, AtLeast(0)] = 50
  weight_decay: Annotated[float, AtLeast(0)] = 1e-4
  paper: bool = False
  search: bool = False

  def for_images(self, num_images: int) -> "VptSettings":
    """Return the settings, with the paper's 100 epochs, ten of them warm-up, if `paper` is set."""
    if not self.paper:
      return self
    steps = 100 * -(-num_images // min(self.batch_size, num_images))
    return dataclasses.replace(self, steps=steps, warmup=steps // 10)


# Search grid of the VPT paper (appendix A): rates at batch 256, which scale with the batch, and
# decays.
VPT_RATES = (50.0, 25.0, 10.0, 5.0, 2.5, 1.0, 0.5, 0.25, 0.1, 0.05)
VPT_DECAYS = (0.01, 0.001, 0.0001, 0.0)
OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "steps", "constant")
LORA_TOWERS = ("both", "image", "text")
LORA_PAPERS = ("clip_lora", "datadream")
Share = Annotated[float, AtLeast(0), AtMost(1)]
Positive = Annotated[float, Above(0)]
NotNegative = Annotated[float, AtLeast(0)]
Count = Annotated[int, AtLeast(1)]
Natural = Annotated[int, AtLeast(0)]
Shots = Annotated[tuple[int, ...], AtLeast(1)]


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Training of a network on the images of a cell. Every step is a function of (seed, step).

  Attributes:
    optimizer: `sgd` with momentum and weight decay in the gradient, as in PyTorch, or `adamw`.
    learning_rate: peak learning rate.
    momentum: momentum of SGD.
    weight_decay: decay of weights with two or more axes; biases and norms have none.
    schedule: after the warm-up: half a `cosine` to zero, `steps` (divided by ten after 1/3, 2/3 and
      8/9), or `constant`.
    warmup: fraction of the steps in which the rate rises linearly.
    epochs: passes over the images.
    min_steps: minimum number of steps, so that few images are seen often enough.
    batch_size: images per step, over all devices. A batch continues into the next epoch, so all
      have this size.
    accumulate: number of parts of a batch that are computed in sequence, with summed gradients; it
      must divide the batch. Batch normalization then uses one part at a time.
    label_smoothing: probability mass that is spread over all classes.
    min_crop: smallest fraction of the area that a random crop keeps; 1 disables cropping.
    flip: whether half of the images are mirrored.
    randaugment: number of RandAugment operations per image; 0 for none.
    randaugment_magnitude: their strength, 0 to 10.
    mixup, cutmix: parameter of the Beta distribution of the mixing ratio; 0 disables it. With both,
      each batch uses one at random.
    ema: decay of a running average of the weights, which is tested instead; 0 disables it.
    clip_norm: maximum norm of the gradient; 0 for no limit.
    search_rates, search_epochs: `strict` tries these multiples of `learning_rate` and of the steps
      on held-out external images and uses the best; with one value each, nothing is searched.
  """

  optimizer: Annotated[str, OneOf("optimizer", OPTIMIZERS)] = "sgd"
  learning_rate: Positive = 0.1
  momentum: Share = 0.9
  weight_decay: NotNegative = 5e-4
  schedule: Annotated[str, OneOf("schedule", SCHEDULES)] = "cosine"
  warmup: Share = 0.05
  epochs: NotNegative = 100.0
  min_steps: Natural = 400
  batch_size: Count = 64
  accumulate: Count = 1
  label_smoothing: Share = 0.1
  min_crop: Annotated[float, Above(0), AtMost(1)] = 0.25
  flip: bool = True
  randaugment: Natural = 0
  randaugment_magnitude: Annotated[float, AtLeast(0), AtMost(10)] = 9.0
  mixup: NotNegative = 0.0
  cutmix: NotNegative = 0.0
  ema: Share = 0.0
  clip_norm: NotNegative = 0.0
  search_rates: Annotated[tuple[float, ...], Above(0)] = (0.3, 1.0)
  search_epochs: Annotated[tuple[float, ...], Above(0)] = (0.3, 1.0)

  def check(self, path: str) -> None:
    """Check that a batch has equal parts.

    Raises:
      UsageError: it has not; the message begins with `path`.
    """
    if self.batch_size < 1 or self.accumulate < 1 or self.batch_size % self.accumulate:
      raise UsageError(
        f"{path}: a batch of {self.batch_size} can't be computed in {self.accumulate} equal parts."
      )

  def num_steps(self, num_images: int) -> int:
    """Return the number of steps for a number of images."""
    return max(1, self.min_steps, math.ceil(self.epochs * num_images / self.batch_size))


@dataclasses.dataclass(frozen=True)
class FromScratchSettings:
  """A network trained from random weights on the images of a cell.

  Attributes:
    network: name in `models/classifiers.py`: `resnet18`, `resnet50`, `vit_s16`; for 32 pixels
      `resnet8`, `vit_tiny`.
    image_size: side of the images, in pixels.
    stem: stem of a residual network: `standard`, `small`, `small_half`, or `auto`, which means
      `small` up to 64 pixels.
    shots: shots of the cells to train; empty means all. Training is expensive, and few images teach
      a network little.
    cells_at_once: cells of equal size in one program (`vmap`). 0 means one on CPU, where grouped
      convolutions are slow, and up to 8 of at most 64 pixels elsewhere.
    recipe: training settings.
  """

  network: Annotated[str, OneOf("network", NETWORKS)] = "resnet18"
  image_size: Count = 64
  stem: Annotated[str, OneOf("stem", STEMS)] = "auto"
  shots: Shots = ()
  cells_at_once: Natural = 0
  recipe: Recipe = dataclasses.field(default_factory=Recipe)


def _fine_tune_recipe() -> Recipe:
  return Recipe(
    optimizer="adamw", learning_rate=1e-5, weight_decay=0.1, epochs=10.0, min_steps=200, batch_size=64,
    label_smoothing=0.0, min_crop=0.5, clip_norm=1.0,
  )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FineTuneSettings:
  """A pretrained network with a head for the classes; all weights or the last blocks are trained.

  Attributes:
    checkpoint: empty for the run's CLIP, with a head initialized from the text prototypes; or a
      `resnet50`, `resnet18` or `vit_s16` with ImageNet weights, folder or hub id, with a head
      initialized to zero.
    network: network of `checkpoint`.
    image_size: input side of `checkpoint`, in pixels.
    revision: hub revision, a commit; empty for local folders.
    sha256: checksum of the checkpoint.
    blocks: number of last blocks to train, together with the norm and head after them; 0 trains all
      weights.
    layer_decay: factor on the learning rate for each block further from the head.
    wise_ft: weight of the fine-tuned weights in the average with the zero-shot model's; 1 is the
      fine-tuned model.
    shots: shots of the cells to train; empty means all.
    recipe: training settings.
  """

  checkpoint: Annotated[str, LocalPath()] = ""
  network: Annotated[str, OneOf("network", NETWORKS)] = "resnet50"
  image_size: Count = 224
  revision: str = ""
  sha256: str = ""
  blocks: Natural = 0
  layer_decay: Annotated[float, Above(0), AtMost(1)] = 0.75
  wise_ft: Share = 1.0
  shots: Shots = ()
  recipe: Recipe = dataclasses.field(default_factory=_fine_tune_recipe)


def _lora_recipe() -> Recipe:
  return Recipe(
    optimizer="adamw", learning_rate=2e-4, weight_decay=1e-2, epochs=50.0, min_steps=300, batch_size=32,
    label_smoothing=0.0, min_crop=0.5,
  )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LettersOf:
  """At least one letter, of these."""

  letters: str

  def check(self, value: str, path: str) -> None:
    if not value or set(value) - set(self.letters):
      raise UsageError(f"{path} is {value!r}, expected letters of {self.letters!r}.")


@dataclasses.dataclass(frozen=True)
class Template:
  """A text with a place for the class name; or none."""

  def check(self, value: str, path: str) -> None:
    if value and "{}" not in value:
      raise UsageError(f"{path} is {value!r}, expected a text with {{}} for the class name.")


@dataclasses.dataclass(frozen=True)
class LoraSettings:
  """Low-rank updates of both towers of the run's CLIP.

  Attributes:
    rank: rank of the updates.
    alpha: updates are scaled by alpha / rank.
    dropout: fraction of their inputs that is dropped in training.
    matrices: matrices of each attention that have an update: letters among `q`, `k`, `v` and `o`.
    towers: `both`, `image` or `text`.
    template: prompt of the classes; empty uses the dataset's own, one at a time.
    paper: recipe of the protocol `reference`: `clip_lora` (arXiv 2405.18541) or `datadream`
      (2407.10910).
    shots: shots of the cells to train; empty means all.
    recipe: training settings.
  """

  rank: Count = 4
  alpha: NotNegative = 4.0
  dropout: Annotated[float, AtLeast(0), Below(1)] = 0.1
  matrices: Annotated[str, LettersOf("qkvo")] = "qkv"
  towers: Annotated[str, OneOf("tower of lora", LORA_TOWERS)] = "both"
  template: Annotated[str, Template()] = ""
  paper: Annotated[str, OneOf("paper of lora", LORA_PAPERS)] = "clip_lora"
  shots: Shots = ()
  recipe: Recipe = dataclasses.field(default_factory=_lora_recipe)


@dataclasses.dataclass(frozen=True)
class TipAdapterSettings:
  """A cache of features and labels combined with the zero-shot classifier.

  Attributes:
    train: whether the cached features are trained further (Tip-Adapter-F).
    alpha: weight of the cache.
    beta: sharpness of its similarities.
    search_alphas, search_betas: values that `strict` searches on held-out external images.
    epochs: training epochs.
    min_steps: minimum number of training steps.
    batch_size: images per step.
    learning_rate: peak rate of AdamW; a cosine to zero.
  """

  train: bool = False
  alpha: NotNegative = 1.0
  beta: Positive = 5.5
  search_alphas: Annotated[tuple[float, ...], AtLeast(0)] = (0.1, 0.3, 1.0, 3.0, 10.0)
  search_betas: Annotated[tuple[float, ...], Above(0)] = (1.0, 2.0, 5.5, 10.0, 20.0)
  epochs: NotNegative = 20.0
  min_steps: Natural = 50
  batch_size: Count = 256
  learning_rate: Positive = 1e-3


RECOGNIZERS = (
  "linear_probe",
  "coop",
  "vpt",
  "tip_adapter",
  "lora",
  "fine_tune",
  "from_scratch",
)


@dataclasses.dataclass(frozen=True)
class Recognition:
  """The recognizers and their protocols.

  Attributes:
    recognizers: `linear_probe`; `coop` (learned context in the text tower) and `vpt` (learned
      tokens in the vision tower), which have only the strict protocol; `tip_adapter` (a cache of
      features); `lora` (low-rank updates of both towers); `fine_tune` (the vision tower);
      `from_scratch` (a network that sees only the images of the cell).
    protocols: protocols of all recognizers but `coop` and `vpt`.
    language_init: whether the linear probe starts at the zero-shot classifier and is regularized
      toward it. Without it, the probe uses no text and measures the external images alone.
    save_predictions: whether to keep the scores of all test images, n_test x classes numbers per
      cell.
    save_every: training steps between two checkpoints.
  """

  recognizers: Annotated[tuple[str, ...], Distinct(), OneOf("recognizer", RECOGNIZERS)] = (
    "linear_probe",
  )
  protocols: Annotated[tuple[str, ...], Distinct(), OneOf("protocol", PROTOCOLS)] = ("strict",)
  language_init: bool = True
  save_predictions: bool = True
  save_every: Annotated[int, AtLeast(1)] = 100
  coop: CoopSettings = dataclasses.field(default_factory=CoopSettings)
  vpt: VptSettings = dataclasses.field(default_factory=VptSettings)
  tip_adapter: TipAdapterSettings = dataclasses.field(default_factory=TipAdapterSettings)
  lora: LoraSettings = dataclasses.field(default_factory=LoraSettings)
  fine_tune: FineTuneSettings = dataclasses.field(default_factory=FineTuneSettings)
  from_scratch: FromScratchSettings = dataclasses.field(default_factory=FromScratchSettings)

  def trains_on_images(self, recognizer: str) -> bool:
    """Return whether a recognizer reads images instead of features."""
    if recognizer == "coop":
      return self.coop.paper
    return recognizer not in ("linear_probe", "tip_adapter")

  def shots_of(self, recognizer: str) -> tuple[int, ...]:
    """Return the shots whose cells a recognizer trains; empty means all."""
    settings = getattr(self, recognizer, None)
    return getattr(settings, "shots", ())
