"""Reading .npz files takes no more memory than allowed, whatever the file claims."""

import io
import os
import zipfile

import numpy as np
import pytest

from genbench_jax.runtime.npz import npz_names, read_header, read_npz


def test_arrays_are_those_that_numpy_reads(tmp_path):
  arrays = {
    "c": np.arange(6, dtype=np.float32).reshape(2, 3),
    "f": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "scalar": np.asarray(7),
    "text": np.array(["a", "bcd"]),
    "empty": np.zeros((0, 4)),
  }
  np.savez_compressed(tmp_path / "a.npz", **arrays)
  found = read_npz(tmp_path / "a.npz", 1000)
  assert npz_names(tmp_path / "a.npz") == list(arrays)
  for name, array in arrays.items():
    np.testing.assert_array_equal(found[name], array)
    assert found[name].dtype == array.dtype
  assert read_npz(tmp_path / "a.npz", 1000, {"c", "missing"}).keys() == {"c"}


def _with_header(path, shape, dtype, content=b"", version=(1, 0)):
  header = io.BytesIO()
  about = {"descr": dtype, "fortran_order": False, "shape": shape}
  np.lib.format.write_array_header_1_0(header, about)
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("mu.npy", header.getvalue() + content)


@pytest.mark.parametrize(
  ("shape", "dtype", "content", "words"),
  [
    ((1 << 40, 1 << 20), "<f8", b"", "at most 1000"),
    ((100,), "<f8", b"\0" * 10, "ends within"),
    ((1 << 24,), "|u1", b"\0" * (1 << 24), "at most 1000"),  # a bomb: it decompresses to its claim
    ((-1, 3), "<f8", b"", "shape"),
    ((2,), "|O", b"", "objects"),
  ],
)
def test_claims_beyond_the_limit_are_rejected_without_memory(
  tmp_path, shape, dtype, content, words
):
  _with_header(tmp_path / "a.npz", shape, dtype, content)
  with pytest.raises(ValueError, match=words):
    read_npz(tmp_path / "a.npz", 1000)


def test_the_limit_is_that_of_all_arrays_together(tmp_path):
  np.savez(tmp_path / "a.npz", a=np.zeros(100), b=np.zeros(100))
  with pytest.raises(ValueError, match="'b'"):
    read_npz(tmp_path / "a.npz", 1000)


def test_other_files_are_rejected(tmp_path):
  (tmp_path / "text.npz").write_bytes(b"no")
  with pytest.raises(ValueError, match="zip"):
    read_npz(tmp_path / "text.npz", 1000)
  with (tmp_path / "sparse.npz").open("wb") as file:
    file.truncate(1 << 40)
  with pytest.raises(ValueError, match="zip"):
    read_npz(tmp_path / "sparse.npz", 1000)
  os.mkfifo(tmp_path / "pipe.npz")
  for name in ("pipe.npz", "missing.npz", "."):
    with pytest.raises(OSError):
      read_npz(tmp_path / name, 1000)


@pytest.mark.parametrize(
  "text", ["{'descr': '<f4', 'shape': (1,", "{", "1 +", "[" * 200, "  x\n y", "{1: 2}"]
)
def test_headers_that_are_no_python_are_damage(text):
  """NumPy parses headers as Python, and repairs those of Python 2 with its tokenizer."""
  header = (text + "\n").encode()
  content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
  with pytest.raises(ValueError, match="header is damaged"):
    read_header(io.BytesIO(content))
