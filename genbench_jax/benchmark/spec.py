"""Description of a dataset."""

import dataclasses
from typing import Literal, get_args

from genbench_jax.metrics.kinds import Metric

Group = Literal["common", "fine_grained", "rare", "demo", "own"]
Resize = Literal["crop", "squash"]
RESIZES: tuple[str, ...] = get_args(Resize)


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
  """A dataset: its classes, their names, its splits and its metric.

  Attributes:
    name: our name; the TFDS name if there is one.
    group: common, fine_grained or rare (paper, section 3), demo for the shipped worlds, or own.
    class_names: synonyms of each class, in label order; prompts use the first one.
    templates: prompt templates, each with one `{}` for the class name.
    metric: metric of recognition on this dataset.
    splits: our split (train, validation, test) -> TFDS split expression.
    split_sizes: our split -> number of images.
    tfds_name: `name[/config]` of the TFDS builder.
    multi_label: whether an image may have several classes; labels are then multi-hot.
    resize: `crop` (resize the shorter side, then center-crop) or `squash` (resize to the square).
    aliases: other names, such as the reference's.
    label_names: the TFDS builder's name of each class. Labels are mapped by these names, never by position.
      Empty if the builder's order is ours by construction (the worlds).
    image_key, label_key: TFDS features with the image and with the label or labels.
    folder: root of a user's tree `split/class/image`; `tfds_name` is then empty.
    data_of: the known dataset with the same data, if names or templates have been changed.
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
  resize: Resize = "crop"
  aliases: tuple[str, ...] = ()
  label_names: tuple[str, ...] = ()
  image_key: str = "image"
  label_key: str = "label"
  folder: str = ""
  data_of: str = ""

  @property
  def names(self) -> tuple[str, ...]:
    """First name of each class."""
    return tuple(synonyms[0] for synonyms in self.class_names)

  @property
  def data_name(self) -> str:
    """Name of the known dataset that contains the data; otherwise the dataset's own name."""
    return self.data_of or self.name

  @property
  def prepare_name(self) -> str:
    """Argument of `genbench benchmark prepare`."""
    is_own = self.group == "own" and not self.data_of
    return f"tfds:{self.tfds_name}" if is_own and self.tfds_name else self.data_name

  @property
  def num_classes(self) -> int:
    return len(self.class_names)
