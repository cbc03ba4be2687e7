"""What the benchmark knows of a dataset."""

import dataclasses
from typing import Literal

from genbench_jax.metrics.kinds import Metric

Group = Literal["common", "fine_grained", "rare", "demo", "own"]


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
  """One dataset: its classes, the words for them, its splits and how it is scored.

  Attributes:
    name: our name, the TFDS name where there is one.
    group: common, fine_grained or rare (paper, section 3), demo for the shipped worlds.
    class_names: for each class, in label order, its synonyms; the first is used in prompts.
    templates: prompt templates, each with one `{}` for the class name.
    metric: how recognition is scored on this dataset.
    splits: our split (train, validation, test) -> TFDS split expression.
    split_sizes: our split -> number of images.
    tfds_name: `name[/config]` of the TFDS builder.
    multi_label: whether an image has several classes; labels are then multi-hot.
    resize: `crop` (shorter side, then center crop) or `squash` (straight to the square).
    aliases: other names it is known by, the reference's among them.
    label_names: for each class, what the TFDS builder calls it: labels are mapped by these names,
      never by position. Empty where the builder's order is ours by construction (the worlds).
    image_key, label_key: the TFDS features that hold the image and the label or labels.
    folder: the root of a user's own `split/class/image` tree; `tfds_name` is then empty.
    data_of: the known dataset whose data these are, where names or templates have been changed.
  """

  name: str
  group: Group
  class_names: tuple[tuple[str, ...], ...]
  templates: tuple[str, ...]
  metric: Metric
  splits: dict[str, str]
  split_sizes: dict[str, int]
  tfds_name: str
  multi_label: bool = False
  resize: Literal["crop", "squash"] = "crop"
  aliases: tuple[str, ...] = ()
  label_names: tuple[str, ...] = ()
  image_key: str = "image"
  label_key: str = "label"
  folder: str = ""
  data_of: str = ""

  @property
  def names(self) -> tuple[str, ...]:
    """The first name of each class."""
    return tuple(synonyms[0] for synonyms in self.class_names)

  @property
  def data_name(self) -> str:
    """The known dataset that the data are of; its own name where it is one."""
    return self.data_of or self.name

  @property
  def num_classes(self) -> int:
    return len(self.class_names)
