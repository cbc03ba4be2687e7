"""`genbench_jax.embed_images` and `embed_texts`: arrays, paths and PIL images to features."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genbench_jax.embedding import library
from genbench_jax.embedding.embedder import image_features, text_features
from genbench_jax.embedding.library import embed_images, embed_texts, open_image
from genbench_jax.embedding.preprocess import preprocess
from genbench_jax.errors import UsageError


@pytest.fixture(scope="module")
def images():
  draw = np.random.default_rng(0)
  return [draw.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((32, 32), (50, 40), (33, 90))]


def test_arrays_paths_and_pil_images_are_one(tiny_clip, tiny_clip_folder, images, tmp_path):
  paths = [tmp_path / f"{index}.png" for index in range(3)]
  for path, image in zip(paths, images, strict=True):
    Image.fromarray(image).save(path)
  kinds = [images, paths, [str(path) for path in paths], [Image.fromarray(i) for i in images]]
  features = [embed_images(kind, tiny_clip_folder) for kind in kinds]
  for other in features[1:]:
    np.testing.assert_array_equal(features[0], other)
  settings = (tiny_clip.image_size, tiny_clip.image_mean, tiny_clip.image_std)
  pixels = np.stack([preprocess(Image.fromarray(image), *settings) for image in images])
  np.testing.assert_allclose(features[0], image_features(tiny_clip, pixels), atol=1e-5)


def test_one_array_of_images(tiny_clip_folder, images):
  both = np.stack([images[0], images[0][::-1]])
  features = embed_images(both, tiny_clip_folder)
  assert features.shape == (2, 16)
  np.testing.assert_allclose(features[:1], embed_images(images[:1], tiny_clip_folder), atol=1e-5)


def test_texts(tiny_clip, tiny_clip_folder):
  texts = ["a dog", "a cat"]
  np.testing.assert_array_equal(
    embed_texts(texts, tiny_clip_folder), text_features(tiny_clip, texts)
  )


def test_none_gives_none(tiny_clip_folder):
  assert embed_images([], tiny_clip_folder).shape == (0, 16)


@pytest.mark.parametrize(
  "array", [np.zeros((4, 4, 3)), np.zeros(4, np.uint8), np.zeros((4, 4, 2), np.uint8)]
)
def test_arrays_that_are_no_images_are_refused(tiny_clip_folder, array):
  with pytest.raises(UsageError, match="an image must be uint8"):
    embed_images([array], tiny_clip_folder)


def test_broken_files_are_named(tiny_clip_folder, tmp_path):
  path = tmp_path / "broken.png"
  path.write_bytes(b"\x89PNG not really")
  with pytest.raises(UsageError, match=r"broken\.png can't be read as an image"):
    embed_images([path], tiny_clip_folder)
  with pytest.raises(UsageError, match=r"missing\.png"):
    embed_images([tmp_path / "missing.png"], tiny_clip_folder)


def test_a_gray_array_is_an_image():
  image = open_image(np.arange(20, dtype=np.uint8).reshape(5, 4))
  assert (image.size, image.mode) == ((4, 5), "L")


def test_pipes_and_postscript_are_refused_at_once(tiny_clip_folder, tmp_path):
  os.mkfifo(tmp_path / "pipe.png")
  Image.new("RGB", (4, 4)).save(tmp_path / "a.png", format="EPS")
  for name in ("pipe.png", "a.png"):
    with pytest.raises(UsageError, match=f"{name} can't be read as an image"):
      embed_images([tmp_path / name], tiny_clip_folder)


def test_a_checkpoint_that_is_written_again_is_loaded_again(tmp_path):
  from genbench_jax.zoo.tiny import write_tiny_clip

  folder = write_tiny_clip(tmp_path / "clip")
  before = embed_texts("a", folder)
  write_tiny_clip(folder, seed=1)
  assert not np.array_equal(embed_texts("a", folder), before)


@pytest.mark.parametrize(
  ("images", "count"),
  [
    ("a.png", 1),
    (Path("a.png"), 1),
    (Image.new("RGB", (2, 2)), 1),
    (np.zeros((5, 4), np.uint8), 1),
    (np.zeros((5, 4, 3), np.uint8), 1),
    (np.zeros((5, 4, 4, 3), np.uint8), 5),
    (["a.png", "b.png"], 2),
  ],
)
def test_a_single_image_is_a_batch_of_one(images, count):
  assert len(library._as_sequence(images)) == count
