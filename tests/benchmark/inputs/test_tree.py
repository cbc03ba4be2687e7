"""The search for class folders in a tree."""

import pytest

from genbench_jax.benchmark.inputs.tree import Place, class_place

CLASSES = {"cat", "dog", "0", "7", "8"}


def found(tree, is_end=lambda folder: False):
  """Search a nested dictionary of folder names."""

  def children(folder):
    inner = tree
    for name in filter(None, folder.split("/")):
      inner = inner[name]
    return list(inner)

  return class_place(children, CLASSES.__contains__, is_end)


PETS = {"cat": {}, "dog": {}}


@pytest.mark.parametrize(
  ("tree", "folder"),
  [
    (PETS, ""),
    ({"cat": {"deeper": {}}}, ""),
    ({"wrapper": PETS}, "wrapper"),
    ({"a": {"b": PETS}}, "a/b"),
    ({"x": {}, "y": {}}, ""),
    ({}, ""),
    ({"wrapper": {"x": PETS, "y": PETS}}, "wrapper"),
    ({"Train": PETS}, "Train"),
    ({"train": {}, "dog": {}}, ""),
    ({"7": PETS}, "7"),
    ({"7": {"8": {}}}, ""),
    ({"cat": {"7": {}}}, ""),
  ],
)
def test_the_search_ends_where_the_classes_are(tree, folder):
  assert found(tree) == Place(folder, ())


@pytest.mark.parametrize(
  ("splits", "chosen"),
  [(("test", "train"), "train"), (("val", "test"), "val"), (("Testing", "VALID"), "VALID")],
)
def test_the_first_split_is_used_and_the_others_are_named(splits, chosen):
  place = found(dict.fromkeys(splits, PETS))
  assert place.folder == chosen
  (other,) = set(splits) - {chosen}
  assert place.notes == (f"the images of {chosen!r} are used; {other!r} are left out.",)


def test_a_split_is_used_beside_other_folders():
  place = found({"notes": {}, "train": PETS})
  assert place == Place("train", ("the images of 'train' are used; 'notes' are left out.",))


def test_a_class_named_like_a_split_is_a_split_only_if_it_contains_classes():
  def place_of(tree):
    return class_place(
      lambda folder: list(tree.get(folder, ())), {"train", "7", "cat"}.__contains__
    )

  assert place_of({"": ["train", "test"], "train": ["cat"]}).folder == "train"
  assert place_of({"": ["train", "test"], "train": ["7"]}).folder == "train"
  assert place_of({"": ["train"], "train": ["first", "second"]}).folder == ""
  assert place_of({"": ["train", "cat"], "train": ["cat"]}).folder == ""


def test_the_search_ends_at_a_list_of_labels():
  tree = {"data": {"images": PETS}}
  assert found(tree, lambda folder: folder == "data").folder == "data"


def test_the_search_goes_six_folders_deep_and_no_further():
  tree = PETS
  for _ in range(8):
    tree = {"in": tree}
  assert found(tree).folder == "/".join(["in"] * 6)
