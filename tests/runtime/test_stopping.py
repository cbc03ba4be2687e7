"""SIGTERM ends a run in time with a status of its own, whatever the main thread is doing."""

import subprocess
import sys
import time

import pytest

from genbench_jax.runtime.stopping import STATUS

PROGRAM = """
import sys, time, signal
from genbench_jax.runtime.stopping import Stopped, stops_on_sigterm
try:
  with stops_on_sigterm(grace=1.0):
    print("ready", flush=True)
    {work}
except Stopped:
  print("unwound", flush=True)
  sys.exit(143)
"""
IN_PYTHON = "time.sleep(60)"
# One instruction of Python's that takes minutes, in which no handler can run: as a compilation is.
IN_C = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"


@pytest.mark.parametrize(("work", "unwound"), [(IN_PYTHON, True), (IN_C, False)])
def test_sigterm_ends_the_process_in_time(work, unwound):
  process = subprocess.Popen(
    [sys.executable, "-c", PROGRAM.format(work=work)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "ready\n"
  time.sleep(0.3)
  began = time.monotonic()
  process.terminate()
  output, errors = process.communicate(timeout=30)
  assert process.returncode == STATUS
  assert time.monotonic() - began < 10
  assert ("unwound" in output) == unwound
  assert ("stopped by SIGTERM" in errors) == (not unwound)
