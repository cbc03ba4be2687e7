"""Work folders in an object store with real processes; a folder behind `file://` is the bucket."""

import os
import shutil
import signal
import time

import pytest

CHEAP = (
  "--config.sources=('original',)",
  "--config.scoring.quantities=('cler', 'fid')",
  "--stages=images,embed,score",
)


@pytest.mark.slow
def test_an_empty_machine_resumes_from_the_bucket_of_a_dead_one(tiny, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  bucket = tmp_path / "bucket"
  process = tiny.start(f"file://{bucket}", *CHEAP)
  deadline = time.monotonic() + 300
  while not list(bucket.rglob("images/**/dataset_info.json")):
    assert process.poll() is None, process.communicate()[0]
    assert time.monotonic() < deadline
    time.sleep(0.05)
  os.kill(process.pid, signal.SIGKILL)
  process.communicate()
  shutil.rmtree(tmp_path / "home")

  status, said = tiny.run(f"file://{bucket}", *CHEAP)
  assert status == 0, said
  assert "images: nothing to do" in said
  status, said = tiny.run(tmp_path / "one", *CHEAP)
  assert status == 0, said
  assert tiny.rows(bucket) == tiny.rows(tmp_path / "one")
  assert tiny.bytes(bucket, "images") == tiny.bytes(tmp_path / "one", "images")
