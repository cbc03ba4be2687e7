"""From what each prompt of a class has found to one ranking of the class's images. Arrays in, arrays out."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

Ranking = Literal["mean", "max", "rerank"]
RANKINGS: tuple[Ranking, ...] = ("mean", "max", "rerank")


class RankedImages(NamedTuple):
  """Images of a class, best first; of equals the lower row.

  Attributes:
    row: in the pool, each once.
    score: what the order is by.
    prompt: which of the class's prompts found it with the highest score.
  """

  row: Int[np.ndarray, "m"]
  score: Float[np.ndarray, "m"]
  prompt: Int[np.ndarray, "m"]


def ranked(
  scores: Float[np.ndarray, "p k"], rows: Int[np.ndarray, "p k"], by: Literal["mean", "max"]
) -> RankedImages:
  """The images that the prompts of a class found.

  Args:
    scores: of each prompt's hits.
    rows: the hits; -1 is none.
    by: `mean`, as the reference: over the prompts that hit an image, so that one hit at 0.9 beats thirty at 0.85.
      `max`: the highest score.
  """
  hit = rows >= 0
  prompt = np.nonzero(hit)[0]
  row, inverse = np.unique(rows[hit], return_inverse=True)
  # In float64: a mean of equal scores is that score.
  found = scores[hit].astype(np.float64)
  order = np.lexsort((prompt, -found, inverse))
  first = order[np.unique(inverse[order], return_index=True)[1]]
  score = found[first]
  if by == "mean":
    score = np.bincount(inverse, found, len(row)) / np.bincount(inverse, minlength=len(row))
  return reordered(RankedImages(row, score, prompt[first]), score)


def reordered(images: RankedImages, score: Float[np.ndarray, "m"]) -> RankedImages:
  """The same images by another score."""
  order = np.lexsort((images.row, -score))
  return RankedImages(images.row[order], score[order], images.prompt[order])


def without_shared(classes: list[RankedImages]) -> list[RankedImages]:
  """Each image in one class only: where its score is highest, of equals the lower class."""
  row = np.concatenate([images.row for images in classes])
  score = np.concatenate([images.score for images in classes])
  label = np.repeat(np.arange(len(classes)), [len(images.row) for images in classes])
  order = np.lexsort((label, -score, row))
  owned = np.zeros(len(row), bool)
  owned[order[np.unique(row[order], return_index=True)[1]]] = True
  return [_kept(images, owned[label == number]) for number, images in enumerate(classes)]


def _kept(images: RankedImages, keep: Bool[np.ndarray, "m"]) -> RankedImages:
  return RankedImages(*(part[keep] for part in images))
