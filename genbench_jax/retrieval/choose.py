"""Which images of a pool a class gets: down its ranking, past leaks, duplicates and what isn't to be had."""

import dataclasses
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image

from genbench_jax.embedding.embedder import unit_norm
from genbench_jax.embedding.preprocess import to_rgb
from genbench_jax.retrieval.collection import Place
from genbench_jax.retrieval.images import PLACED_BY, ImageFinder, origin
from genbench_jax.retrieval.leaks import Leaks
from genbench_jax.retrieval.pool import Pool
from genbench_jax.retrieval.ranking import RankedImages
from genbench_jax.store.image_files import image_formats

_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
# Candidates of a class that are looked at together.
_CHUNK = 32


@dataclasses.dataclass(frozen=True)
class ChosenImage:
  """An image that a class gets."""

  row: int
  score: float
  prompt: int
  cosine_to_test: float
  origin: str
  sha256: str
  place: Place


@dataclasses.dataclass
class Counts:
  """What became of the candidates that were looked at."""

  looked_at: int = 0
  leaks: int = 0
  duplicates: int = 0
  absent: int = 0
  unreadable: int = 0


@dataclasses.dataclass(frozen=True)
class Chooser:
  """Goes down the rankings of the classes of one dataset. An image that one class has, no other gets.

  Attributes:
    pool: with image features.
    finder: of its images.
    audit: features -> leaks.
    duplicate_threshold: cosine from which on two images of a class are one.
    seen: checksums of the images so far.
    counts: over all classes so far.
    read: the files that images were read from, or tried to be.
    absent: where images were looked for in vain, by the metadata that say where they are.
  """

  pool: Pool
  finder: ImageFinder
  audit: Callable[[Float32[np.ndarray, "m d"]], Leaks]
  duplicate_threshold: float
  seen: set[str] = dataclasses.field(default_factory=set)
  counts: Counts = dataclasses.field(default_factory=Counts)
  read: set[Path] = dataclasses.field(default_factory=set)
  absent: list[dict[str, Any]] = dataclasses.field(default_factory=list)

  def choose(
    self, classes: Sequence[RankedImages], wanted: int
  ) -> Iterator[tuple[int, ChosenImage]]:
    """(class, image), at most `wanted` a class: the best of each class first, then the second best, and so on.

    What is chosen for fewer is the beginning of what is chosen for more.
    """
    walks = [self._walk(images) for images in classes]
    for _ in range(wanted):
      for label, walk in enumerate(walks):
        if one := next(walk, None):
          yield label, one

  def _walk(self, images: RankedImages) -> Iterator[ChosenImage]:
    """The images of a class that can be used, best first."""
    features = np.zeros((0, self.pool.width), np.float32)
    for start in range(0, len(images.row), _CHUNK):
      some = RankedImages(*(part[start : start + _CHUNK] for part in images))
      for one, feature in self._candidates(some):
        if len(features) and (features @ feature).max() >= self.duplicate_threshold:
          self.counts.duplicates += 1
        elif found := self._fetched(one):
          features = np.concatenate([features, feature[None]])
          yield found

  def _candidates(
    self, images: RankedImages
  ) -> list[tuple[dict[str, Any], Float32[np.ndarray, "d"]]]:
    """What is known of each image that is no leak, and its unit-norm feature."""
    features = unit_norm(self.pool.features("image", images.row))
    leaks = self.audit(features)
    self.counts.looked_at += len(images.row)
    self.counts.leaks += int(leaks.flagged.sum())
    lines = self.pool.metadata(images.row.tolist())
    return [
      (
        {"row": row, "score": score, "prompt": prompt, "cosine": cosine, "line": lines[row]},
        feature,
      )
      for row, score, prompt, cosine, flagged, feature in zip(
        images.row.tolist(),
        images.score.tolist(),
        images.prompt.tolist(),
        leaks.cosine.tolist(),
        leaks.flagged,
        features,
        strict=True,
      )
      if not flagged
    ]

  def _fetched(self, one: dict[str, Any]) -> ChosenImage | None:
    """The candidate, if its image is there, can be decoded and is new."""
    place = self.finder.place(one["line"])
    if place is None:
      self.counts.absent += 1
      self.absent.append({key: one["line"][key] for key in PLACED_BY if one["line"].get(key)})
      return None
    self.read.add(place.path)
    try:
      content = place.read()
      with Image.open(io.BytesIO(content), formats=image_formats()) as image:
        to_rgb(image)
    except _UNREADABLE:
      self.counts.unreadable += 1
      return None
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 in self.seen:
      self.counts.duplicates += 1
      return None
    self.seen.add(sha256)
    where = origin(one["line"])
    return ChosenImage(one["row"], one["score"], one["prompt"], one["cosine"], where, sha256, place)
