"""Image sets are readable by TFDS, written shard by shard, and checked for damage."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from genbench_jax.errors import RunError
from genbench_jax.store import files
from genbench_jax.store.image_set import (
  ImageRecord,
  ImageSet,
  ImageSetLayout,
  ImageSetWriter,
  distinct_names,
  encode_png,
)

LAYOUT = ImageSetLayout("digits_generative", ("one", 'two "2" <b>', "one"), 7, 3, {"model": "m"})


def _records(layout, shard):
  rng = np.random.default_rng(shard)
  return [
    ImageRecord(
      encode_png(rng.integers(0, 255, (8, 9, 3), dtype=np.uint8)),
      index % 3,
      index,
      prompt=f"prompt {index} 東京",
      negative_prompt="blurry",
      seed=5,
    )
    for index in layout.shard_range(shard)
  ]


def _write(folder, layout=LAYOUT):
  writer = ImageSetWriter(folder, layout)
  for shard in writer.missing_shards():
    writer.write_shard(shard, _records(layout, shard))
  return writer.close()


def _shards(folder):
  return sorted(folder.glob("*.array_record-*"))


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
  return _write(tmp_path_factory.mktemp("set"))


def test_records_round_trip(image_set):
  expected = [record for shard in range(3) for record in _records(LAYOUT, shard)]
  assert list(image_set) == expected
  assert len(image_set) == 7


def test_labels_can_be_read_without_the_shards(tmp_path):
  images = _write(tmp_path)
  for shard in _shards(tmp_path):
    shard.unlink()
  np.testing.assert_array_equal(images.labels, [0, 1, 2, 0, 1, 2, 0])
  assert "labels" not in images.manifest["shards"][0]


def test_tfds_reads_it(image_set):
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(image_set.folder)
  source = builder.as_data_source("train")
  expected = np.asarray(Image.open(io.BytesIO(image_set[4].image)))
  np.testing.assert_array_equal(source[4]["image"], expected)
  assert source[4]["prompt"].decode() == "prompt 4 東京"
  assert builder.info.splits["train"].num_examples == 7
  assert builder.info.features["label"].names == ["one", 'two "2" <b>', "one (2)"]


def test_the_same_records_give_the_same_bytes(image_set, tmp_path):
  again = _write(tmp_path / "again")
  for left, right in zip(_shards(image_set.folder), _shards(again.folder), strict=True):
    assert left.read_bytes() == right.read_bytes()


def test_only_missing_shards_are_written_after_a_stop(tmp_path):
  writer = ImageSetWriter(tmp_path, LAYOUT)
  writer.write_shard(1, _records(LAYOUT, 1))
  assert not ImageSet.exists(tmp_path)
  assert ImageSetWriter(tmp_path, LAYOUT).missing_shards() == [0, 2]


def test_a_shard_without_a_valid_checksum_is_rewritten(tmp_path):
  _write(tmp_path)
  _shards(tmp_path)[0].write_bytes(b"short")
  (tmp_path / "seals" / "00002.json").unlink()
  assert ImageSetWriter(tmp_path, LAYOUT).missing_shards() == [0, 2]


def test_damage_is_detected_and_named(tmp_path):
  images = _write(tmp_path)
  images.verify()
  shard = _shards(tmp_path)[1]
  data = bytearray(shard.read_bytes())
  data[100] ^= 1
  shard.write_bytes(bytes(data))
  with pytest.raises(RunError, match="00001-of-00003 is damaged"):
    images.verify()
  shard.unlink()
  with pytest.raises(RunError, match="00001-of-00003 is missing"):
    images.verify()


def test_a_shard_contains_its_own_images_in_order(tmp_path):
  records = _records(LAYOUT, 0)
  with pytest.raises(ValueError, match="in order"):
    ImageSetWriter(tmp_path, LAYOUT).write_shard(0, records[::-1])


def test_settings_change_the_fingerprint():
  other = dataclasses.replace(LAYOUT, made_from={"model": "n"})
  assert other.fingerprint != LAYOUT.fingerprint


def test_equal_names_are_numbered():
  assert distinct_names(["missile", "dog", "missile"]) == ["missile", "dog", "missile (2)"]


def test_images_may_have_several_labels(tmp_path):
  layout = ImageSetLayout("voc_original", ("a", "b"), 1, 4, {}, multi_label=True)
  record = ImageRecord(_records(LAYOUT, 0)[0].image, (0, 1), 0)
  ImageSetWriter(tmp_path, layout).write_shard(0, [record])
  images = ImageSetWriter(tmp_path, layout).close()
  assert images[0].label == (0, 1)
  np.testing.assert_array_equal(images.labels, [[True, True]])


def test_a_set_is_whole_when_every_shard_is_sealed(tmp_path):
  writer = ImageSetWriter(tmp_path, LAYOUT)
  for shard in range(3):
    assert not writer.is_whole()
    writer.write_shard(shard, _records(LAYOUT, shard))
  assert writer.is_whole()


@pytest.mark.parametrize(("count", "shards"), [(0, 1), (1, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_a_set_has_as_many_shards_as_it_needs_and_at_least_one(count, shards):
  layout = dataclasses.replace(LAYOUT, num_images=count)
  assert layout.num_shards == shards
  found = [index for shard in range(shards) for index in layout.shard_range(shard)]
  assert found == list(range(count))


def test_only_shards_with_the_given_images_are_verified(tmp_path):
  images = _write(tmp_path)
  _shards(tmp_path)[1].write_bytes(b"damaged")  # images 3, 4 and 5
  for rows in (range(3), range(6, 7), range(0)):
    images.verify(rows)
  for rows in (range(2, 4), range(4, 5), range(5, 7), range(7)):
    with pytest.raises(RunError, match="00001-of-00003 is damaged"):
      images.verify(rows)


@pytest.mark.parametrize("recorded", [True, False])
def test_labels_are_checked(tmp_path, recorded):
  images = _write(tmp_path)
  np.save(tmp_path / "labels.npy", np.zeros(6, np.int32))
  if not recorded:  # as in sets of the first version
    del images.manifest["labels_sha256"]
  with pytest.raises(RunError, match="checksum differs" if recorded else "expected 7 labels"):
    _ = images.labels


@pytest.mark.parametrize(
  ("changed", "fine"),
  [
    ({}, True),
    ({"shard_size": 1}, True),
    ({"shard_size": 0}, False),
    ({"shards": [{"sha256": ""}]}, False),
    ({"shards": [3]}, False),
    ({"num_images": "7"}, False),
    ({"class_names": None}, False),
  ],
)
def test_a_manifest_is_checked(tmp_path, changed, fine):
  manifest = dataclasses.asdict(LAYOUT) | {"shards": [{"sha256": "", "images": 1}]} | changed
  files.write_json(tmp_path / "manifest.json", manifest)
  if fine:
    assert ImageSet(tmp_path).class_names == LAYOUT.class_names
  else:
    with pytest.raises(RunError, match="it has no valid"):
      ImageSet(tmp_path)
