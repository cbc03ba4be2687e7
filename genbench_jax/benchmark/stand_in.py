"""Draw stand-in images with a dataset's own features and splits, for runs without the data.

They are written by the dataset's real TFDS builder, with its features and label names. Only the images are
drawn: each class has its own shape and colors, so that it can be recognized.
"""

import colorsys
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from genbench_jax.benchmark import derived
from genbench_jax.benchmark.prepare import FILE_FORMAT, STAND_IN_MARKER, builder_for
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.errors import UsageError

# Height and width if the features leave them open; KITTI's images are very wide.
_USUAL_SIZE = (60, 90)
_SIZES = {"kitti_distance": (38, 124)}
# Depth in meters of the single car in the image, for each of KITTI's classes with a vehicle.
_CAR_DEPTHS = (5.0, 15.0, 50.0)
_GOLDEN_RATIO = 0.618


def prepare_stand_in(
  spec: DatasetSpec, data_dir: str | Path, images_per_class: Mapping[str, int], seed: int = 0
) -> None:
  """Prepare drawn images as if they were the dataset, unless they exist.

  Args:
    spec: a dataset with a TFDS name.
    data_dir: TFDS's data folder, new or with stand-ins only.
    images_per_class: split of the spec -> number of images of each class.
    seed: seed of the images.

  Raises:
    UsageError: the folder contains something else.
  """
  _claim(Path(data_dir).expanduser())
  builder = builder_for(spec, data_dir)
  if builder.is_prepared():
    return
  # CIFAR's class names come with its data; set them as the real builder does.
  if spec.data_name.startswith("cifar"):
    builder.info.features[spec.label_key].names = list(spec.label_names)
  counts = _counts(spec, images_per_class)

  def split_generators(dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
    return {name: _examples(spec, builder, name, count, seed) for name, count in counts.items()}

  builder._split_generators = split_generators
  builder.download_and_prepare(file_format=FILE_FORMAT)


def _claim(data_dir: Path) -> None:
  """Mark the folder as containing stand-ins."""
  marker = data_dir / STAND_IN_MARKER
  if data_dir.exists() and any(data_dir.iterdir()) and not marker.exists():
    raise UsageError(f"{data_dir} contains other data. Give an empty folder for stand-ins.")
  data_dir.mkdir(parents=True, exist_ok=True)
  marker.write_text("The datasets in this folder are drawn stand-ins, not the real ones.\n")


def _counts(spec: DatasetSpec, images_per_class: Mapping[str, int]) -> dict[str, int]:
  """Return the number of images per class for each TFDS split."""
  if spec.data_name in derived.DEALS:
    return {"train": 3 * max(images_per_class[split] for split in spec.splits)}
  return {spec.splits[split]: images_per_class[split] for split in spec.splits}


def _examples(
  spec: DatasetSpec, builder: Any, split: str, count: int, seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
  for label in range(spec.num_classes):
    for number in range(count):
      name = f"{split}_{label:04d}_{number:04d}"
      drawer = _Drawer(spec, label, np.random.default_rng([seed, len(split), label, number]))
      example = {key: drawer.fill(feature, name) for key, feature in builder.info.features.items()}
      yield name, {**example, **drawer.labels(builder.info.features)}


class _Drawer:
  """Draw an example of one class."""

  def __init__(self, spec: DatasetSpec, label: int, generator: np.random.Generator):
    self.spec, self.label, self.generator = spec, label, generator

  def fill(self, feature: Any, name: str) -> Any:
    """Return a value for a feature, depending on its type."""
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.Image):
      return self.image(feature)
    if isinstance(feature, tfds.features.ClassLabel):
      return 0
    if isinstance(feature, tfds.features.Text):
      return f"{name}.jpg"
    if isinstance(feature, tfds.features.BBoxFeature):
      return tfds.features.BBox(0.1, 0.1, 0.9, 0.9)
    return []

  def labels(self, features: Any) -> dict[str, Any]:
    """Return the features that contain the class."""
    if self.spec.data_name == "kitti_distance":
      return {"objects": [_kitti_object(self.label)]}
    name = self.spec.label_names[self.label]
    if not self.spec.multi_label:
      return {self.spec.label_key: name}
    # About every second image also has a second label.
    other = self.spec.label_names[(self.label + 1) % self.spec.num_classes]
    names = [name, other] if self.generator.random() < 0.5 else [name]
    return {key: names for key in ("labels", "labels_no_difficult") if key in features}

  def image(self, feature: Any) -> io.BytesIO:
    """Draw a shape and background in the class's colors, with noise, encoded as the feature requires."""
    height, width, channels = feature.shape
    usual_height, usual_width = _SIZES.get(self.spec.data_name, _USUAL_SIZE)
    size = (width or usual_width, height or usual_height)
    image = Image.fromarray(self._noisy(_drawn(self.label, size, self.generator)))
    image = image.convert("L") if channels == 1 else image
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if feature.encoding_format == "png" else "JPEG")
    return io.BytesIO(buffer.getvalue())

  def _noisy(self, image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image, np.float32)
    noise = self.generator.normal(0, 12, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def _drawn(label: int, size: tuple[int, int], generator: np.random.Generator) -> Image.Image:
  """Draw a polygon with 3 to 10 corners, depending on the class, at a random position."""
  image = Image.new("RGB", size, _color(label, 0.35))
  radius = min(size) * generator.uniform(0.25, 0.4)
  x, y = (generator.uniform(radius, side - radius) for side in size)
  ImageDraw.Draw(image).regular_polygon(
    (x, y, radius), 3 + label % 8, generator.uniform(0, 360), fill=_color(label + 0.5, 0.95)
  )
  return image


def _color(label: float, brightness: float) -> tuple[int, ...]:
  """Return a hue far from those of neighboring classes."""
  return tuple(
    round(255 * part) for part in colorsys.hsv_to_rgb(label * _GOLDEN_RATIO % 1, 0.8, brightness)
  )


def _kitti_object(label: int) -> dict[str, Any]:
  """Return a car at the class's distance; for the class without vehicles, a nearby pedestrian."""
  import tensorflow_datasets as tfds

  is_car = label < len(_CAR_DEPTHS)
  return {
    "type": "Car" if is_car else "Pedestrian",
    "truncated": 0.0,
    "occluded": 0,
    "alpha": 0.0,
    "bbox": tfds.features.BBox(0.1, 0.1, 0.9, 0.9),
    "dimensions": (1.5, 1.6, 4.0),
    "location": (0.0, 1.5, _CAR_DEPTHS[label] if is_car else 3.0),
    "rotation_y": 0.0,
  }
