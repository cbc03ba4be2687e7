"""Example images with the prompts that made them."""

import base64
import collections
import dataclasses
import io
import math
from collections.abc import Iterator, Mapping, Sequence

from genbench_jax.errors import RunError
from genbench_jax.report.legend import css_of
from genbench_jax.report.quantities import series_label
from genbench_jax.report.results import Series

# Bytes of the page that examples may take, and that the markup of one takes.
IMAGE_BUDGET, MARKUP = 6_000_000, 400
# Negative prompts name every other class: of a long one the beginning is shown.
LONGEST_PROMPT = 400
MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}


@dataclasses.dataclass(frozen=True)
class Nearest:
  """The test image whose features are most like an image's, as PNG or JPEG; `cosine` says how like."""

  image: bytes
  class_name: str
  cosine: float


@dataclasses.dataclass(frozen=True)
class ImageVerdict:
  """What zero-shot takes an image for.

  Attributes:
    class_name: the class with the nearest text.
    right: whether that is one of the image's own classes.
    margin: cosine with its own class's text less the largest with another's: below 0 where it is wrong.
  """

  class_name: str
  right: bool
  margin: float


@dataclasses.dataclass(frozen=True)
class Entry:
  """One image. `image` is a PNG or JPEG file's bytes; prompts are None where there is none.

  `index` is its place in the image set: the same index of two sets has the same class and, where a
  generator's noise allows it, the same seed.
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
  """Examples from one image set; those of a class are shown in the order given."""

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
  """An entry as the page embeds it."""

  entry: Entry
  uri: str
  width: int
  height: int
  nearest_uri: str | None = None


@dataclasses.dataclass(frozen=True)
class ClassRow:
  """One class of a dataset: for each image set of the wall, its pictures of the class; and what the images add to it."""

  class_name: str
  pictures: tuple[tuple[Picture, ...], ...]
  gain: float | None = None


@dataclasses.dataclass(frozen=True)
class Wall:
  """All the examples of a dataset: a column for each image set, a row for each class."""

  dataset: str
  sets: tuple[Gallery, ...]
  rows: tuple[ClassRow, ...]


def fit(galleries: Sequence[Gallery], budget: int = IMAGE_BUDGET) -> tuple[list[Gallery], int]:
  """The galleries cut to `budget` bytes of the page, and how many images that left out.

  What is cut is cut evenly: the first image of every class comes before the second of any, and a
  class comes with the same class of the other image sets.
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
  """Of each entry: how many of its class stand before it, and which class of the set it is."""
  ranks: dict[str, int] = {}
  turns: collections.Counter[str] = collections.Counter()
  for entry in gallery.entries:
    yield turns[entry.class_name], ranks.setdefault(entry.class_name, len(ranks))
    turns[entry.class_name] += 1


def weight(entry: Entry) -> int:
  """About how many bytes of the page an entry takes: base64, and its words."""
  words = len(entry.prompt or "") + len(_cut(entry.negative_prompt) or "")
  pixels = len(entry.image) + (len(entry.nearest.image) + MARKUP if entry.nearest else 0)
  return pixels * 4 // 3 + words + MARKUP


def walls(
  galleries: Sequence[Gallery],
  gains: Mapping[str, Mapping[str, float]] | None = None,
  hues: Mapping[str, int] | None = None,
) -> list[Wall]:
  """Galleries by dataset, then class, then image set, all in the order given.

  Args:
    galleries: examples.
    gains: dataset -> class name -> what the images add to it; the classes of such a dataset go from the best to the worst.
    hues: generator -> its place among all, for its color.

  Raises:
    RunError: an image is neither PNG nor JPEG, or can't be read.
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
  """The image as a data URI, and its size. Reads the header only: the type is taken from the bytes, never from a name."""
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
  return f"{prompt[:LONGEST_PROMPT]}… ({len(prompt)} letters in all)"
