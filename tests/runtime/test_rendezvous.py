"""Inconsistent processes all receive the same one-line error within seconds."""

import socket
import subprocess
import sys
import time

import pytest

PROGRAM = """
import sys
from genbench_jax.runtime import rendezvous
from genbench_jax.runtime.address import Address
from genbench_jax.errors import RunError, UsageError
rendezvous.LINGER_SECONDS, rendezvous.STRANGER_SECONDS, rendezvous.ANSWER_SECONDS = 2.0, 2.0, 1.0
rendezvous.START_SECONDS = {patience}
try:
  rendezvous.meet(Address("127.0.0.1:{port}", {count}, {number}))
  print("met")
except (UsageError, RunError) as error:
  print(type(error).__name__, error)
"""


@pytest.fixture
def port():
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


def _said(port, *processes, patience=60, apart=0.3):
  """Return the last output of processes, each given as (number, count)."""
  started = []
  for number, count in processes:
    program = PROGRAM.format(port=port, count=count, number=number, patience=patience)
    started.append(
      subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    )
    time.sleep(apart)
  return [process.communicate(timeout=60)[0].strip() for process in started]


def test_processes_meet_in_any_order_and_again_at_the_same_port(port):
  for _ in range(2):
    assert _said(port, (2, 3), (0, 3), (1, 3)) == ["met"] * 3
  assert _said(port, (0, 1)) == ["met"]


@pytest.mark.parametrize(
  "processes", [((0, 2), (0, 2)), ((0, 3), (1, 3), (1, 3)), ((1, 3), (1, 3), (0, 3))]
)
def test_a_duplicate_number_is_reported_to_all(port, processes):
  said = _said(port, *processes)
  assert len(set(said)) == 1
  number = 0 if processes[0] == (0, 2) else 1
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
  (said,) = _said(port, (0, 4), patience=2)
  assert said.startswith("RunError") and "for process 1, 2, 3 of 4" in said
  (said,) = _said(port, (1, 4), patience=2)
  assert said.startswith("RunError") and "for process 0" in said


def test_a_process_that_died_while_waiting_can_be_restarted(port):
  program = PROGRAM.format(port=port, count=3, number=1, patience=60)
  first = subprocess.Popen(
    [sys.executable, "-c", PROGRAM.format(port=port, count=3, number=0, patience=60)],
    stdout=subprocess.PIPE,
    text=True,
  )
  gone = subprocess.Popen([sys.executable, "-c", program])
  time.sleep(2.0)
  gone.kill()
  gone.wait()
  assert _said(port, (1, 3), (2, 3)) == ["met", "met"]
  assert first.communicate(timeout=60)[0].strip() == "met"


def test_strangers_are_disconnected(port):
  program = PROGRAM.format(port=port, count=2, number=0, patience=60)
  first = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
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
