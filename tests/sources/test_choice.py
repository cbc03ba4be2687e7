"""Stored choices of pool images, and whether they still hold."""

import dataclasses
import json

import numpy as np
import pytest

from genbench_jax.errors import RunError
from genbench_jax.retrieval.choose import ChosenImage, Counts
from genbench_jax.retrieval.place import Place
from genbench_jax.sources.choice import (
  Choice,
  Evidence,
  evidence,
  larger_choices,
  load_choice,
  save_choice,
  still_holds,
)
from genbench_jax.store.digests import FileDigests


def image(row, path, root=None):
  place = Place(path, 3, 5, root=root)
  return ChosenImage(row, 0.5, 1, 0.25, f"https://h/{row}", f"sha{row}", place)


@dataclasses.dataclass
class Finder:
  """Stands for `ImageFinder`: where the images are, and which of the missing ones have appeared."""

  root: object
  tars: list = dataclasses.field(default_factory=list)
  found: tuple = ()

  def place(self, line):
    return line["url"] if line["url"] in self.found else None


@dataclasses.dataclass
class Chooser:
  """Stands for a `Chooser` that has chosen."""

  finder: Finder
  read: set
  absent: list


@pytest.fixture
def choice(tmp_path):
  images = [(1, "a dog", image(7, tmp_path / "a.tar", tmp_path)), (0, "a cat", image(3, tmp_path / "b.tar", tmp_path))]  # fmt: skip
  return Choice(images, Counts(looked_at=9, leaks=1, duplicates=2, absent=3, unreadable=1))


@pytest.fixture
def found(tmp_path):
  """The evidence of a choice from two tar files, with one missing image."""
  for name in ("a.tar", "b.tar"):
    (tmp_path / name).write_bytes(name.encode())
  finder = Finder(tmp_path, ["a.tar", "b.tar"])
  chooser = Chooser(finder, {tmp_path / "b.tar", tmp_path / "a.tar"}, [{"url": "lost"}])
  return evidence(chooser, FileDigests(None))


def test_images_are_counted_by_class(choice):
  np.testing.assert_array_equal(choice.per_class(3), [1, 1, 0])


def test_a_smaller_choice_is_the_beginning_of_each_class(tmp_path):
  labels = [0, 1, 0, 1, 0]
  images = [(label, "q", image(row, tmp_path)) for row, label in enumerate(labels)]
  smaller = Choice(images, Counts()).first(2)
  assert [chosen.row for _, _, chosen in smaller.images] == [0, 1, 2, 3]


def test_the_digest_is_of_images_classes_and_order(choice):
  digest = choice.digest
  assert choice._replace(counts=Counts()).digest == digest
  assert choice._replace(images=choice.images[::-1]).digest != digest
  relabeled = [(1 - label, query, chosen) for label, query, chosen in choice.images]
  assert choice._replace(images=relabeled).digest != digest
  asked = [(label, "other", chosen) for label, _, chosen in choice.images]
  assert choice._replace(images=asked).digest != digest


def test_a_choice_is_read_as_it_was_written(choice, found, tmp_path):
  path = tmp_path / "4.json"
  save_choice(path, choice, found, tmp_path)
  assert load_choice(path, tmp_path) == (choice, found)


def test_a_moved_folder_of_images_moves_the_places(choice, found, tmp_path):
  save_choice(tmp_path / "4.json", choice, found, tmp_path)
  moved, _ = load_choice(tmp_path / "4.json", tmp_path / "elsewhere")
  assert [chosen.place.path.name for _, _, chosen in moved.images] == ["a.tar", "b.tar"]
  assert {chosen.place.path.parent for _, _, chosen in moved.images} == {tmp_path / "elsewhere"}


def test_without_a_folder_places_are_absolute(found, tmp_path):
  choice = Choice([(0, "q", image(1, tmp_path / "x.png"))], Counts())
  save_choice(tmp_path / "1.json", choice, found, None)
  assert load_choice(tmp_path / "1.json", None)[0] == choice


@pytest.mark.parametrize("lost", ["images", "counts", "evidence"])
def test_a_damaged_choice_says_what_to_do(lost, choice, found, tmp_path):
  path = tmp_path / "4.json"
  save_choice(path, choice, found, tmp_path)
  stored = {key: value for key, value in json.loads(path.read_text()).items() if key != "genbench_jax"}  # fmt: skip
  del stored[lost]
  path.write_text(json.dumps(stored))
  with pytest.raises(RunError, match=r"is damaged .* Delete it, then run again"):
    load_choice(path, tmp_path)


def test_the_evidence_names_every_file_once_and_sorted(found):
  assert found.has_root and found.absent == [{"url": "lost"}]
  assert list(found.read) == ["a.tar", "b.tar"] == found.tars
  assert len(set(found.read.values())) == 2


def test_a_pool_without_images_has_no_files(tmp_path):
  chooser = Chooser(Finder(None), {tmp_path / "x"}, [{"url": "lost"}])
  assert evidence(chooser, FileDigests(None)) == Evidence(False, {}, [{"url": "lost"}], [])


def test_nothing_has_changed(found, tmp_path):
  assert still_holds(found, Finder(tmp_path, ["a.tar", "b.tar"]), FileDigests(None))


def test_a_changed_or_lost_file_ends_a_choice(found, tmp_path):
  finder = Finder(tmp_path, ["a.tar", "b.tar"])
  (tmp_path / "a.tar").write_bytes(b"other")
  assert not still_holds(found, finder, FileDigests(None))
  (tmp_path / "a.tar").unlink()
  assert not still_holds(found, finder, FileDigests(None))


def test_an_image_that_has_appeared_ends_a_choice(found, tmp_path):
  finder = Finder(tmp_path, ["a.tar", "b.tar"], ("lost",))
  assert not still_holds(found, finder, FileDigests(None))


def test_a_new_tar_file_ends_a_choice(found, tmp_path):
  assert not still_holds(found, Finder(tmp_path, ["a.tar", "b.tar", "c.tar"]), FileDigests(None))


def test_a_choice_without_images_holds_until_there_is_a_folder(found, tmp_path):
  empty = Evidence(False, {}, [], [])
  assert still_holds(empty, Finder(None), FileDigests(None))
  assert not still_holds(empty, Finder(tmp_path), FileDigests(None))
  assert not still_holds(found, Finder(None), FileDigests(None))


def test_larger_choices_are_found_by_their_number(tmp_path):
  for name in ("1.json", "16.json", "4.json", "x.json", "8.txt"):
    (tmp_path / name).touch()
  assert {path.stem for path in larger_choices(tmp_path, 4)} == {"4", "16"}
  assert [path.stem for path in larger_choices(tmp_path, 5)] == ["16"]
