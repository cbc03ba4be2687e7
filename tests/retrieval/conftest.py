import importlib.resources
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from genbench_jax.zoo.tiny import write_tiny_clip

LAION_ROWS = 7


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
  return write_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def png():
  """Return a function from a seed to the bytes of a small image."""

  def encoded(seed, side=32):
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()

  return encoded


@pytest.fixture(scope="session")
def laion(tmp_path_factory, png):
  """configuration -> a small dataset with the features of TFDS's laion400m, prepared by TFDS as
  ArrayRecord."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.vision_language.laion400m import laion400m

  class Small(laion400m.Laion400m, skip_registration=True):
    name = "laion400m"

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples(dl_manager, {})}

    def _generate_examples(self, dl_manager, file_name_to_dl_path):
      for number in range(LAION_ROWS):
        yield str(number), _laion_example(self.builder_config.name, number, png)

  folder, prepared = tmp_path_factory.mktemp("laion"), {}
  with pytest.MonkeyPatch.context() as patch:  # the builder names its types by TensorFlow
    types = {"float16": np.float16, "float64": np.float64, "int32": np.int32}
    patch.setattr(laion400m, "tf", SimpleNamespace(**types))
    patch.setitem(sys.modules, "importlib_resources", importlib.resources)  # wanted, not installed
    for config in ("embeddings", "images"):
      builder = Small(config=config, data_dir=folder, file_format="array_record")
      builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))
      prepared[config] = Path(builder.data_path)
  return prepared


def _laion_example(config, number, png):
  about = {
    "caption": f"photo of number {number}",
    "nsfw": "UNLIKELY",
    "similarity": 0.3,
    "license": "",
    "url": f"http://x/{number}.png",
    "original_width": 32,
    "original_height": 32,
  }
  if config == "images":
    return {**about, "image": png(number)}
  return {**about, "image_embedding": _row(number), "text_embedding": _row(100 + number)}


@pytest.fixture(scope="session")
def row():
  """Return a function from a seed to a feature vector like LAION's."""
  return _row


def _row(seed):
  return np.random.default_rng(seed).standard_normal(512).astype(np.float16)


@pytest.fixture(autouse=True)
def pools_made_here(tmp_path_factory, monkeypatch):
  """Keep the registry of local pools out of the user's home."""
  from genbench_jax.retrieval import images

  monkeypatch.setattr(images, "KNOWN", tmp_path_factory.mktemp("known"))
