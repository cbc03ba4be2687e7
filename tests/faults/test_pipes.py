"""A pipe in the place of any file is reported at once; opening it would wait forever."""

import os

import numpy as np
import pytest

from genbench_jax.errors import RunError
from genbench_jax.recognizers.models import load_model
from genbench_jax.runtime.disk import disk_reason
from genbench_jax.store import embedding_set, files
from genbench_jax.store.image_set import (
  ImageRecord,
  ImageSet,
  ImageSetLayout,
  ImageSetWriter,
  encode_png,
)


@pytest.fixture
def pipe(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  return tmp_path / "pipe"


@pytest.mark.parametrize(
  "read", [embedding_set.load, lambda path: load_model(path, "x"), files.read_text, files.read_json]
)
def test_readers_of_a_work_folder(pipe, read):
  with pytest.raises(RunError, match="not a regular file"):
    read(pipe)


def test_the_digest_of_a_file(pipe):
  with pytest.raises(OSError, match="not a regular file") as raised:
    files.sha256(pipe)
  assert disk_reason(raised.value) == "not a regular file"  # so that commands end with one line


def test_every_file_of_an_image_set(tmp_path):
  layout = ImageSetLayout("digits_original", ("zero",), 1, 1, {})
  writer = ImageSetWriter(tmp_path / "set", layout)
  writer.write_shard(0, [ImageRecord(encode_png(np.zeros((4, 4, 3), np.uint8)), 0, 0)])
  writer.close()
  for path in [path for path in (tmp_path / "set").rglob("*") if path.is_file()]:
    content = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    try:
      found = ImageSet(tmp_path / "set")
      found.verify()
      assert len(found.labels) == 1
      assert found[0].label == 0 and path.parent.name == "seals", path
    except (RunError, OSError) as error:
      assert "regular" in str(error) or "damaged" in str(error), path
    path.unlink()
    path.write_bytes(content)
  assert len(ImageSet(tmp_path / "set")) == 1
