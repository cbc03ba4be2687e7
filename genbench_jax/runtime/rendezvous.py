"""Meeting of the processes of a run before JAX joins them, for clear errors of launch scripts.

If two processes have the same number, or another program has the port, JAX waits for minutes and
ends without a clear message. Here, process 0 listens at the coordinator's address until every other
process has called. It checks their numbers and sends all of them the same answer: go, or the
problem. Then it frees the port for JAX.
"""

import contextlib
import errno
import json
import os
import select
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.address import Address
from genbench_jax.runtime.printable import printable
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.stopping import look

# Processes of a job start at different times: images are pulled, machines boot.
START_SECONDS = 600
# Process 0 answers at once. A listener that does not is another program.
ANSWER_SECONDS = 5.0
STRANGER_SECONDS = 8.0
# Late callers are told about the problem as well.
LINGER_SECONDS = 12.0
NOTICE_SECONDS = 30.0
_GREETING = "genbench_jax"
_MOST_BYTES = 65_536


class Caller(NamedTuple):
  """A process, as it identifies itself."""

  number: int
  total: int
  host: str
  pid: int

  def __str__(self) -> str:
    return f"process {self.number} on {printable(self.host)[:80]} (pid {self.pid})"


class StrangerError(OSError):
  """The listener is not a process of this package."""


def meet(address: Address) -> None:
  """Return when all processes of a run have met.

  Args:
    address: address of process 0, with the number of this process and of all.

  Raises:
    UsageError: the processes are inconsistent, or another program has the port. All processes raise
      it.
    RunError: some processes never called.
  """
  own = Caller(address.process_id, address.num_processes, socket.gethostname(), os.getpid())
  host, _, port = address.coordinator.rpartition(":")
  host = host.strip("[]")
  if own.total < 2:
    return
  if own.number:
    _call(own, host, int(port))
    return
  try:
    listener = _listener(int(port))
  except OSError as error:
    if error.errno not in (errno.EADDRINUSE, errno.EACCES):
      raise RunError(f"process 0 cannot listen at port {port}: {error.strerror}.") from error
    _refuse_taken_port(own, host, int(port), error)
    return
  with listener:
    _Meeting(own, listener, address.coordinator).hold()


def _listener(port: int) -> socket.socket:
  if socket.has_dualstack_ipv6():
    with contextlib.suppress(OSError):  # many containers have no IPv6
      return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
  return socket.create_server(("", port))


def _refuse_taken_port(own: Caller, host: str, port: int, error: OSError) -> None:
  """Ask the listener who it is; another process 0 of this run tells both the problem."""
  with contextlib.suppress(OSError):
    _call_once(own, host, port)
  raise UsageError(
    f"process 0 on {own.host} cannot listen at port {port}: another program uses it. Give all processes another port in"
    " --coordinator."
  ) from error


class _Meeting:
  """Process 0, which waits for the others.

  Args:
    own: this process.
    listener: socket bound to the port.
    place: HOST:PORT, for messages.
  """

  def __init__(self, own: Caller, listener: socket.socket, place: str) -> None:
    self.own, self.listener, self.place = own, listener, place
    self.present: dict[int, tuple[Caller, socket.socket]] = {}

  def hold(self) -> None:
    """Wait for all processes and let them go; see `meet`.

    Raises:
      RunError: some processes never called.
    """
    try:
      for caller, connection in self._callers(START_SECONDS):
        self.present[caller.number] = caller, connection
        if len(self.present) == self.own.total - 1:
          break
      else:
        raise RunError(
          f"process 0 at {self.place} waited {START_SECONDS} s for {self._absent()} of"
          f" {self.own.total}: check whether they start and can reach this machine."
        )
      self._tell({"go": True})
    finally:
      for _, connection in self.present.values():
        connection.close()

  def _callers(self, seconds: float) -> Iterator[tuple[Caller, socket.socket]]:
    """Yield valid callers; the first invalid one ends the meeting for all."""
    began, noticed = time.monotonic(), False
    while (waited := time.monotonic() - began) < seconds:
      look()
      if waited > NOTICE_SECONDS and not noticed:
        noticed = True
        say(f"process 0 at {self.place} waits for {self._absent()} of {self.own.total}")
      called = self._accepted()
      # Only now: an earlier caller with the same number may have died during the wait.
      self._forget_the_gone()
      if called is None:
        continue
      if problem := self._problem(called[0]):
        self.present[-1] = called  # it is told the problem as well
        self._end(problem)
      yield called

  def _accepted(self) -> tuple[Caller, socket.socket] | None:
    """Return the next caller within a moment; disconnect strangers."""
    if not select.select([self.listener], [], [], 0.2)[0]:
      return None
    connection, _ = self.listener.accept()
    try:
      connection.settimeout(ANSWER_SECONDS)
      _send(connection, {"here": self.own})
      return Caller(*_received(connection)["here"]), connection
    except (OSError, TypeError, ValueError, LookupError):
      connection.close()
      return None

  def _problem(self, caller: Caller) -> str:
    """Return the problem with a caller; empty if there is none."""
    known = {0: self.own} | {number: who for number, (who, _) in self.present.items()}
    if caller.total != self.own.total:
      return (
        f"{caller} was started with --num_processes={caller.total}, but {self.own} with"
        f" --num_processes={self.own.total}. Start all with the same number."
      )
    if caller.number in known:
      return (
        f"two processes have --process_id={caller.number}: {known[caller.number]} and {caller}."
        " Give each process its own number, from 0."
      )
    return ""

  def _end(self, problem: str) -> None:
    """Tell the problem to all who are here and to those who call in the next seconds."""
    self._tell({"problem": problem})
    until = time.monotonic() + LINGER_SECONDS
    while time.monotonic() < until and len(self.present) < self.own.total:
      if called := self._accepted():
        self.present[-1 - len(self.present)] = called
        self._tell({"problem": problem})
    raise UsageError(problem)

  def _tell(self, message: Mapping[str, Any]) -> None:
    for _, connection in self.present.values():
      with contextlib.suppress(OSError):
        _send(connection, message)

  def _forget_the_gone(self) -> None:
    """Free the places of processes that have ended, since they may be started again."""
    connections = {connection: number for number, (_, connection) in self.present.items()}
    for connection in select.select(list(connections), [], [], 0)[0] if connections else ():
      with contextlib.suppress(OSError):
        if connection.recv(1):
          continue
      connection.close()
      del self.present[connections[connection]]

  def _absent(self) -> str:
    numbers = [n for n in range(1, self.own.total) if n not in self.present]
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"process {', '.join(map(str, numbers[:8]))}{more}"


def _call(own: Caller, host: str, port: int) -> None:
  """Call process 0 until it says go."""
  began = time.monotonic()
  first_stranger, noticed = 0.0, False
  reason: object = "no answer"
  while (waited := time.monotonic() - began) < START_SECONDS:
    look()
    if waited > NOTICE_SECONDS and not noticed:
      noticed = True
      say(f"process {own.number} waits for process 0 at {host}:{port}: {reason}")
    try:
      if _call_once(own, host, port):
        return
    except StrangerError as error:
      first_stranger = first_stranger or time.monotonic()
      if time.monotonic() - first_stranger > STRANGER_SECONDS:
        raise UsageError(
          f"the listener at {host}:{port} that process {own.number} on {own.host} called is not process 0 of this run: another"
          f" program uses the port, or the run has started with another process {own.number}. Give all processes another"
          " port, and each its own --process_id."
        ) from error
    except OSError as error:
      reason, first_stranger = error.strerror or error, 0.0
    time.sleep(0.5)
  raise RunError(
    f"process {own.number} on {own.host} waited {START_SECONDS} s for process 0 at {host}:{port}: {reason}."
  )


def _call_once(own: Caller, host: str, port: int) -> bool:
  """Call process 0 and wait for its answer; return False if it disconnected.

  Raises:
    OSError: there is no listener.
    StrangerError: the listener is another program.
    UsageError: process 0 reports a problem.
  """
  with socket.create_connection((host, port), timeout=2) as connection:
    connection.settimeout(ANSWER_SECONDS)
    try:
      _send(connection, {"here": own})
      if "here" not in _received(connection):
        raise ValueError
    except (ValueError, TypeError, TimeoutError) as error:
      raise StrangerError("another program") from error
    except OSError as error:  # it disconnects on unknown input
      raise StrangerError("another program") from error
    connection.settimeout(1.0)
    word = _word(connection)
  if problem := word.get("problem"):
    raise UsageError(printable(str(problem)))
  return bool(word.get("go"))


def _word(connection: socket.socket) -> dict[str, Any]:
  """Return the final answer of process 0; None if it is gone."""
  while True:
    look()
    try:
      return _received(connection)
    except TimeoutError:
      continue
    except (OSError, ValueError, TypeError):
      return {}


def _send(connection: socket.socket, message: Mapping[str, Any]) -> None:
  connection.sendall(json.dumps({"program": _GREETING, **message}).encode() + b"\n")


def _received(connection: socket.socket) -> dict[str, Any]:
  """Return the next message, read byte by byte because the following one is for another reader.

  Raises:
    ValueError: it is not one of our messages.
    OSError: there is none.
  """
  line = bytearray()
  while not line.endswith(b"\n"):
    byte = connection.recv(1)
    if not byte:
      raise ConnectionError("disconnected")
    line += byte
    if len(line) > _MOST_BYTES or not line.startswith(b"{"):
      raise ValueError("unknown message")
  message = json.loads(line)
  if message.get("program") != _GREETING:
    raise ValueError("unknown message")
  return message
