"""The search for class folders in a tree."""

import pytest

from genbench_jax.benchmark.inputs.tree import Place, class_place

CLASSES = {"cat", "dog"}


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
    ({"train": PETS, "notes": {}}, ""),
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


def test_the_search_ends_at_a_list_of_labels():
  tree = {"data": {"images": PETS}}
  assert found(tree, lambda folder: folder == "data").folder == "data"


def test_the_search_goes_six_folders_deep_and_no_further():
  tree = PETS
  for _ in range(8):
    tree = {"in": tree}
  assert found(tree).folder == "/".join(["in"] * 6)
