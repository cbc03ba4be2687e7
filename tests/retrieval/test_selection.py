"""Chosen and rejected candidates of a class, against known counts."""

import dataclasses

import numpy as np
import pytest

from genbench_jax.retrieval.choose import _CHUNK, Chooser
from genbench_jax.retrieval.leaks import Leaks
from genbench_jax.retrieval.ranking import RankedImages
from genbench_jax.store.image_set import encode_png

WIDTH = 128


@dataclasses.dataclass
class Pool:
  """A hundred images: row 0 leaks; row 2 is like row 1, by features; 4 has the bytes of 3; 5 is
  absent; 6 is damaged."""

  width: int = WIDTH

  def features(self, kind, rows):
    directions = np.eye(WIDTH, dtype=np.float32)
    directions[2] = directions[1]
    return directions[rows]

  def metadata(self, rows):
    return {row: {"row": row, "url": f"u{row}"} for row in rows}


@dataclasses.dataclass(frozen=True)
class Place:
  row: int

  @property
  def path(self):
    return f"u{self.row}"

  def read(self):
    if self.row == 6:
      return b"no image"
    value = 3 if self.row == 4 else self.row
    return encode_png(np.full((4, 4, 3), value, np.uint8))


class Finder:
  def place(self, line):
    return None if line["row"] == 5 else Place(line["row"])


def audit(features):
  flagged = features[:, 0] > 0.5
  return Leaks(features[:, 0], np.zeros(len(features), int), flagged)


def ranking(rows):
  rows = np.asarray(rows)
  return RankedImages(rows, -rows.astype(float), np.zeros(len(rows), int))


@pytest.fixture
def chooser():
  return Chooser(Pool(), Finder(), audit, duplicate_threshold=0.99)


def test_each_candidate_is_counted_once(chooser):
  chosen = [found.row for _, found in chooser.choose([ranking(range(12))], 5)]
  assert chosen == [1, 3, 7, 8, 9]
  counts = chooser.counts
  assert (counts.looked_at, counts.leaks, counts.duplicates) == (12, 1, 2)
  assert (counts.absent, counts.unreadable) == (1, 1)


def test_no_more_candidates_are_looked_at_than_chunks_that_are_needed(chooser):
  found = list(chooser.choose([ranking(range(10, 10 + 3 * _CHUNK))], _CHUNK + 1))
  assert len(found) == _CHUNK + 1
  assert chooser.counts.looked_at == 2 * _CHUNK


def test_classes_take_turns_and_share_no_image(chooser):
  found = list(chooser.choose([ranking([20, 21, 22]), ranking([20, 23])], 2))
  assert [(label, image.row) for label, image in found] == [(0, 20), (1, 23), (0, 21)]
  assert chooser.counts.duplicates == 1
  assert [image.origin for _, image in found] == ["u20", "u23", "u21"]


def test_the_duplicate_threshold_itself_is_a_duplicate():
  chooser = Chooser(Pool(), Finder(), audit, duplicate_threshold=1.0)
  assert [image.row for _, image in chooser.choose([ranking([1, 2, 3])], 3)] == [1, 3]
  assert chooser.counts.duplicates == 1


def test_rows_of_zeros_are_images_that_could_not_be_read(chooser):
  class Zeros(Pool):
    def features(self, kind, rows):
      return super().features(kind, rows) * ~np.isin(rows, [7, 8])[:, None]

  chooser = dataclasses.replace(chooser, pool=Zeros())
  assert [found.row for _, found in chooser.choose([ranking(range(7, 12))], 5)] == [9, 10, 11]
  assert (chooser.counts.looked_at, chooser.counts.unreadable) == (5, 2)
  assert not list(chooser.choose([ranking([7, 8])], 5))
