"""Example images with their prompts."""

import base64
import collections
import dataclasses
import io
import math
from collections.abc import Iterator, Mapping, Sequence

from genbench_jax.errors import RunError
from genbench_jax.report.labels import series_label
from genbench_jax.report.legend import css_of
from genbench_jax.report.results import Series

# Bytes of the page for examples, and of the markup of one example.
IMAGE_BUDGET, MARKUP = 6_000_000, 400
# Negative prompts can name every other class; long ones are truncated.
LONGEST_PROMPT = 400
MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}


@dataclasses.dataclass(frozen=True)
class Nearest:
  """The test image with the most similar features, as PNG or JPEG; `cosine` is the similarity."""

  image: bytes
  class_name: str
  cosine: float


@dataclasses.dataclass(frozen=True)
class ImageVerdict:
  """Zero-shot prediction of an image.

  Attributes:
    class_name: class with the nearest text.
    right: whether it is one of the image's own classes.
    margin: cosine with the text of its own class minus the largest cosine with another's; negative
      if wrong.
  """

  class_name: str
  right: bool
  margin: float


@dataclasses.dataclass(frozen=True)
class Entry:
  """One image. `image` holds the bytes of a PNG or JPEG file; prompts are None if there are none.

  `index` is the position in the image set. The same index in two sets has the same class and, if
  the generators' noise has the same shape, the same seed.
  """

  class_name: str
  image: bytes
  prompt: str | None = None
  negative_prompt: str | None = None
  seed: int | None = None
  nearest: Nearest | None = None
  judged: ImageVerdict | None = None
  index: int | None = None


@dataclasses.dataclass(frozen=True)
class Gallery:
  """Examples from one image set; those of a class are shown in the given order."""

  dataset: str
  source: str
  strategy: str
  entries: Sequence[Entry]
  generator: str = ""
  hue: int = 0

  @property
  def css(self) -> str:
    return css_of(Series(self.source, "", self.generator, self.hue))

  @property
  def label(self) -> str:
    return series_label(self.source, self.strategy, self.generator)

  @property
  def is_real(self) -> bool:
    return self.source in ("original", "retrieval")


@dataclasses.dataclass(frozen=True)
class Picture:
  """An entry as embedded in the page."""

  entry: Entry
  uri: str
  width: int
  height: int
  nearest_uri: str | None = None


@dataclasses.dataclass(frozen=True)
class ClassRow:
  """One class: its pictures for each image set of the wall, and the gain from the images."""

  class_name: str
  pictures: tuple[tuple[Picture, ...], ...]
  gain: float | None = None


@dataclasses.dataclass(frozen=True)
class Wall:
  """All examples of a dataset: one column per image set, one row per class."""

  dataset: str
  sets: tuple[Gallery, ...]
  rows: tuple[ClassRow, ...]


def fit(galleries: Sequence[Gallery], budget: int = IMAGE_BUDGET) -> tuple[list[Gallery], int]:
  """Return the galleries reduced to `budget` bytes of the page, and the number of omitted images.

  Images are omitted evenly: the first image of every class comes before the second of any, and all
  image sets show the same classes.
  """
  queue = sorted(
    (turn, rank, index, place)
    for index, gallery in enumerate(galleries)
    for place, (turn, rank) in enumerate(_turns_and_ranks(gallery))
  )
  kept: set[tuple[int, int]] = set()
  for _, _, index, place in queue:
    budget -= weight(galleries[index].entries[place])
    if budget < 0:
      break
    kept.add((index, place))
  cut = [
    dataclasses.replace(
      gallery, entries=tuple(e for i, e in enumerate(gallery.entries) if (index, i) in kept)
    )
    for index, gallery in enumerate(galleries)
  ]
  return cut, len(queue) - len(kept)


def _turns_and_ranks(gallery: Gallery) -> Iterator[tuple[int, int]]:
  """Return, for each entry, the number of earlier images of its class and the rank of its class."""
  ranks: dict[str, int] = {}
  turns: collections.Counter[str] = collections.Counter()
  for entry in gallery.entries:
    yield turns[entry.class_name], ranks.setdefault(entry.class_name, len(ranks))
    turns[entry.class_name] += 1


def weight(entry: Entry) -> int:
  """Estimate the bytes of the page that an entry takes: base64 and text."""
  words = len(entry.prompt or "") + len(_cut(entry.negative_prompt) or "")
  pixels = len(entry.image) + (len(entry.nearest.image) + MARKUP if entry.nearest else 0)
  return pixels * 4 // 3 + words + MARKUP


def walls(
  galleries: Sequence[Gallery],
  gains: Mapping[str, Mapping[str, float]] | None = None,
  hues: Mapping[str, int] | None = None,
) -> list[Wall]:
  """Return the galleries by dataset, class and image set, in the given order.

  Args:
    galleries: examples.
    gains: dataset -> class name -> gain from the images; classes of such a dataset are sorted from
      best to worst.
    hues: generator -> its position among all generators, which determines its color.

  Raises:
    RunError: an image is neither PNG nor JPEG, or cannot be read.
  """
  galleries = [
    dataclasses.replace(gallery, hue=(hues or {}).get(gallery.generator, 0))
    for gallery in galleries
  ]
  datasets = dict.fromkeys(gallery.dataset for gallery in galleries)
  return [
    _wall(name, [g for g in galleries if g.dataset == name], (gains or {}).get(name, {}))
    for name in datasets
  ]


def _wall(dataset: str, galleries: Sequence[Gallery], gains: Mapping[str, float]) -> Wall:
  classes = list(dict.fromkeys(e.class_name for gallery in galleries for e in gallery.entries))
  classes.sort(key=lambda name: -gains.get(name, -math.inf))
  rows = tuple(
    ClassRow(
      name,
      tuple(
        tuple(_picture(e, dataset) for e in gallery.entries if e.class_name == name)
        for gallery in galleries
      ),
      gains.get(name),
    )
    for name in classes
  )
  return Wall(dataset, tuple(galleries), rows)


def _picture(entry: Entry, dataset: str) -> Picture:
  what = f"gallery of {dataset!r}, class {entry.class_name!r}"
  uri, size = _uri(entry.image, what)
  shown = dataclasses.replace(entry, negative_prompt=_cut(entry.negative_prompt))
  nearest = _uri(entry.nearest.image, f"{what}, nearest test image")[0] if entry.nearest else None
  return Picture(shown, uri, *size, nearest)


def _uri(data: bytes, what: str) -> tuple[str, tuple[int, int]]:
  """Return the image as a data URI with its size. The type comes from the bytes, not from a name."""
  from PIL import Image, UnidentifiedImageError

  try:
    with Image.open(io.BytesIO(data), formats=list(MEDIA_TYPES)) as image:
      media_type, size = MEDIA_TYPES[str(image.format)], image.size
  except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
    raise RunError(f"{what}: not a readable PNG or JPEG ({error}).") from error
  return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}", size


def _cut(prompt: str | None) -> str | None:
  if prompt is None or len(prompt) <= LONGEST_PROMPT:
    return prompt
  return f"{prompt[:LONGEST_PROMPT]}… ({len(prompt)} characters in all)"
