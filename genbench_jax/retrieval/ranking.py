"""Ranking of a class's images from the hits of its prompts. Arrays in, arrays out."""

from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

Ranking = Literal["mean", "max", "rerank"]
RANKINGS: tuple[Ranking, ...] = get_args(Ranking)


class RankedImages(NamedTuple):
  """Images of a class, best first; ties go to the lower row.

  Attributes:
    row: rows of the pool, each once.
    score: score that determines the order.
    prompt: prompt of the class that found the image with the highest score.
  """

  row: Int[np.ndarray, "m"]
  score: Float[np.ndarray, "m"]
  prompt: Int[np.ndarray, "m"]


def ranked(
  scores: Float[np.ndarray, "p k"], rows: Int[np.ndarray, "p k"], by: Literal["mean", "max"]
) -> RankedImages:
  """Rank the images that the prompts of a class found.

  Args:
    scores: scores of each prompt's hits.
    rows: the hits; -1 for none.
    by: `mean`, as in the reference: over the prompts that hit an image, so a single hit at 0.9
      beats thirty at 0.85. `max`: the highest score.
  """
  hit = rows >= 0
  prompt = np.nonzero(hit)[0]
  row, inverse = np.unique(rows[hit], return_inverse=True)
  # In float64, the mean of equal scores is exactly that score, so ties stay ties.
  found = scores[hit].astype(np.float64)
  order = np.lexsort((prompt, -found, inverse))
  # Sorted by image, then best score, then lowest prompt: the first entry of each image is its best
  # hit.
  first = order[np.unique(inverse[order], return_index=True)[1]]
  score = found[first]
  if by == "mean":
    score = np.bincount(inverse, found, len(row)) / np.bincount(inverse, minlength=len(row))
  return reordered(RankedImages(row, score, prompt[first]), score)


def reordered(images: RankedImages, score: Float[np.ndarray, "m"]) -> RankedImages:
  """Return the same images, ordered by another score."""
  order = np.lexsort((images.row, -score))
  return RankedImages(images.row[order], score[order], images.prompt[order])


def without_shared(classes: list[RankedImages]) -> list[RankedImages]:
  """Keep each image only in the class where its score is highest; ties go to the lower class."""
  row = np.concatenate([images.row for images in classes])
  score = np.concatenate([images.score for images in classes])
  label = np.repeat(np.arange(len(classes)), [len(images.row) for images in classes])
  order = np.lexsort((label, -score, row))
  owned = np.zeros(len(row), bool)
  # Sorted by row, then best score, then lowest class: the first entry of each row owns it.
  owned[order[np.unique(row[order], return_index=True)[1]]] = True
  return [_kept(images, owned[label == number]) for number, images in enumerate(classes)]


def _kept(images: RankedImages, keep: Bool[np.ndarray, "m"]) -> RankedImages:
  return RankedImages(*(part[keep] for part in images))
