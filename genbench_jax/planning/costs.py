"""The cost of a config on a machine: images, bytes, operations, device-hours, money."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.cells import Cell, ImageSetKey, image_sets
from genbench_jax.config import Config
from genbench_jax.planning.machines import Machine
from genbench_jax.planning.models import ModelCost, diffusion_cost, encoder_cost, feature_cost
from genbench_jax.planning.training import recognition_flops

# Operations per byte moved for SD 2.1-base: 367 by the TPU compiler's analysis
# (docs/performance.md), rather fewer on GPUs.
OPERATIONS_PER_BYTE = 330
# Assumed fraction of the roofline, which an H100 reached with SD 2.1-base.
EFFICIENCY = 0.4
# Bytes of a generated photograph as PNG, of a stored training image of a dataset, and of a drawn
# image.
PNG_BYTES_PER_PIXEL, STORED_IMAGE_BYTES, DRAWN_IMAGE_BYTES = 1.7, 110_000, 2_000


@dataclasses.dataclass(frozen=True)
class DatasetCost:
  """Cost of one dataset.

  Attributes:
    generated, copied: images to make; `copied` real images is an upper bound, since small classes
      have fewer.
    kept: generated images on disk, including the candidates of a selection.
    test: images of the test split.
    disk: bytes of images and embeddings.
    flops: stage -> operations; None if the model is unknown.
  """

  dataset: str
  num_classes: int
  generated: int
  copied: int
  kept: int
  test: int
  disk: float
  flops: dict[str, float | None]

  @property
  def embedded(self) -> int:
    return self.generated + self.copied + self.test


@dataclasses.dataclass(frozen=True)
class Costs:
  """Cost of a config: its models and datasets.

  Attributes:
    diffusions: the generators by name.
    encoder: the main encoder.
    datasets: cost of each dataset.
    others: the further encoders by name.
  """

  diffusions: Mapping[str, ModelCost]
  encoder: ModelCost
  datasets: tuple[DatasetCost, ...]
  others: Mapping[str, ModelCost] = dataclasses.field(default_factory=dict)

  @property
  def diffusion(self) -> ModelCost | None:
    """The first generator."""
    return next(iter(self.diffusions.values()), None)

  @property
  def models(self) -> dict[str, ModelCost]:
    """Purpose -> model."""
    makes = {f"diffusion {name}".strip(): model for name, model in self.diffusions.items()}
    others = {f"encoder {name}": model for name, model in self.others.items()}
    return {**makes, "encoder": self.encoder, **others}

  def total(self, part: Callable[[DatasetCost], float]) -> float:
    return sum(part(cost) for cost in self.datasets)

  def flops(self, stages: Sequence[str] = ("images", "embed", "recognize")) -> float | None:
    """Return the operations of the stages; None if a model is unknown."""
    found = [cost.flops[stage] for cost in self.datasets for stage in stages]
    known = [flops for flops in found if flops is not None]
    return sum(known) if len(known) == len(found) else None


def costs(config: Config) -> Costs:
  """Compute the cost from configurations, without a device."""
  encoder = config.encoder
  table = config.generators or {"": config.generation}
  makes = "generative" in config.sources
  diffusions = {name: diffusion_cost(settings) for name, settings in table.items()} if makes else {}
  embeds = encoder_cost(encoder.checkpoint, encoder.revision, encoder.batch_per_device)
  others = {
    name: feature_cost(encoder.checkpoint, encoder.revision, encoder.batch_per_device)
    for name, encoder in config.encoders.items()
  }
  encoders = (embeds, *others.values())
  datasets = tuple(_dataset(config, name, diffusions, encoders) for name in config.specs)
  return Costs(diffusions, embeds, datasets, others)


def set_size(key: ImageSetKey, config: Config) -> int:
  """Return the maximum number of images of an image set; a class of real images may have fewer."""
  spec = config.spec(key.dataset)
  wanted = spec.num_classes * max(config.shots)
  return min(wanted, _split_size(spec, "train", config)) if key.source == "original" else wanted


def _split_size(spec: DatasetSpec, split: str, config: Config) -> int:
  if config.stand_in and spec.tfds_name:
    return config.stand_in * spec.num_classes
  return spec.split_sizes.get(split, 0)


def _dataset(
  config: Config, name: str, diffusions: Mapping[str, ModelCost], encoders: Sequence[ModelCost]
) -> DatasetCost:
  spec = config.spec(name)
  keys = [key for key in image_sets(config) if key.dataset == name]
  made = [key for key in keys if key.source == "generative"]
  measured = sum(set_size(key, config) for key in made)
  of_one = config.selection.made_for_one
  generated = measured * of_one
  share = config.generation.kept_images(max(config.shots)) / max(config.shots)
  chosen = measured if config.selection.is_on else 0
  kept = round(generated * share) + chosen
  copied = sum(set_size(key, config) for key in keys if key.source != "generative")
  test = _split_size(spec, "test", config)
  drawn = not spec.tfds_name or config.stand_in
  pixels = [diffusions[key.generator].pixels for key in made]
  images = kept * PNG_BYTES_PER_PIXEL * (sum(pixels) / max(1, len(pixels)))
  images += copied * (DRAWN_IMAGE_BYTES if drawn else STORED_IMAGE_BYTES)
  embeddings = (measured + copied + test) * sum(4 * encoder.width + 13 for encoder in encoders)
  embedded, known = generated + copied + test, [encoder.flops for encoder in encoders]
  flops_of_one = None if None in known else sum(flops for flops in known if flops is not None)
  flops = {
    "images": _sum(
      _times(of_one * set_size(key, config), diffusions[key.generator].flops) for key in made
    ),
    "embed": _times(embedded, flops_of_one),
    "recognize": recognition_flops(
      config,
      name,
      spec.num_classes,
      test,
      encoders[0],
      functools.partial(_cell_size, config, spec.num_classes),
    ),
  }
  disk = images + embeddings
  return DatasetCost(name, spec.num_classes, generated, copied, kept, test, disk, flops)


def _sum(parts: Iterable[float | None]) -> float | None:
  """Return the sum; None if a part is unknown."""
  found = list(parts)
  return None if None in found else sum(part for part in found if part is not None)


def _times(count: int, flops: float | None) -> float | None:
  return 0.0 if not count else None if flops is None else count * flops


def _cell_size(config: Config, num_classes: int, cell: Cell) -> int:
  """Return the maximum number of images of a cell."""
  key = ImageSetKey(cell.dataset, cell.source, cell.strategy, cell.seed, cell.generator)
  return min(cell.shots * num_classes, set_size(key, config))


def chip_hours(flops: float, machine: Machine, efficiency: float = EFFICIENCY) -> float:
  """Return the hours of one chip, by the slower of arithmetic and memory.

  Args:
    flops: operations.
    machine: the chip.
    efficiency: fraction of the roofline that is reached.
  """
  arithmetic = flops / (machine.tflops * 1e12)
  memory = flops / OPERATIONS_PER_BYTE / (machine.bandwidth_gbs * 1e9)
  return max(arithmetic, memory) / efficiency / 3600
