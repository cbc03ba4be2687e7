"""Caption files of a tar are read up to their limit."""

import io
import tarfile

import pytest
from PIL import Image

from genbench_jax.retrieval.captions import MAX_CAPTION_BYTES
from genbench_jax.retrieval.tars import tar_listing


@pytest.mark.parametrize(("more", "caption"), [(0, "a cat"), (1, "")])
def test_a_caption_file_of_a_mebibyte_is_read_and_a_longer_one_is_not(tmp_path, more, caption):
  assert MAX_CAPTION_BYTES == 1024**2
  held = io.BytesIO()
  Image.new("RGB", (3, 3)).save(held, "PNG")
  text = b"a cat".ljust(MAX_CAPTION_BYTES + more)
  with tarfile.open(tmp_path / "x.tar", "w") as tar:
    for name, content in (("1.png", held.getvalue()), ("1.txt", text)):
      info = tarfile.TarInfo(name)
      info.size = len(content)
      tar.addfile(info, io.BytesIO(content))
  (entry,) = tar_listing(tmp_path / "x.tar").entries
  assert entry.caption == caption
