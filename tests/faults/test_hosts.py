"""Several real processes on one run: none waits for the dead, any number goes on, and the rows are those of one."""

import socket
import time

import pytest

from genbench_jax.main import main

# Cheap: no diffusion model has to be compiled. tools/hosts_trials.py does it with one.
CHEAP = ("--config.sources=('original',)", "--config.scoring.quantities=('cler', 'fid')")
SLOW = pytest.param("images,embed,score,recognise", 3, marks=pytest.mark.slow)
COUNTED = ("cler", "linear_probe")


def _start(tiny, workdir, stages, count):
  """`count` processes that find each other on the loopback."""
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{found.getsockname()[1]}"
  flags = [f"--coordinator={address}", f"--num_processes={count}"]
  return [
    tiny.start(workdir, *CHEAP, f"--stages={stages}", *flags, f"--process_id={number}")
    for number in range(count)
  ]


@pytest.fixture
def start():
  """`_start`, whose processes end with the test."""
  started = []

  def start_some(*arguments):
    some = _start(*arguments)
    started.extend(some)
    return some

  yield start_some
  for process in started:
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize(("stages", "count"), [("images", 2), SLOW])
def test_one_of_two_is_killed_and_any_number_go_on(tiny, tmp_path, start, stages, count):
  hosts = start(tiny, tmp_path / "many", stages, 2)
  deadline = time.monotonic() + 300
  while time.monotonic() < deadline and not list(tmp_path.rglob("*.array_record-*")):
    time.sleep(0.05)
  hosts[1].kill()
  killed = time.monotonic()
  said, _ = hosts[0].communicate(timeout=120)
  assert time.monotonic() - killed < 60
  assert hosts[0].returncode == 1, said
  last = said.splitlines()[-1]
  assert "another process of this run has died" in last or "one has died" in last
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


def _assert_same_rows(tiny, tmp_path):
  many, one = tiny.rows(tmp_path / "many"), tiny.rows(tmp_path / "one")
  assert len(many) == len(one) > 0
  for left, right in zip(many, one, strict=True):
    if left["quantity"] in COUNTED:
      assert left == right
    else:
      assert left["value"] == pytest.approx(right["value"], rel=1e-4)


def test_flags_that_do_not_fit_together_are_a_mistake_in_usage(tiny, tmp_path, capfd):
  for flags, words in (
    (["--coordinator=localhost:1"], "given together"),
    (["--coordinator=localhost", "--num_processes=2", "--process_id=0"], "wanted HOST:PORT"),
    (["--coordinator=localhost:1", "--num_processes=2", "--process_id=2"], "count from 0"),
  ):
    assert main(["main", *tiny.arguments(tmp_path), *flags]) == 2
    assert words in capfd.readouterr().err
