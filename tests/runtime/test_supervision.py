"""A supervised process ends with a message and an exit status in every case."""

import os
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import os, sys, time, signal
from genbench_jax.runtime.supervision import supervised
sys.exit(supervised(lambda: {work}))
"""


def _run(work):
  return subprocess.run(
    [sys.executable, "-c", PROGRAM.format(work=work)],
    capture_output=True,
    text=True,
    timeout=60,
    check=False,
  )


@pytest.mark.parametrize(("work", "status"), [("0", 0), ("2", 2), ("sys.exit(3)", 3), ("1 / 0", 1)])
def test_the_status_is_passed_on(work, status):
  assert _run(work).returncode == status


@pytest.mark.parametrize(
  ("work", "words"),
  [
    ("os.abort()", "another process of this run has died"),
    ("os.kill(os.getpid(), signal.SIGKILL)", "low memory"),
  ],
)
def test_a_killed_process_is_explained(work, words):
  done = _run(work)
  assert done.returncode == 1
  assert words in done.stderr
  assert "run the same command on all hosts to resume" in done.stderr


def _started(work):
  process = subprocess.Popen(
    [sys.executable, "-c", PROGRAM.format(work=work)], stdout=subprocess.PIPE, text=True
  )
  with process.stdout as lines:
    return process, int(lines.readline())


def test_a_signal_reaches_the_child():
  work = (
    "(signal.signal(15, lambda *_: os._exit(143)), print(os.getpid(), flush=True), time.sleep(60))"
  )
  process, _ = _started(work)
  process.terminate()
  assert process.wait(timeout=30) == 143


def test_a_killed_parent_takes_its_child_with_it():
  process, child = _started("(print(os.getpid(), flush=True), time.sleep(60))")
  process.kill()
  process.wait()
  deadline = time.monotonic() + 20
  while time.monotonic() < deadline:
    try:
      os.kill(child, 0)
    except ProcessLookupError:
      return
    time.sleep(0.05)
  os.kill(child, signal.SIGKILL)
  pytest.fail("the child outlived its parent")
