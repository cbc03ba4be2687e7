"""Files of torch.save are read as tensors only.

The two small archives were written by PyTorch 2.13, in the current format and in that before 1.6.
"""

import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from genbench_jax.errors import RunError
from genbench_jax.models.torch_archive import read_archive

DATA = Path(__file__).parent.parent / "data"


@pytest.mark.parametrize("kind", ["zip", "before_zip"])
def test_tensors_are_read_from_both_formats(kind):
  found = read_archive(DATA / f"torch_archive_{kind}.pth")
  six = np.arange(6, dtype=np.float32).reshape(2, 3)
  np.testing.assert_array_equal(found["a.weight"], six)
  np.testing.assert_array_equal(found["t"], six.T)
  np.testing.assert_array_equal(found["v"], [2, 3, 4, 5])
  np.testing.assert_array_equal(found["p"], [1, 1])
  assert found["a.bias"].dtype == np.float16 and found["n"] == 7
  assert all(array.flags.owndata for array in found.values())


class Evil:
  def __reduce__(self):
    return os.system, ("touch run_by_a_pickle",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_functions_are_never_called(tmp_path, monkeypatch, protocol):
  monkeypatch.chdir(tmp_path)
  with zipfile.ZipFile("evil.pth", "w") as archive:
    archive.writestr("evil/data.pkl", pickle.dumps({"a": Evil()}, protocol))
  Path("plain.pth").write_bytes(pickle.dumps(Evil(), protocol))
  for name in ("evil.pth", "plain.pth"):
    with pytest.raises(RunError, match=r"names (posix|nt)\.system, which no file of tensors needs"):
      read_archive(Path(name))
  assert not Path("run_by_a_pickle").exists()


def test_attributes_of_allowed_names_are_not_accessible(tmp_path):
  """Protocol 4 resolves dotted names: an allowed module must not give access to another."""
  path = tmp_path / "dotted.pth"
  code = b"\x80\x04\x8c\x0bcollections\x8c\x1bOrderedDict.fromkeys.__self__\x93."
  path.write_bytes(code.replace(b"\x8c\x1b", bytes([0x8C, len("OrderedDict.fromkeys.__self__")])))
  with pytest.raises(RunError, match=r"names collections\.OrderedDict\.fromkeys"):
    read_archive(path)


@pytest.mark.parametrize("kind", ["zip", "before_zip"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_damaged_files_give_one_line(tmp_path, kind, share):
  path = Path(shutil.copy(DATA / f"torch_archive_{kind}.pth", tmp_path))
  whole = path.read_bytes()
  path.write_bytes(whole[: int(share * len(whole))])
  with pytest.raises(RunError) as error:
    read_archive(path)
  assert "\n" not in str(error.value)


def test_a_tensor_beyond_its_storage_is_rejected(tmp_path):
  import io

  path = tmp_path / "views.pth"
  with (
    zipfile.ZipFile(DATA / "torch_archive_zip.pth") as source,
    zipfile.ZipFile(path, "w") as target,
  ):
    for info in source.infolist():
      content = source.read(info)
      if "/data/" in info.filename:
        content = io.BytesIO(content).read(4)
      target.writestr(info.filename, content)
  with pytest.raises(RunError, match="beyond its storage"):
    read_archive(path)
