"""Inconsistent processes all receive the same one-line error within seconds."""

import os
import socket
import subprocess
import sys
import time

import pytest

PROGRAM = """
import sys, time
from genbench_jax.runtime import rendezvous
from genbench_jax.runtime.address import Address
from genbench_jax.errors import RunError, UsageError
rendezvous.LINGER_SECONDS, rendezvous.STRANGER_SECONDS, rendezvous.ANSWER_SECONDS = 2.0, 1.0, 0.5
rendezvous.SURPLUS_SECONDS, rendezvous.STAND_IN_SECONDS = 0.4, 0.8
rendezvous.START_SECONDS = {patience}
try:
  hosts = rendezvous.meet(Address("127.0.0.1:{port}", {count}, {number}), {settings}, {problem!r})
  assert len(hosts) == {count}
  print("met")
  {after}
except (UsageError, RunError) as error:
  print(type(error).__name__, error)
"""


@pytest.fixture
def port():
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


def _program(port, number, count, patience=60, settings=None, problem="", after="pass"):
  return PROGRAM.format(
    port=port,
    number=number,
    count=count,
    patience=patience,
    settings=settings or {},
    problem=problem,
    after=after,
  )


def _started(program, **environment):
  return subprocess.Popen(
    [sys.executable, "-c", program],
    stdout=subprocess.PIPE,
    text=True,
    env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""} | environment,
  )


def _said(port, *processes, apart=0.2, environments=(), **options):
  """Return the last output of processes, each given as (number, count[, settings])."""
  started = []
  for number, count, *settings in processes:
    environment = environments[len(started)] if environments else {}
    program = _program(port, number, count, settings=dict(*settings), **options)
    started.append(_started(program, **environment))
    time.sleep(apart)
  return [process.communicate(timeout=60)[0].strip() for process in started]


def test_processes_meet_in_any_order_and_again_at_the_same_port(port):
  for _ in range(2):
    assert _said(port, (2, 3), (0, 3), (1, 3)) == ["met"] * 3


def test_a_single_process_ends_if_another_expects_several(port):
  after = (
    "from genbench_jax.runtime.stopping import look\n  for _ in range(300): look(); time.sleep(0.1)"
  )
  assert _said(port, (0, 1)) == ["met"]
  alone, other = _said(port, (0, 1), (1, 2), after=after)
  assert alone.startswith("met") and "--num_processes=2" in alone and other in alone


@pytest.mark.parametrize(
  "processes",
  [
    ((0, 2), (0, 2)),
    ((1, 2), (1, 2)),  # none has number 0
    ((0, 3), (1, 3), (1, 3)),
    ((1, 3), (1, 3), (0, 3)),
  ],
)
def test_a_duplicate_number_is_reported_to_all(port, processes):
  said = _said(port, *processes)
  assert len(set(said)) == 1
  number = processes[1][0]
  assert said[0].startswith(
    f"UsageError two processes have --process_id={number}: process {number} on {socket.gethostname()}"
  )
  assert "\n" not in said[0]


def test_different_counts_are_reported_to_all(port):
  said = _said(port, (0, 3), (1, 2), (2, 3))
  assert len(set(said)) == 1
  assert "--num_processes=2" in said[0] and "--num_processes=3" in said[0]


@pytest.mark.parametrize("speaks", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_port_used_by_another_program(port, speaks):
  with socket.create_server(("127.0.0.1", port)) as other:
    if speaks:
      import threading

      def answer():
        while True:
          try:
            connection, _ = other.accept()
          except OSError:
            return
          with connection:
            connection.sendall(speaks)

      threading.Thread(target=answer, daemon=True).start()
    said = _said(port, (0, 2), (1, 2))
    other.shutdown(socket.SHUT_RDWR)
  assert said[0].startswith("UsageError") and "another program uses it" in said[0]
  assert said[1].startswith("UsageError") and "another program uses the port" in said[1]


def test_missing_processes_are_named(port):
  (said,) = _said(port, (0, 4), patience=1)
  assert said.startswith("RunError") and "for process 1, 2, 3 of 4" in said
  (said,) = _said(port, (1, 4), patience=1)
  assert said.startswith("RunError") and "for process 0" in said


def test_a_late_process_0_takes_the_port_from_its_stand_in(port):
  other = _started(_program(port, 1, 2))
  time.sleep(1.6)
  assert _said(port, (0, 2)) == ["met"]
  assert other.communicate(timeout=60)[0].strip() == "met"


def test_two_processes_0_on_two_machines(port):
  """The second listens at its own port, which nobody calls, and finds the first by its address."""
  elsewhere = "rendezvous._listener = lambda port: __import__('socket').create_server(('', 0))"
  second = _program(port, 0, 2).replace("try:", f"{elsewhere}\ntry:", 1)
  first = _started(_program(port, 0, 2))
  said = [process.communicate(timeout=60)[0].strip() for process in (_started(second), first)]
  assert said[0] == said[1] and "two processes have --process_id=0" in said[0]


def test_different_settings_are_reported_to_all_with_both_values(port):
  settings = {"a": 1, "steps": 20, "shots": (1, 4), "only": "x"}, {"a": 1, "steps": 50, "shots": ()}
  said = _said(port, (0, 3, settings[0]), (1, 3, settings[0]), (2, 3, settings[1]))
  assert len(set(said)) == 1 and said[0].startswith("UsageError the processes were started with")
  host = socket.gethostname()
  assert f"process 0 on {host}" in said[0] and "has only=x" in said[0]
  assert f"process 2 on {host}" in said[0] and "has only=nothing" in said[0]
  assert "Also different: shots, steps." in said[0] and "\n" not in said[0]


def test_different_devices_are_reported_to_all_with_the_variable(port):
  flag = "--xla_force_host_platform_device_count=3"
  said = _said(port, (0, 2), (1, 2), environments=[{}, {"XLA_FLAGS": flag}])
  assert len(set(said)) == 1 and "different numbers of devices" in said[0]
  assert "has 1 (cpu" in said[0] and f"has 3 (cpu, XLA_FLAGS={flag})" in said[0]


@pytest.mark.parametrize("number", [0, 1])
def test_the_others_are_told_why_one_cannot_start(port, number):
  bad = _started(_program(port, number, 2, problem="config.steps is 0\x1b[2J"))
  (said,) = _said(port, (1 - number, 2))
  assert f"process {number} on" in said and "cannot start: config.steps is 0\\x1b[2J" in said
  assert said.count("\n") == 0
  assert bad.communicate(timeout=60)[0].startswith("UsageError")


def test_a_process_that_died_while_waiting_can_be_restarted(port):
  first = _started(_program(port, 0, 3))
  gone = _started(_program(port, 1, 3))
  time.sleep(1.0)
  gone.kill()
  gone.communicate()
  assert _said(port, (1, 3), (2, 3)) == ["met", "met"]
  assert first.communicate(timeout=60)[0].strip() == "met"


def test_strangers_are_disconnected(port):
  first = _started(_program(port, 0, 2))
  for content in (
    b"GET / HTTP/1.1\r\n\r\n",
    b'{"program": "genbench_jax", "here": 3}\n',
    b"{" * 100_000,
    b"",
  ):
    for _ in range(100):
      try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
          stranger.sendall(content)
        break
      except ConnectionRefusedError:
        time.sleep(0.1)
      except OSError:  # hung up on
        break
  assert _said(port, (1, 2)) == ["met"]
  assert first.communicate(timeout=60)[0].strip() == "met"
