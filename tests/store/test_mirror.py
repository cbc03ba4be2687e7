"""A local copy of a work folder in an object store stays in sync, also after a crash or another run."""

import fsspec
import pytest

from genbench_jax.errors import RunError, UsageError
from genbench_jax.store import files, mirror
from genbench_jax.store.mirror import Mirror, local_copy, work_folder


@pytest.fixture
def bucket():
  """An object store in memory with an empty bucket."""
  store = fsspec.filesystem("memory")
  store.rm("/bucket", recursive=True) if store.exists("/bucket") else None
  yield store
  store.rm("/bucket", recursive=True) if store.exists("/bucket") else None


URL = "memory://bucket/run"


def held(store):
  return {name.removeprefix("/bucket/run/"): store.cat(name) for name in store.find("/bucket/run")}


def test_new_files_reach_the_next_copy(bucket, tmp_path):
  first, second = Mirror(URL, tmp_path / "a"), Mirror(URL, tmp_path / "b")
  first.fetch()
  files.write_text(tmp_path / "a" / "images" / "x", "one")
  files.write_text(tmp_path / "a" / "seal", "sealed")
  (tmp_path / "a" / ".y.part").write_text("half")
  (tmp_path / "a" / ".lock").write_text("")
  first.send()
  assert held(bucket) == {"images/x": b"one", "seal": b"sealed"}
  second.fetch()
  assert (tmp_path / "b" / "images" / "x").read_text() == "one"

  files.write_text(tmp_path / "b" / "images" / "x", "two")  # of the same size
  (tmp_path / "b" / "seal").unlink()
  second.send()
  assert held(bucket) == {"images/x": b"two"}
  first.fetch()
  assert (tmp_path / "a" / "images" / "x").read_text() == "two"
  assert not (tmp_path / "a" / "seal").exists()


def test_the_oldest_file_is_sent_first(bucket, tmp_path, monkeypatch):
  mirrored, sent = Mirror(URL, tmp_path), []
  put = mirrored._store.put_file
  monkeypatch.setattr(
    mirrored._store, "put_file", lambda local, path: (sent.append(path[-1]), put(local, path))
  )
  for name in "badc":
    files.write_text(tmp_path / name, name)
  mirrored.send()
  mirrored.send()
  assert "".join(sent) == "badc"


def test_an_old_copy_sends_unsent_files_and_fetches_lost_ones(bucket, tmp_path):
  Mirror(URL, tmp_path).fetch()
  for name in ("kept", "lost"):
    files.write_text(tmp_path / name, name)
  Mirror(URL, tmp_path).send()
  files.write_text(tmp_path / "unsent", "unsent")  # before the run died
  (tmp_path / "lost").unlink()  # between two runs
  Mirror(URL, tmp_path).fetch()
  names = {"kept", "lost", "unsent"}
  assert {path.name for path in tmp_path.iterdir()} - {".mirror.json"} == names == set(held(bucket))


def test_unchanged_files_are_not_copied_again(bucket, tmp_path, monkeypatch):
  files.write_text(tmp_path / "x", "x")
  Mirror(URL, tmp_path).send()
  again = Mirror(URL, tmp_path)
  for name in ("put_file", "get_file"):
    monkeypatch.setattr(again._store, name, None)
  again.fetch()


def test_files_deleted_during_a_fetch_are_skipped(bucket, tmp_path, monkeypatch):
  bucket.pipe("/bucket/run/x", b"x")
  listed = bucket.find("/bucket/run", detail=True) | {"/bucket/run/gone": {"size": 1}}
  fetching = Mirror(URL, tmp_path)
  monkeypatch.setattr(fetching._store, "find", lambda *_, **__: listed, raising=False)
  fetching.fetch()
  assert {path.name for path in tmp_path.iterdir()} == {".mirror.json", "x"}


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a//x", "a\\x"])
def test_names_outside_the_folder_are_rejected(bucket, tmp_path, name, monkeypatch):
  listed = {f"/bucket/run/{name}": {"size": 1}}
  fetching = Mirror(URL, tmp_path / "copy")
  monkeypatch.setattr(fetching._store, "find", lambda *_, **__: listed, raising=False)
  with pytest.raises(RunError, match="not a valid file name"):
    fetching.fetch()
  assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.fixture
def copies(tmp_path, monkeypatch):
  monkeypatch.setattr(mirror, "COPIES", tmp_path)
  return tmp_path


def test_files_are_sent_during_the_run_and_after_a_failure(bucket, copies, monkeypatch):
  monkeypatch.setattr(mirror, "SECONDS_BETWEEN_SENDING", 0.01)
  with pytest.raises(RunError, match="first"), work_folder(URL) as folder:
    assert folder == local_copy(URL)
    files.write_text(folder / "x", "x")
    for _ in range(500):
      # An object of this bucket appears before its content.
      if held(bucket).get("x") == b"x":
        break
      mirror.threading.Event().wait(0.01)
    assert held(bucket)["x"] == b"x"
    monkeypatch.setattr(mirror, "SECONDS_BETWEEN_SENDING", 1000)
    files.write_text(folder / "last", "last")
    raise RunError("first")
  assert set(held(bucket)) == {".url", "x", "last"}


def test_each_process_has_its_own_copy(copies):
  assert local_copy(URL, 1) not in (local_copy(URL, 0), local_copy("memory://bucket/other", 1))
  assert str(local_copy("~/x")).startswith("/")


def test_an_unavailable_store_is_a_user_error(bucket, copies, monkeypatch):
  with pytest.raises(UsageError, match="Protocol not known"), work_folder("nonsense://x"):
    pass
  monkeypatch.setattr(
    "fsspec.core.url_to_fs", lambda *_: (_ for _ in ()).throw(ImportError("gcsfs"))
  )
  with pytest.raises(UsageError, match="gcsfs"), work_folder("gs://x/y"):
    pass


def test_a_store_that_denies_access_is_named(bucket, copies, monkeypatch):
  def refuse(*_, **__):
    raise PermissionError("403: no\naccess")

  monkeypatch.setattr(type(bucket), "find", refuse)
  with (
    pytest.raises(UsageError, match=r"can't use memory://bucket/run: .*403: no access"),
    work_folder(URL),
  ):
    pass
  monkeypatch.undo()
  monkeypatch.setattr(mirror, "COPIES", copies)
  monkeypatch.setattr(type(bucket), "put_file", refuse)
  with pytest.raises(UsageError, match="can't write to memory"), work_folder(URL):
    pass
  monkeypatch.undo()
  monkeypatch.setattr(mirror, "COPIES", copies)
  with pytest.raises(RunError, match="can't write to memory"), work_folder(URL) as folder:
    monkeypatch.setattr(type(bucket), "put_file", refuse)
    files.write_text(folder / "x", "x")


@pytest.mark.parametrize(
  ("name", "sent"),
  [
    ("results.jsonl", True),
    (".url", True),
    ("deep/.lease", True),
    (".mirror.json", False),
    ("deep/.lock", False),
    (".lease/00000001", False),
    ("deep/.a.json.0123.part", False),
    ("state/1.orbax-checkpoint-tmp-2/data", False),
  ],
)
def test_states_of_this_machine_and_unfinished_files_are_not_sent(name, sent):
  assert mirror._is_sent(name) == sent


@pytest.mark.parametrize(
  ("cause", "final"), [(None, True), (PermissionError(), True), (TimeoutError(), False)]
)
def test_only_denied_and_taken_buckets_are_not_retried(cause, final):
  error = RunError("no")
  error.__cause__ = cause
  assert mirror._is_final(error) == final


def test_urls_are_remote_and_paths_are_not():
  found = [mirror.is_remote(text) for text in ("gs://a/b", "memory://a", "/a/b", "a:b", "~/a")]
  assert found == [True, True, False, False, False]
  assert mirror._opened("memory://a/b/")[1] == "/a/b"
  with pytest.raises(UsageError, match="--workdir is 'nothing://a'"):
    mirror._opened("nothing://a")
