"""Images in NumPy archives."""

import io

import numpy as np
import pytest
from PIL import Image

from genbench_jax.benchmark.inputs.arrays import array_images
from genbench_jax.errors import UsageError

PIXELS = np.arange(3 * 4 * 5 * 3, dtype=np.uint8).reshape(3, 4, 5, 3)


def archive(place, **arrays):
  np.savez(place / "made.npz", **arrays)
  return place / "made.npz"


def pixels_of(images, row):
  return np.asarray(Image.open(io.BytesIO(images.read(row))))


@pytest.mark.parametrize("image_key", ["images", "samples", "x", "arr_0"])
@pytest.mark.parametrize("label_key", ["labels", "y", "arr_1"])
def test_images_and_labels_are_found_by_their_usual_names(image_key, label_key, tmp_path):
  path = archive(tmp_path, **{image_key: PIXELS, label_key: np.array([2, 0, 1])})
  images = array_images(path, tmp_path / "cache")
  assert images.ids == ["0", "1", "2"]
  assert images.classes == [("2",), ("0",), ("1",)]
  for row in (2, 0, 1):
    np.testing.assert_array_equal(pixels_of(images, row), PIXELS[row])


@pytest.mark.parametrize(
  ("labels", "names", "expected"),
  [
    (np.array(["cat", "dog", "cat"]), None, ["cat", "dog", "cat"]),
    (np.array([b"cat", b"d\xffg", b""]), None, ["cat", "d\ufffdg", ""]),
    (np.array([1, 0, 1]), ["cat", "dog"], ["dog", "cat", "dog"]),
    (np.array([1, 2, -1]), ["cat", "dog"], ["dog", "2", "-1"]),
    (np.eye(3)[[2, 0, 1]], None, ["2", "0", "1"]),
    (np.array([[2], [0], [1]]), None, ["2", "0", "1"]),
    (np.array([["cat"], ["dog"], ["cat"]]), None, ["cat", "dog", "cat"]),
    (np.array([2.0, 0.0, 1.0], np.float32), None, ["2", "0", "1"]),
    (np.array([2.0, 0.5, np.nan]), None, ["2", "0.5", "nan"]),
    (np.eye(2)[[1, 0, 1]], ["cat", "dog"], ["dog", "cat", "dog"]),
  ],
)
def test_labels_are_indices_names_or_one_hot(labels, names, expected, tmp_path):
  more = {} if names is None else {"class_names": np.array(names)}
  path = archive(tmp_path, images=PIXELS, labels=labels, **more)
  assert array_images(path, tmp_path).classes == [(name,) for name in expected]


@pytest.mark.parametrize(
  "keys", [("X_train", "Y_train"), ("Images", "LABELS"), ("pics", "species"), ("images", "species")]
)
def test_other_names_are_found_by_case_or_shape(keys, tmp_path):
  labels = np.array([[2], [0], [1]])
  path = archive(tmp_path, **dict(zip(keys, (PIXELS, labels), strict=True)), scale=np.ones(()))
  assert array_images(path, tmp_path / "cache").classes == [("2",), ("0",), ("1",)]


def test_two_arrays_that_may_be_labels_are_not_guessed(tmp_path):
  path = archive(tmp_path, images=PIXELS, species=np.zeros(3), seeds=np.zeros(3))
  with pytest.raises(UsageError, match="no array of labels among 'images', 'species', 'seeds'"):
    array_images(path, tmp_path / "cache")


def test_grayscale_images_lose_their_channel(tmp_path):
  for images in (PIXELS[..., 0], PIXELS[..., :1]):
    place = tmp_path / str(images.ndim)
    place.mkdir()
    found = array_images(archive(place, images=images, labels=np.zeros(3, int)), place)
    np.testing.assert_array_equal(pixels_of(found, 1), PIXELS[1, ..., 0])


@pytest.mark.parametrize(
  ("arrays", "message"),
  [
    ({"images": PIXELS}, "no array of labels among 'images'"),
    ({"labels": np.zeros(3)}, "no array of images among 'labels'"),
    ({"features": np.zeros((3, 8)), "labels": np.zeros(3)}, "contains features, not images"),
    ({"images": PIXELS / 255, "labels": np.zeros(3)}, r"must be uint8 \[3, h, w, 3\]"),
    ({"images": PIXELS[..., :2], "labels": np.zeros(3)}, r"not uint8 \[3, 4, 5, 2\]"),
    ({"images": PIXELS[0, 0], "labels": np.zeros(5)}, r"not uint8 \[5, 3\]"),
    ({"images": PIXELS, "labels": np.zeros(4)}, r"uint8 \[4, h, w, 3\], one per label"),
    ({"images": np.asfortranarray(PIXELS), "labels": np.zeros(3)}, "must be uint8"),
  ],
)
def test_other_arrays_are_rejected(arrays, message, tmp_path):
  with pytest.raises(UsageError, match=message):
    array_images(archive(tmp_path, **arrays), tmp_path / "cache")


@pytest.mark.parametrize("keep", [0, 40, 400])
def test_a_damaged_archive_is_rejected(keep, tmp_path):
  path = archive(tmp_path, images=PIXELS, labels=np.zeros(3))
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(UsageError, match=r"can't be read as \.npz"):
    array_images(path, tmp_path / "cache")


def test_a_single_array_is_no_archive(tmp_path):
  with (tmp_path / "made.npz").open("wb") as file:
    np.save(file, PIXELS)
  with pytest.raises(UsageError, match="not a zip file"):
    array_images(tmp_path / "made.npz", tmp_path)


def test_pickles_are_not_opened(tmp_path):
  path = archive(tmp_path, images=PIXELS, labels=np.array([{}, {}, {}], dtype=object))
  with pytest.raises(UsageError, match="pickled objects"):
    array_images(path, tmp_path / "cache")


@pytest.mark.parametrize("shape", [(1, 0, 1 << 40), (1, 1 << 40, 0, 3)])
def test_an_image_without_pixels_is_rejected(shape, tmp_path):
  """Found by fuzzing: Pillow cannot hold its size."""
  path = archive(tmp_path, images=np.zeros(shape, np.uint8), labels=np.zeros(1, int))
  with pytest.raises(UsageError, match="is empty or takes more than"):
    array_images(path, tmp_path / "cache")
