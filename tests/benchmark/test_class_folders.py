"""Folders with all kinds of names, and those that can't be matched."""

import re

import pytest

from genbench_jax.benchmark.class_folders import match_folders
from genbench_jax.benchmark.registry import dataset_spec, known_datasets
from genbench_jax.errors import UsageError
from genbench_jax.store.image_set import distinct_names


def _reference_folder(name):
  return re.sub(r"[()',.]", "", name.replace("/", "or").replace(" ", "_"))


def _retrieval_folder(synonyms):
  parts = [re.sub(r"[^0-9a-zA-Z]+", "_", name).strip("_") for name in synonyms]
  return "_and_".join(parts)


FORMS = {
  "names": lambda spec: spec.names,
  "labels": lambda spec: [label.replace("/", "_") for label in spec.label_names],
  "reference": lambda spec: [_reference_folder(name) for name in spec.names],
  "retrieval": lambda spec: [_retrieval_folder(names) for names in spec.class_names],
  "index": lambda spec: [str(index) for index in range(spec.num_classes)],
  "padded index": lambda spec: [f"{index:04d}" for index in range(spec.num_classes)],
  "index and name": lambda spec: [f"{i:03d}_{name}" for i, name in enumerate(spec.names)],
  "last synonym": lambda spec: [names[-1].upper() for names in spec.class_names],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dataset", [*known_datasets(), "digits", "shapes"])
def test_every_class_of_every_dataset_is_found(dataset, form):
  spec = dataset_spec(dataset)
  folders = list(FORMS[form](spec))
  if len(set(folders)) < spec.num_classes:
    pytest.skip("the form itself has duplicates")
  found = match_folders(folders, spec)
  assert list(found.label_of.values()) == list(range(spec.num_classes))
  assert found.unmatched == found.missing == ()


def test_an_ambiguous_name_is_rejected_and_the_suggested_name_works():
  spec = dataset_spec("imagenet2012")
  with pytest.raises(UsageError, match="'missile' matches the classes 657, 744"):
    match_folders(["missile", "tench"], spec)
  assert match_folders(["744_missile", "657_missile"], spec).label_of["744_missile"] == 744
  assert len(set(distinct_names(spec.names))) == 1000


def test_a_name_takes_precedence_over_its_number():
  found = match_folders(["001.cat", "002.dog", "003.unicorn"], dataset_spec("cifar10"))
  assert found.label_of == {"001.cat": 3, "002.dog": 5}
  assert found.unmatched == ("003.unicorn",)
  assert len(found.missing) == 8


@pytest.mark.parametrize(
  ("dataset", "given", "wanted"),
  [
    ("voc2007", "buses", "bus"),
    ("voc2007", "People", "person"),
    ("voc2007", "Potted Plants", "pottedplant"),
    ("cifar100", "mice", "mouse"),
    ("cifar100", "WOMEN", "woman"),
    ("cifar100", "wolves", "wolf"),
    ("cifar100", "houses", "house"),
    ("cifar100", "glass", None),
    ("cifar10", "001cats", "cat"),
    ("cifar10", "03-automobiles", "automobile"),
    ("food101", "crème brûlée", "creme brulee"),
    ("food101", "12_Crème_Brûlées", "creme brulee"),
    ("imagenet2012", "N01440764", "tench"),
    ("fgvc_aircraft", "7_707-320", "707-320"),
  ],
)
def test_other_forms_of_a_name(dataset, given, wanted):
  spec = dataset_spec(dataset)
  found = match_folders([given, spec.names[0]], spec).label_of
  assert (spec.names[found[given]] if given in found else None) == wanted


def test_numbers_are_not_classes_if_other_folders_have_names():
  found = match_folders(["cat", "7"], dataset_spec("cifar10"))
  assert found.label_of == {"cat": 3}
  assert found.unmatched == ("7",)


def test_numbers_from_one_are_rejected():
  with pytest.raises(UsageError, match="count from 0"):
    match_folders([str(i) for i in range(1, 11)], dataset_spec("cifar10"))


def test_unmatched_folders_are_rejected_without_control_characters():
  with pytest.raises(UsageError, match=r"none of the folders 'x\\x1b\[31m', 'images' is a class"):
    match_folders(["x\x1b[31m", "images"], dataset_spec("cifar10"))
