"""A work folder is used by one run at a time."""

import os

import pytest

from genbench_jax.errors import UsageError
from genbench_jax.store.workdir import locked, make_workdir


def test_a_second_run_is_rejected_and_names_the_first(tmp_path):
  refused = pytest.raises(UsageError, match=rf"in use by another run \(process {os.getpid()} on ")
  with locked(tmp_path / "work"), refused, locked(tmp_path / "work"):
    pass
  with locked(tmp_path / "work"):
    pass


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UsageError, match=r"file' can't be written to: File exists\."):
    make_workdir(tmp_path / "file")
  with pytest.raises(UsageError, match="can't be written to"), locked(tmp_path / "file" / "work"):
    pass


def test_a_work_folder_must_have_a_path_in_utf8(tmp_path):
  with pytest.raises(UsageError, match="not UTF-8"), locked(tmp_path / "caf\udce9"):
    pass
