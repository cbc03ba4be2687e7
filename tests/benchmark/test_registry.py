import pytest

from genbench_jax.benchmark import registry
from genbench_jax.benchmark.published import words
from genbench_jax.errors import UsageError

# The protocol, in the paper's order: numbers of classes and templates.
CLASS_COUNTS = (
  102, 10, 100, 211, 47, 10, 7, 100, 101, 43, 2, 4, 10, 102, 37, 2, 2, 45, 196, 20, 1000, 397,
)  # fmt: skip
TEMPLATE_COUNTS = (34, 18, 18, 5, 8, 3, 6, 2, 1, 3, 1, 1, 5, 1, 1, 1, 1, 18, 8, 27, 80, 2)
SPECS = [registry.dataset_spec(name) for name in registry.known_datasets()]
# These label names come with the data, or from our own builders.
WITHOUT_TFDS_NAMES = {"cifar10", "cifar100", "kitti_distance"}
OWN_BUILDERS = {
  "country211", "fer2013", "fgvc_aircraft", "gtsrb", "hateful_memes", "rendered_sst2",
}  # fmt: skip


def test_class_and_template_counts_match_the_protocol():
  assert tuple(spec.num_classes for spec in SPECS) == CLASS_COUNTS
  assert tuple(len(spec.templates) for spec in SPECS) == TEMPLATE_COUNTS
  assert sum(CLASS_COUNTS) == 2548
  assert (
    sum(spec.num_classes for spec in SPECS if spec.name not in ("imagenet2012", "sun397")) == 1151
  )


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_spec_is_consistent(spec):
  assert all(template.count("{}") == 1 for template in spec.templates)
  assert all(synonyms and all(name.strip() == name != "" for name in synonyms)
             for synonyms in spec.class_names)  # fmt: skip
  assert len(set(spec.label_names)) == spec.num_classes == len(spec.label_names)
  assert spec.splits.keys() == spec.split_sizes.keys()
  assert "test" in spec.splits
  sources = words(spec.name)["sources"]
  assert sources.keys() == {"class_names", "templates", "labels"}


@pytest.mark.parametrize(
  "spec",
  [s for s in SPECS if s.name not in WITHOUT_TFDS_NAMES | OWN_BUILDERS],
  ids=lambda s: s.name,
)
def test_labels_equal_those_of_the_installed_tfds(spec, tmp_path):
  import tensorflow_datasets as tfds

  builder = tfds.builder(spec.tfds_name, data_dir=tmp_path, try_gcs=False)
  feature = builder.info.features[spec.label_key]
  names = (feature.feature if spec.multi_label else feature).names
  assert set(names) == set(spec.label_names)
  assert len(names) == spec.num_classes


@pytest.mark.parametrize(
  ("dataset", "label", "name"),
  [
    ("caltech101", "faces", "off-center face"),
    ("caltech101", "faces_easy", "centered face"),
    ("caltech101", "background_google", "background"),
    ("caltech101", "water_lilly", "water lilly"),
    ("cifar100", "aquarium_fish", "aquarium fish"),
    ("cars196", "Ram C/V Cargo Van Minivan 2012", "Ram C V Cargo Van Minivan 2012"),
    ("cars196", "AM General Hummer SUV 2000", "AM General Hummer SUV 2000"),
    ("sun397", "/j/jail_cell", "jail cell"),
    ("sun397", "/j/jail/indoor", "jail indoor"),
    ("sun397", "/a/apartment_building/outdoor", "apartment building outdoor"),
    ("oxford_flowers102", "pink-yellow dahlia?", "pink and yellow dahlia"),
    ("oxford_flowers102", "ball moss", "air plant"),
    ("imagenet2012", "n01440764", "tench"),
    ("imagenet2012", "n15075141", "toilet paper"),
    ("eurosat", "HerbaceousVegetation", "brushland or shrubland"),
    ("eurosat", "SeaLake", "lake or sea"),
    ("patch_camelyon", "1", "lymph node containing metastatic tumor tissue"),
    ("country211", "AD", "Andorra"),
    ("country211", "CH", "Switzerland"),
    ("country211", "ZW", "Zimbabwe"),
    ("fgvc_aircraft", "F-16A/B", "F-16A-B"),
    ("gtsrb", "00014", "stop"),
    ("hateful_memes", "hateful", "hatespeech meme"),
    ("kitti_distance", "no_vehicle", "a photo i took with no car."),
  ],
)
def test_a_label_has_its_name(dataset, label, name):
  spec = registry.dataset_spec(dataset)
  assert spec.names[spec.label_names.index(label)] == name


@pytest.mark.parametrize("dataset", ["cifar100", "dtd", "food101", "resisc45", "oxford_iiit_pet"])
def test_names_spell_out_the_labels(dataset):
  spec = registry.dataset_spec(dataset)
  assert spec.names == tuple(label.replace("_", " ") for label in spec.label_names)


def test_order_differs_from_tfds_as_in_the_reference(tmp_path):
  import tensorflow_datasets as tfds

  for dataset in ("cars196", "sun397"):
    spec = registry.dataset_spec(dataset)
    builder = tfds.builder(spec.tfds_name, data_dir=tmp_path, try_gcs=False)
    assert tuple(builder.info.features["label"].names) != spec.label_names
    assert list(spec.names) == sorted(spec.names, key=str.lower)


def test_imagenet_keeps_duplicate_names_and_offers_distinct_ones():
  spec = registry.dataset_spec("imagenet-1k")
  assert len(set(spec.names)) == 998
  assert spec.names[657] == spec.names[744] == "missile"
  assert spec.names[836] == spec.names[837] == "sunglasses"
  assert len(set(spec.label_names)) == 1000
  distinct = registry.dataset_spec("imagenet2012_disambiguated")
  assert len(set(distinct.names)) == 1000
  assert distinct.label_names == spec.label_names
  assert (distinct.names[657], distinct.names[744]) == ("missile", "projectile")


def test_metrics_and_quirks():
  by_metric = {}
  for spec in SPECS:
    by_metric.setdefault(spec.metric, set()).add(spec.name)
  assert by_metric["mean_per_class"] == {
    "caltech101", "fgvc_aircraft", "oxford_flowers102", "oxford_iiit_pet",
  }  # fmt: skip
  assert by_metric["roc_auc"] == {"hateful_memes"}
  assert by_metric["map_11_point"] == {"voc2007"}
  assert [spec.name for spec in SPECS if spec.multi_label] == ["voc2007"]
  assert [spec.name for spec in SPECS if spec.resize == "squash"] == ["kitti_distance"]
  synonyms = registry.dataset_spec("fer2013").class_names
  assert sum(map(len, synonyms)) == 12
  assert registry.dataset_spec("imagenet2012").splits == {"test": "validation"}


def test_reference_names_are_aliases():
  for alias, name in {
    "cifar-10": "cifar10",
    "stanford-cars": "cars196",
    "voc-2007-classification": "voc2007",
    "voc/2007": "voc2007",
    "fgvc-aircraft-2013b-variants102": "fgvc_aircraft",
    "eurosat_clip": "eurosat",
  }.items():
    assert registry.dataset_spec(alias) is registry.dataset_spec(name)
    assert alias in registry.dataset_spec(name).aliases


def test_unknown_name_lists_known_ones():
  with pytest.raises(
    UsageError, match=r"unknown dataset 'cifar1000'\. Did you mean 'cifar100'\?.*digits"
  ):
    registry.dataset_spec("cifar1000")


def test_demo_worlds_are_found():
  assert registry.dataset_spec("shapes").group == "demo"
