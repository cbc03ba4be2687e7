"""SIGTERM and Ctrl-C end a command in time, whatever the main thread is doing."""

import signal
import subprocess
import sys
import time

import pytest

from genbench_jax.runtime.stopping import STATUSES

PROGRAM = """
import gc, sys, time, signal
from genbench_jax.runtime.stopping import leave, look
from genbench_jax.runtime.command import run_command
def work():
  print("ready", flush=True)
  {work}
  print("lost", flush=True)
  return 0
{before}
signal.signal(signal.SIGINT, signal.default_int_handler)  # the suite may run in the background
leave(run_command(work))
"""
LOOKS = "[(time.sleep(0.01), look()) for _ in range(6000)]"
# One instruction of Python's that takes minutes, in which no handler can run: as a compilation is.
IN_C = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
# What JAX does: Python in the garbage collector, where an exception can't be passed on.
IN_COLLECTOR = """
def slow(phase, info):
  end = time.monotonic() + 0.02
  while time.monotonic() < end: pass
gc.callbacks.append(slow)
"""
COLLECTS = "[([[] for _ in range(3000)], gc.collect(), look()) for _ in range(6000)]"
# Daemon threads and exit handlers must not delay the end.
LINGERS = """
import atexit, concurrent.futures
pool = concurrent.futures.ThreadPoolExecutor(1)
pool.submit(time.sleep, 60)
atexit.register(time.sleep, 60)
"""


def _stopped(number, work, before="", grace=None, program=PROGRAM):
  """Return status, seconds and output of a program that receives a signal when it is ready."""
  program = program.format(work=work, before=before)
  if grace:
    program = f"import genbench_jax.runtime.stopping as s\ns.stops_on_signals.__wrapped__.__defaults__ = ({grace},)\n{program}"
  process = subprocess.Popen(
    [sys.executable, "-c", program],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "ready\n"
  time.sleep(0.2)
  began = time.monotonic()
  process.send_signal(number)
  output, errors = process.communicate(timeout=60)
  return process.returncode, time.monotonic() - began, output, errors


@pytest.mark.parametrize("number", STATUSES)
@pytest.mark.parametrize(
  ("work", "before"), [(LOOKS, ""), (COLLECTS, IN_COLLECTOR), (LOOKS, LINGERS)]
)
def test_a_signal_ends_work_that_checks_for_it(number, work, before):
  status, seconds, output, errors = _stopped(number, work, before)
  assert status == STATUSES[number]
  assert seconds < 10
  assert "lost" not in output
  assert "Complete files are kept" in errors and f"Status {status}" in errors
  assert "Traceback" not in errors and "ignored" not in errors


@pytest.mark.parametrize("number", STATUSES)
def test_a_signal_ends_work_that_cannot_check(number):
  status, seconds, output, errors = _stopped(number, IN_C, grace=1.0)
  assert (status, output) == (STATUSES[number], "")
  assert 0.9 < seconds < 10
  assert "Complete files are kept" in errors


def test_cleanup_after_the_block_is_executed():
  program = PROGRAM.replace(
    "leave(",
    "status = run_command(work)\ngc.collect(); time.sleep(0.3); print('sent', flush=True)\nleave(",
  ).replace("leave(run_command(work))", "leave(status)")
  assert "leave(status)" in program
  status, _, output, errors = _stopped(signal.SIGTERM, LOOKS, program=program)
  assert (status, output) == (143, "sent\n")
  assert errors.count("Complete files are kept") == 1


def test_a_block_that_never_checked_still_ends_by_the_signal():
  status, _, output, _ = _stopped(signal.SIGTERM, "time.sleep(1.5); return 0")
  assert (status, output) == (143, "")


def test_a_second_interrupt_ends_at_once():
  program = PROGRAM.format(work="time.sleep(60)", before="")
  process = subprocess.Popen(
    [sys.executable, "-c", program],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )
  process.stdout.readline()
  process.send_signal(signal.SIGINT)
  time.sleep(1.0)
  began = time.monotonic()
  process.send_signal(signal.SIGINT)
  process.communicate(timeout=30)
  assert process.returncode == 130
  assert time.monotonic() - began < 5
