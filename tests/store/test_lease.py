"""One run at a time writes to a bucket: waiting, messages, and takeover after a crash."""

import threading
import time

import fsspec
import pytest

from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime import stopping
from genbench_jax.store import files, lease, mirror
from genbench_jax.store.lease import Lease
from genbench_jax.store.mirror import Mirror, work_folder

ROOT = "/leases/run"


@pytest.fixture
def store(monkeypatch):
  monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
  monkeypatch.setattr(lease, "LOOK_SECONDS", 0.02)
  monkeypatch.setattr(lease, "SILENT_SECONDS", 0.5)
  memory = fsspec.filesystem("memory")
  memory.rm("/leases", recursive=True) if memory.exists("/leases") else None
  yield memory
  memory.rm("/leases", recursive=True) if memory.exists("/leases") else None


def _lease(store, machine):
  return Lease(store, ROOT, "memory://leases/run", machine)


def test_an_active_holder_excludes_others_and_releases_cleanly(store):
  first, lost = _lease(store, "a"), []
  first.acquire()
  first.keep(lost.append)
  with pytest.raises(UsageError, match="in use by another run"):
    _lease(store, "b").acquire()
  first.release()
  assert not store.find(ROOT) and not lost
  _lease(store, "b").acquire()


def test_a_silent_holder_is_replaced_and_stops_when_it_resumes(store):
  dead = _lease(store, "a")
  dead.acquire()
  began = time.monotonic()
  heir = _lease(store, "b")
  heir.acquire()
  assert time.monotonic() - began >= 0.5
  heir.check()
  with pytest.raises(RunError, match="taken over by another run"):
    dead.check()
  lost = []
  dead.keep(lost.append)
  time.sleep(0.3)
  assert "taken over" in str(lost[0])
  dead.release()  # must not delete the new holder's lease
  heir.check()


def test_the_lease_of_a_killed_run_is_taken_over_at_once_on_its_machine(store):
  _lease(store, "a").acquire()
  began = time.monotonic()
  _lease(store, "a").acquire()
  assert time.monotonic() - began < 0.4


def test_only_one_of_many_concurrent_runs_gets_the_lease(store):
  held, refused = [], []

  def come(machine):
    mine = _lease(store, machine)
    try:
      mine.acquire()
      mine.keep(refused.append)
      held.append(mine)
    except UsageError as error:
      refused.append(error)

  threads = [threading.Thread(target=come, args=(str(n),)) for n in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert (len(held), len(refused)) == (1, 7)
  held[0].check()
  held[0].release()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"token": 1}'])
def test_an_unreadable_lease_is_respected_until_it_expires(store, content):
  store.pipe_file(f"{ROOT}/.lease/00000007", content)
  store.pipe_file(f"{ROOT}/.lease/notes", b"x")
  heir = _lease(store, "b")
  heir.acquire()
  heir.check()
  assert store.find(ROOT)[0].endswith("00000008")


URL = "memory://leases/run"


@pytest.fixture
def away(store, tmp_path, monkeypatch):
  """Return a dict whose "away" entry switches the store off."""
  monkeypatch.setattr(mirror, "COPIES", tmp_path / "copies" / "workdirs")
  monkeypatch.setattr(mirror, "SECONDS_BETWEEN_SENDING", 0.05)
  monkeypatch.setattr(mirror, "NOTICE_SECONDS", 0.2)
  monkeypatch.setattr(mirror, "LAST_SECONDS", 1.0)
  state = {"away": False}

  def guarded(name):
    call = getattr(type(store), name)

    def guard(self, *arguments, **options):
      if state["away"]:
        raise OSError("no route to host")
      return call(self, *arguments, **options)

    monkeypatch.setattr(type(store), name, guard)

  for name in ("put_file", "find", "pipe_file"):
    guarded(name)
  yield state
  state["away"] = False


def _wait_for(words, capsys, seconds=10):
  said, until = "", time.monotonic() + seconds
  while words not in said:
    assert time.monotonic() < until, said
    time.sleep(0.05)
    said += capsys.readouterr().err
  return said


def test_an_outage_is_reported_and_retried(away, store, capsys):
  with work_folder(URL) as workdir:
    away["away"] = True
    files.write_text(workdir / "x", "made meanwhile")
    said = _wait_for("Retrying every", capsys)
    assert "no route to host" in said
    away["away"] = False
    _wait_for("is reachable again", capsys)
  assert store.cat("/leases/run/x") == b"made meanwhile"


def test_a_long_outage_ends_the_run(away, monkeypatch, capsys):
  monkeypatch.setattr(mirror, "OUTAGE_SECONDS", 0.5)
  with (
    pytest.raises(RunError, match=r"no route to host.*the same command on this machine"),
    work_folder(URL) as workdir,
  ):
    away["away"] = True
    files.write_text(workdir / "x", "x")
    for _ in range(200):
      time.sleep(0.05)
      stopping.look()
  assert (workdir / "x").exists()


def test_an_outage_at_the_end_is_retried_and_then_reported(away):
  began = time.monotonic()
  with (
    pytest.raises(RunError, match="the same command on this machine continues"),
    work_folder(URL) as workdir,
  ):
    away["away"] = True
    files.write_text(workdir / "x", "x")
  assert 0.9 < time.monotonic() - began < 10
  away["away"] = False
  with work_folder(URL):
    pass


def test_nothing_is_sent_after_the_lease_is_lost(away, store, tmp_path):
  with pytest.raises(RunError, match="taken over"), work_folder(URL) as workdir:
    store.pipe_file(
      f"{ROOT}/.lease/00000099", b'{"token": "t", "machine": "m", "holder": "h", "beat": 1}'
    )
    files.write_text(workdir / "x", "x")
    for _ in range(200):
      time.sleep(0.05)
      stopping.look()
  assert not store.exists("/leases/run/x")


def test_a_second_run_on_the_machine_changes_nothing(away, tmp_path):
  with work_folder(URL) as workdir:
    before = sorted(path.name for path in workdir.rglob("*"))
    with pytest.raises(UsageError, match="another run on this machine"), work_folder(URL):
      pass
    assert sorted(path.name for path in workdir.rglob("*")) == before


def test_leases_are_not_copied(away, store, tmp_path):
  with work_folder(URL):
    Mirror(URL, tmp_path / "b").fetch()
    assert not (tmp_path / "b" / ".lease").exists()
    assert store.find(f"{ROOT}/.lease")


def test_a_holder_renews_many_times_before_it_counts_as_dead():
  """Changing these needs a look at stores that bill each request."""
  assert (lease.BEAT_SECONDS, lease.LOOK_SECONDS, lease.SILENT_SECONDS) == (8, 2, 60)
  assert (mirror.SECONDS_BETWEEN_SENDING, mirror.NOTICE_SECONDS) == (10, 30)
  assert (mirror.OUTAGE_SECONDS, mirror.LAST_SECONDS) == (900, 60)
