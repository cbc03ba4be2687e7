"""Runs of several real processes: none waits for a dead one, any number resumes, rows equal those
of one.
"""

import os
import shutil
import signal
import socket
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from genbench_jax.errors import RunError, UsageError
from genbench_jax.main import main
from genbench_jax.runtime.address import Address
from genbench_jax.runtime.hosts import _refuse_unequal_devices, processes
from genbench_jax.store.image_set import ImageSet

# Fast: no diffusion model is compiled.
CHEAP = ("--config.sources=('original',)", "--config.scoring.quantities=('cler', 'fid')")
LONG = pytest.param("images,embed,score,recognize", 3, marks=pytest.mark.long)
COUNTED = ("cler", "linear_probe")
DIED = ("another process of this run has died", "one has died")


def _start(tiny, workdir, stages, count, last=(), devices=1):
  """Start `count` processes on the loopback interface, the last with its own settings and devices."""
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{found.getsockname()[1]}"
  flags = [f"--coordinator={address}", f"--num_processes={count}"]
  return [
    tiny.start(
      workdir,
      *CHEAP,
      f"--stages={stages}",
      *flags,
      f"--process_id={number}",
      *(last if number == count - 1 else ()),
      devices=devices if number == count - 1 else 1,
    )
    for number in range(count)
  ]


@pytest.fixture
def start():
  """Call `_start`; the processes end with the test."""
  started = []

  def start_some(*arguments, **options):
    some = _start(*arguments, **options)
    started.extend(some)
    return some

  yield start_some
  for process in started:
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize(("stages", "count"), [("images", 2), LONG])
def test_any_number_of_processes_resumes_after_one_of_two_is_killed(
  tiny, tmp_path, start, stages, count
):
  hosts = start(tiny, tmp_path / "many", stages, 2)
  deadline = time.monotonic() + 300
  while time.monotonic() < deadline and not list(tmp_path.rglob("*.array_record-*")):
    time.sleep(0.05)
  hosts[1].kill()
  killed = time.monotonic()
  said, _ = hosts[0].communicate(timeout=120)
  assert time.monotonic() - killed < 60
  assert hosts[0].returncode == 1, said
  assert any(words in _last_word(said) for words in DIED), said
  hosts[1].communicate()

  others = start(tiny, tmp_path / "many", stages, count)
  outputs = [(host, *host.communicate(timeout=900)) for host in others]
  for host, output, _ in outputs:
    assert host.returncode == 0, output
  alone = tiny.arguments(tmp_path / "one", *CHEAP, f"--stages={stages}")
  assert main(["main", *alone]) == 0
  for folder in ("images", "embeddings"):
    assert (
      tiny.bytes(tmp_path / "many", folder).keys() == tiny.bytes(tmp_path / "one", folder).keys()
    )
  assert tiny.bytes(tmp_path / "many", "images") == tiny.bytes(tmp_path / "one", "images")
  if "score" in stages:
    _assert_same_rows(tiny, tmp_path)


@pytest.mark.long
def test_two_processes_with_copies_of_a_bucket_equal_one(tiny, tmp_path, start, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  stages = "images,embed,score,recognize"
  for host in start(tiny, f"file://{tmp_path / 'many'}", stages, 2):
    said, _ = host.communicate(timeout=900)
    assert host.returncode == 0, said
  assert len(list((tmp_path / "home").glob(".cache/genbench_jax/workdirs/*/.url"))) == 2
  alone = tiny.arguments(tmp_path / "one", *CHEAP, f"--stages={stages}")
  assert main(["main", *alone]) == 0
  assert tiny.bytes(tmp_path / "many", "images") == tiny.bytes(tmp_path / "one", "images")
  _assert_same_rows(tiny, tmp_path)


def _last_word(said, prefix=""):
  """Return our last line; threads of JAX may still write after it."""
  return [line for line in said.splitlines() if line.startswith(f"{prefix}error: ")][-1]


def _assert_same_rows(tiny, tmp_path):
  many, one = tiny.rows(tmp_path / "many"), tiny.rows(tmp_path / "one")
  _assert_close(many, one)
  counted = [[row for row in rows if row["quantity"] in COUNTED] for rows in (many, one)]
  assert counted[0] == counted[1]


def _assert_same_images(many, one):
  """Compare images; one pixel in a thousand may round differently with other neighbors in the
  batch.
  """
  folders = [path.relative_to(one) for path in one.glob("images/digits/*")]
  assert len(folders) == 2
  for folder in folders:
    left, right = (
      np.stack([np.asarray(Image.open(BytesIO(one.image)), int) for one in ImageSet(root / folder)])
      for root in (many, one)
    )
    off = np.abs(left - right)
    assert off.max() <= 2
    assert np.mean(off > 0) <= 1e-3


def _assert_close(many, one, rel=1e-4):
  """Compare rows: counts of decisions are equal, sums over devices round differently."""
  assert len(many) == len(one) > 0
  measured = ("value", "floor", "ci_low", "ci_high")
  for left, right in zip(many, one, strict=True):
    assert {k: left[k] for k in left if k not in measured} == {
      k: right[k] for k in right if k not in measured
    }
    tolerance = 0 if left["quantity"] in COUNTED else rel
    assert left["value"] == pytest.approx(right["value"], rel=tolerance, abs=0)
    for end in measured[1:]:
      assert left[end] == pytest.approx(right[end], rel=rel, abs=1e-5)


def test_the_error_of_a_lost_process_is_one_line_and_others_are_not(monkeypatch):
  monkeypatch.setattr("genbench_jax.runtime.hosts._join", lambda address, settings: [])
  lost = "UNKNOWN: Gloo AllGather failed: Connection closed by peer [127.0.0.1]:10961"
  for message, kind in ((lost, RunError), ("RESOURCE_EXHAUSTED: out", jax.errors.JaxRuntimeError)):
    with pytest.raises(kind), processes(Address(), True, {}):
      raise jax.errors.JaxRuntimeError(message)


def test_unequal_devices_that_only_jax_knows_are_named_with_their_machines(monkeypatch):
  devices = [SimpleNamespace(process_index=number) for number in (0, 1, 1)]
  monkeypatch.setattr(jax, "devices", lambda: devices)
  monkeypatch.setattr("genbench_jax.runtime.hosts._let_others_speak", lambda what: None)
  for machines, words in (
    (["a", "b"], "process 0 on a has 1, process 1 on b has 2."),
    ([], f"process 0 on {socket.gethostname()} has 1, process 1 has 2."),  # as under Slurm
  ):
    with pytest.raises(UsageError, match="different numbers of devices") as refused:
      _refuse_unequal_devices(machines)
    assert words in str(refused.value)


def _wait_for(folder, pattern, seconds=600):
  deadline = time.monotonic() + seconds
  while not list(folder.rglob(pattern)):
    assert time.monotonic() < deadline, f"no {pattern} in {folder}"
    time.sleep(0.05)


@pytest.fixture
def on_hosts(tiny):
  """Start `launch/local.py` with four devices per process; remaining processes end with the test."""
  started = []

  def start(workdir, processes, stages):
    started.append(tiny.on_hosts(workdir, processes, f"--stages={stages}", devices=4))
    return started[-1]

  yield start
  for launcher in started:
    launcher.terminate()
    launcher.wait(timeout=60)
    launcher.stdout.close()


@pytest.mark.long
def test_a_run_of_two_is_resumed_by_three_and_ended_by_four(
  tiny, on_four_devices, tmp_path, on_hosts
):
  two = on_hosts(tmp_path, 2, "images")
  _wait_for(tmp_path, "*.array_record-*")
  two.terminate()
  said, _ = two.communicate(timeout=60)
  assert two.returncode == 143, said
  assert said.count("stopped by SIGTERM") == 2
  for count, stages in ((3, "images"), (4, "embed,score,recognize,report")):
    launcher = on_hosts(tmp_path, count, stages)
    said, _ = launcher.communicate(timeout=1800)
    assert launcher.returncode == 0, said
  _assert_same_images(tmp_path, on_four_devices)
  _assert_close(tiny.rows(tmp_path), tiny.rows(on_four_devices), rel=1e-3)
  assert (tmp_path / "report" / "index.html").exists()


@pytest.mark.long
def test_the_others_end_if_one_of_four_is_killed_during_collectives(
  tiny, on_four_devices, tmp_path, on_hosts
):
  for folder in ("images", "embeddings"):
    shutil.copytree(on_four_devices / folder, tmp_path / folder)
  four = on_hosts(tmp_path, 4, "score,recognize")
  _wait_for(tmp_path, "*-score-*.jsonl")  # then recognizers train on all devices together
  working = [_child(child) for child in _children(four.pid)]
  os.kill(working[2], signal.SIGKILL)
  killed = time.monotonic()
  said, _ = four.communicate(timeout=120)
  assert time.monotonic() - killed < 60
  assert four.returncode == 1, said
  for number in (0, 1, 3):
    assert any(words in _last_word(said, f"[{number}] ") for words in DIED), said
  assert "was ended by SIGKILL" in _last_word(said, "[2] "), said


def _children(process):
  """Return the child processes of a process, in order."""
  return [int(n) for n in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def _child(process):
  (child,) = _children(process)
  return child


def test_inconsistent_flags_are_a_usage_error(tiny, tmp_path, capfd):
  for flags, words in (
    (["--coordinator=localhost:1"], "together, or none"),
    (["--coordinator=localhost", "--num_processes=2", "--process_id=0"], "expected HOST:PORT"),
    (["--coordinator=localhost:1", "--num_processes=2", "--process_id=2"], "expected 0 to 1"),
  ):
    assert main(["main", *tiny.arguments(tmp_path), *flags]) == 2
    assert words in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
  ("odd", "words"),
  [
    ({"last": ["--config.scoring.resamples=37"]}, "has --config.scoring.resamples=10, process 1 on"),
    ({"devices": 3}, "has 3 (cpu, XLA_FLAGS=--xla_force_host_platform_device_count=3)"),
    ({"last": ["--stages=images,embed"]}, "has --stages=images,"),
  ],
)  # fmt: skip
def test_different_processes_are_reported_in_one_line_each(tiny, tmp_path, start, odd, words):
  began = time.monotonic()
  hosts = start(tiny, tmp_path, "images", 2, **odd)
  said = [host.communicate(timeout=60)[0].strip().split("\n")[-1] for host in hosts]
  assert time.monotonic() - began < 60
  assert [host.returncode for host in hosts] == [2, 2]
  assert all(line.startswith("error: the processes") and words in line for line in said)
  assert not (tmp_path / "images").exists()


@pytest.mark.slow
def test_an_option_that_one_process_rejects_is_told_to_the_other(tiny, tmp_path, start):
  hosts = start(tiny, tmp_path, "images", 2, last=["--config.generation.stepz=3"])
  said = [host.communicate(timeout=60)[0].strip().split("\n")[-1] for host in hosts]
  assert [host.returncode for host in hosts] == [2, 2]
  assert said[1].startswith("error: unknown setting 'config.generation.stepz'")
  assert "process 1 on" in said[0] and f"cannot start: {said[1][7:60]}" in said[0]
