"""Image preprocessing of an encoder, read from `preprocessor_config.json`.

Another filter, crop or scale changes the features silently. So every setting is either implemented
exactly or rejected.
"""

import dataclasses
from pathlib import Path
from typing import Any, TypeAlias

from genbench_jax.models import checkpoints
from genbench_jax.models.configuration import MOST_PIXELS, Settings

Triple: TypeAlias = tuple[float, float, float]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

# PIL's filters, in the order of PIL's numbers, which configurations use.
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
UNDERSTOOD = frozenset({
  "crop_size", "data_format", "default_to_square", "device", "disable_grouping", "do_center_crop", "do_convert_rgb",
  "do_normalize", "do_rescale", "do_resize", "feature_extractor_type", "image_mean", "image_processor_type",
  "image_std", "input_data_format", "processor_class", "resample", "rescale_factor", "return_tensors", "size",
  "auto_map", "_valid_processor_keys", "image_seq_length",
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ImageInput:
  """Image preprocessing: resize with PIL, crop to a square, scale to 0..1, subtract `mean`, divide by `std`.

  Scaling to another range than 0..1 is expressed by dividing `mean` and `std` by its upper end.

  Attributes:
    size: side of the square, in pixels.
    resized: side in pixels to resize to before the center crop; 0 means `size`.
    keep_aspect: whether `resized` is the shorter side and the aspect is kept; otherwise both sides are
      resized to it.
    filter: PIL's filter, one of `FILTERS`; all but `nearest` are antialiased.
    mean, std: of the red, green and blue channels, in units where white is 1.
    ways: supported ways to make an image square; the first is the encoder's own. `crop` applies the
      settings above, `squash` resizes both sides; for the others see `embedding.fid_resize`.
  """

  size: int
  resized: int = 0
  keep_aspect: bool = True
  filter: str = "bicubic"
  mean: Triple = OPENAI_MEAN
  std: Triple = OPENAI_STD
  ways: tuple[str, ...] = ("crop", "squash")

  @property
  def before_crop(self) -> int:
    """Side, shorter or both, to which images are resized before the crop, in pixels."""
    return self.resized or self.size


def read_image_input(folder: Path, defaults: ImageInput) -> ImageInput:
  """Read `preprocessor_config.json` in a checkpoint's folder.

  Args:
    folder: folder of the checkpoint.
    defaults: values for a missing file or setting.

  Raises:
    RunError: a setting is damaged or not implemented.
  """
  path = folder / "preprocessor_config.json"
  if not path.is_file():
    return defaults
  settings = Settings(checkpoints.read_json(path), path)
  unknown = sorted(set(settings.values) - UNDERSTOOD)
  for name in unknown:
    if settings.values[name] not in (None, False):
      raise settings.error(name, "only resizing, cropping, scaling and normalization are supported")
  settings.refuse_all_but({"do_resize": True})
  crops = settings.flag("do_center_crop", defaults.keep_aspect)
  resized, keep_aspect = _resized(settings, defaults)
  size = _side(settings, "crop_size", defaults.size) if crops else resized
  if not crops and keep_aspect:
    raise settings.error("do_center_crop", "without a center crop, images would not become square")
  if settings.values.get("size") is None:
    resized = max(resized, size)
  if size > resized:
    raise settings.error(
      "size", f"it must be at least the crop, {size}, because images are not padded"
    )
  mean, std = _normalization(settings, defaults)
  return ImageInput(
    size=size,
    resized=0 if resized == size else resized,
    keep_aspect=keep_aspect,
    filter=FILTERS[
      settings.integer("resample", FILTERS.index(defaults.filter), 0, len(FILTERS) - 1)
    ],
    mean=mean,
    std=std,
    ways=defaults.ways,
  )


def _resized(settings: Settings, defaults: ImageInput) -> tuple[int, bool]:
  """Return the side to resize to before the crop, and whether that keeps the aspect."""
  size = settings.values.get("size")
  if size is None:
    return defaults.before_crop, defaults.keep_aspect
  if not isinstance(size, dict):
    return _bounded(settings, "size", size), defaults.keep_aspect
  if set(size) == {"shortest_edge"}:
    return _bounded(settings, "size", size["shortest_edge"]), True
  if set(size) == {"height", "width"} and size["height"] == size["width"]:
    return _bounded(settings, "size", size["height"]), False
  raise settings.error("size", "expected shortest_edge, or equal height and width")


def _side(settings: Settings, name: str, default: int) -> int:
  """Return the side of a square, given as a number or as equal height and width."""
  value: Any = settings.values.get(name)
  if value is None:
    return default
  if isinstance(value, dict):
    if set(value) != {"height", "width"} or value["height"] != value["width"]:
      raise settings.error(name, "expected equal height and width")
    value = value["height"]
  return _bounded(settings, name, value)


def _bounded(settings: Settings, name: str, value: Any) -> int:
  if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_PIXELS:
    raise settings.error(name, f"expected pixels, from 1 to {MOST_PIXELS}")
  return value


def _normalization(settings: Settings, defaults: ImageInput) -> tuple[Triple, Triple]:
  """Return mean and std for pixels in 0..1."""
  mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
  if settings.flag("do_normalize", True):
    mean = triple(settings, "image_mean", defaults.mean, -1e3)
    std = triple(settings, "image_std", defaults.std, 1e-6)
  factor = 1.0
  if settings.flag("do_rescale", True):
    factor = settings.number("rescale_factor", 1 / 255, low=1e-6, high=1.0)
  # Checkpoints may scale to 0..white: (white x - mean) / std = (x - mean / white) / (std / white).
  white = 255 * factor
  if abs(white - 1) < 1e-6:
    return mean, std
  return (mean[0] / white, mean[1] / white, mean[2] / white), (
    std[0] / white,
    std[1] / white,
    std[2] / white,
  )


def triple(settings: Settings, name: str, default: Triple, low: float) -> Triple:
  """Return one number per channel, from a list or from a single number for all channels.

  Args:
    settings: the preprocessor configuration.
    name: name of the setting.
    default: value if it is not set.
    low: smallest allowed number.

  Raises:
    RunError: it is neither a number nor three, or too small.
  """
  value: Any = settings.values.get(name)
  values = default if value is None else value
  values = [values] * 3 if isinstance(values, int | float) else values
  wanted = f"expected three numbers from {low:g} to 1000"
  if not isinstance(values, list | tuple) or len(values) != 3:
    raise settings.error(name, wanted)
  red, green, blue = values
  for number in (red, green, blue):
    if isinstance(number, bool) or not isinstance(number, int | float) or not low <= number <= 1e3:
      raise settings.error(name, wanted)
  return float(red), float(green), float(blue)
