"""Choice of a class's images: down its ranking, without leaks, duplicates and missing ones."""

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
from genbench_jax.retrieval.images import PLACED_BY, ImageFinder, origin
from genbench_jax.retrieval.leaks import Leaks
from genbench_jax.retrieval.place import Place
from genbench_jax.retrieval.pool import Pool
from genbench_jax.retrieval.ranking import RankedImages
from genbench_jax.store.image_files import image_formats
from genbench_jax.store.image_pixels import to_rgb

_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
# Candidates of a class that are checked together.
_CHUNK = 32


@dataclasses.dataclass(frozen=True)
class ChosenImage:
  """An image chosen for a class."""

  row: int
  score: float
  prompt: int
  cosine_to_test: float
  origin: str
  sha256: str
  place: Place


@dataclasses.dataclass
class Counts:
  """Number of candidates that were examined, and why some were rejected."""

  looked_at: int = 0
  leaks: int = 0
  duplicates: int = 0
  absent: int = 0
  unreadable: int = 0


@dataclasses.dataclass(frozen=True)
class Chooser:
  """Chooses images for the classes of one dataset; no image is chosen for two classes.

  Attributes:
    pool: pool with image features.
    finder: finds the images of the pool.
    audit: finds leaks among features.
    duplicate_threshold: cosine from which two images of a class count as duplicates.
    seen: checksums of the images chosen so far.
    counts: counts over all classes so far.
    read: files from which images were read, or tried to be.
    absent: metadata of images that were not found.
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
    """Yield (class, image) pairs: the best image of each class, then the second best, and so on.

    At most `wanted` images per class are yielded. A smaller `wanted` gives a prefix of a larger
    one.
    """
    walks = [self._walk(images) for images in classes]
    for _ in range(wanted):
      for label, walk in enumerate(walks):
        if image := next(walk, None):
          yield label, image

  def _walk(self, images: RankedImages) -> Iterator[ChosenImage]:
    """Yield the usable images of a class, best first."""
    features = np.zeros((0, self.pool.width), np.float32)
    for start in range(0, len(images.row), _CHUNK):
      chunk = RankedImages(*(part[start : start + _CHUNK] for part in images))
      for candidate, feature in self._candidates(chunk):
        # [c, d] @ [d]: cosines with the images of the class chosen so far.
        if len(features) and (features @ feature).max() >= self.duplicate_threshold:
          self.counts.duplicates += 1
        elif found := self._fetched(candidate):
          features = np.concatenate([features, feature[None]])
          yield found

  def _candidates(
    self, images: RankedImages
  ) -> list[tuple[dict[str, Any], Float32[np.ndarray, "d"]]]:
    """Return what is known about each image that is not a leak, and its unit-norm feature."""
    self.counts.looked_at += len(images.row)
    features = self.pool.features("image", images.row)
    # Embedders write zeros for an image that they could not read; zeros have no direction.
    has_feature = features.any(axis=1)
    self.counts.unreadable += int((~has_feature).sum())
    if not has_feature.any():
      return []
    images = RankedImages(*(part[has_feature] for part in images))
    features = unit_norm(features[has_feature])
    leaks = self.audit(features)
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

  def _fetched(self, candidate: dict[str, Any]) -> ChosenImage | None:
    """Return the candidate if its image is available, decodes and is new; else None."""
    line = candidate["line"]
    place = self.finder.place(line)
    if place is None:
      self.counts.absent += 1
      self.absent.append({key: line[key] for key in PLACED_BY if line.get(key)})
      return None
    self.read.add(place.path)
    try:
      content = place.read()
      with Image.open(io.BytesIO(content), formats=image_formats()) as image:
        to_rgb(image)
    except _UNREADABLE:
      self.counts.unreadable += 1
      return None
    # Equal bytes are duplicates across classes, too.
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 in self.seen:
      self.counts.duplicates += 1
      return None
    self.seen.add(sha256)
    return ChosenImage(
      candidate["row"],
      candidate["score"],
      candidate["prompt"],
      candidate["cosine"],
      origin(line),
      sha256,
      place,
    )
