"""Settings of the user's own datasets: every value is checked, and every error is one line."""

import pytest

from genbench_jax.benchmark.own_settings import (
  DEFAULT_TEMPLATES,
  LONGEST_NAME,
  checked_spec,
  checked_templates,
  class_names_of,
  named_splits,
  read_settings,
  safe_name,
)
from genbench_jax.errors import UsageError

LABELS = ("a_b", "c")
FACTS = {"splits": {"test": "test"}, "split_sizes": {"test": 4}, "tfds_name": ""}


def spec(settings=None, labels=LABELS, **facts):
  return checked_spec("mine", labels, settings or {}, **FACTS | facts)


def test_without_settings_everything_has_a_default():
  made = spec()
  assert (made.name, made.group, made.metric, made.resize) == ("mine", "own", "accuracy", "crop")
  assert made.templates == DEFAULT_TEMPLATES
  assert made.class_names == (("a b",), ("c",)) and made.label_names == LABELS
  assert spec(multi_label=True).metric == "map_11_point"


@pytest.mark.parametrize("metric", ["accuracy", "mean_per_class", "roc_auc"])
def test_the_metric_is_one_of_those_of_the_benchmark(metric):
  assert spec({"metric": metric}).metric == metric
  with pytest.raises(UsageError, match=r"unknown metric 'acuracy'\. Did you mean 'accuracy'"):
    spec({"metric": "acuracy"})


def test_a_metric_must_fit_the_data():
  with pytest.raises(UsageError, match="map_11_point requires several labels per image"):
    spec({"metric": "map_11_point"})
  with pytest.raises(UsageError, match="roc_auc requires two classes, not 3"):
    spec({"metric": "roc_auc"}, labels=("a", "b", "c"))


def test_images_are_cropped_or_squashed():
  assert spec({"resize": "squash"}).resize == "squash"
  with pytest.raises(UsageError, match="unknown resize 'stretch'"):
    spec({"resize": "stretch"})


@pytest.mark.parametrize("name", [["a"], "x" * (LONGEST_NAME + 1), None])
def test_a_name_is_a_short_string(name):
  with pytest.raises(UsageError, match="'name' must be a string of at most"):
    spec({"name": name})
  assert spec({"name": 7}).name == "7"
  assert spec({"name": "x" * LONGEST_NAME}).name


@pytest.mark.parametrize(
  ("name", "safe"),
  [
    ("My Leaves", "my_leaves"),
    ("--a..b--", "a_b"),
    ("日本", "own"),
    ("cifar10", "own_cifar10"),
    ("digits", "own_digits"),
    ("CIFAR-10", "cifar_10"),
  ],
)
def test_a_name_becomes_a_folder_that_no_dataset_has(name, safe):
  assert safe_name(name) == safe


@pytest.mark.parametrize(
  ("given", "templates"),
  [
    ("a {}", ("a {}",)),
    (["a {}", "{}."], ("a {}", "{}.")),
    (("{}",), ("{}",)),
  ],
)
def test_a_template_has_one_place_for_the_class(given, templates):
  assert checked_templates(given) == templates


@pytest.mark.parametrize("given", ["a", "{} {}", [], {}, 3, None, ["a {}", 3], ["a {}", "b"]])
def test_other_templates_are_rejected(given):
  with pytest.raises(UsageError, match=r"'templates' must be strings with one \{\} each"):
    checked_templates(given)


def test_names_for_some_classes_keep_the_order_of_the_data():
  found = class_names_of(("x", "y_z", "w"), {"w": "Water", "x": ["one", 2]})
  assert list(found.items()) == [("x", ("one", "2")), ("y_z", ("y z",)), ("w", ("Water",))]


def test_names_for_all_classes_give_their_order():
  found = class_names_of(("x", "y_z"), {"y_z": "Water", "x": ["one", 2]})
  assert list(found.items()) == [("y_z", ("Water",)), ("x", ("one", "2"))]


def test_a_label_of_underscores_is_its_own_name():
  assert class_names_of(("_", " "), None) == {"_": ("_",), " ": (" ",)}


def test_usual_names_stay_for_labels_that_are_not_given():
  usual = [("cat", "kitty"), ("dog",)]
  assert class_names_of(("0", "1"), {"1": "hound"}, usual) == {"1": ("hound",), "0": usual[0]}


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (["a"], "'class_names' must map each label"),
    ({"d": "dog"}, "unknown label in 'class_names': 'd'"),
    ({"c": []}, "must map 'c' to a name or a list of names"),
    ({"c": {}}, "must map 'c' to a name"),
    ({"c": None}, "must map 'c' to a name"),
    ({"c": ["ok", " "]}, "must map 'c' to a name"),
  ],
)
def test_other_names_are_rejected(given, message):
  with pytest.raises(UsageError, match=message):
    class_names_of(LABELS, given)


def test_splits_are_named_by_the_data():
  assert named_splits({}) == {}
  assert named_splits({"splits": {"test": "val", "train": "t/1"}}) == {
    "test": "val",
    "train": "t/1",
  }


@pytest.mark.parametrize(
  ("splits", "message"),
  [
    (["test"], "'splits' must map train, validation and test"),
    ({"test": 3}, "'splits' must map train, validation and test"),
    ({"tset": "x", "test": "y"}, "unknown split 'tset'. Did you mean 'test'"),
    ({"train": "x"}, "'splits' must name a test split"),
    ({"test": "../x"}, "inside the dataset, not '../x'"),
    ({"test": "/x"}, "inside the dataset, not '/x'"),
  ],
)
def test_other_splits_are_rejected(splits, message):
  with pytest.raises(UsageError, match=message):
    named_splits({"splits": splits})


def test_a_split_of_tfds_is_no_path():
  splits = {"test": "test[:50%]+../x"}
  assert named_splits({"tfds": "beans", "splits": splits}) == splits


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("- a", "must be a mapping of tfds, folder, "),
    ("tdfs: x", "unknown key in .*'tdfs'. Did you mean 'tfds'"),
    ("a: [", "is not a valid YAML file"),
  ],
)
def test_a_file_is_a_mapping_of_known_keys(text, message, tmp_path):
  (tmp_path / "d.yaml").write_text(text)
  with pytest.raises(UsageError, match=message):
    read_settings(tmp_path / "d.yaml")


def test_a_file_that_is_missing_or_a_link_is_an_error(tmp_path):
  with pytest.raises(UsageError, match="can't read the dataset file"):
    read_settings(tmp_path / "none.yaml")
  (tmp_path / "d.yaml").write_text("name: x\n")
  (tmp_path / "link.yaml").symlink_to(tmp_path / "d.yaml")
  assert read_settings(tmp_path / "link.yaml", follow=True) == {"name": "x"}
  with pytest.raises(UsageError, match="can't read the dataset file"):
    read_settings(tmp_path / "link.yaml")
