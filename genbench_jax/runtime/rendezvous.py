"""Meeting of the processes of a run before JAX joins them, for clear errors of launch scripts.

If two processes have the same number, or another program has the port, JAX waits for minutes and
ends without a clear message. Here, process 0 listens at the coordinator's address until every other
process has called. It checks their numbers, settings and devices and sends all of them the same
answer: go, or the problem. Then it frees the port for JAX.
"""

import contextlib
import errno
import math
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.address import Address
from genbench_jax.runtime.callers import Caller, disagreement, read_caller, this_caller
from genbench_jax.runtime.messages import received, send
from genbench_jax.runtime.printable import printable
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.stopping import fail_at_next_look, look

# Processes of a job start at different times: images are pulled, machines boot.
START_SECONDS = 600
# Process 0 answers at once. A listener that does not is another program.
ANSWER_SECONDS = 5.0
STRANGER_SECONDS = 8.0
# Late callers are told about the problem as well: expected ones for longer than surplus ones.
LINGER_SECONDS = 20.0
SURPLUS_SECONDS = 5.0
# A process that cannot start looks this long for process 0 to say so.
EXCUSE_SECONDS = 20.0
_LONGEST_PROBLEM = 400
NOTICE_SECONDS = 30.0
# If process 0 does not listen for this long, another process on its machine does: perhaps two have
# its number.
STAND_IN_SECONDS = 10.0


class StrangerError(OSError):
  """The listener is not a process of this package."""


def meet(address: Address, settings: Mapping[str, Any], problem: str = "") -> list[str]:
  """Return the machines of all processes of a run, in order, when they have met.

  Args:
    address: address of process 0, with the number of this process and of all.
    settings: name -> value of what all processes must share.
    problem: why this process cannot start; empty if it can.

  Raises:
    UsageError: the processes are inconsistent, one cannot start, or another program has the port.
      All processes raise it.
    RunError: some processes never called.
  """
  own = this_caller(address.process_id, address.num_processes, settings, problem)
  host, _, port = address.coordinator.rpartition(":")
  host = host.strip("[]")
  if own.number:
    return _call(own, host, int(port))
  meeting = _Meeting(own, _listener_of_first(own, host, int(port)), address.coordinator)
  if own.total == 1:
    threading.Thread(target=meeting.guard, daemon=True).start()
    return [own.host]
  threading.Thread(target=_look_elsewhere, args=(meeting, host, int(port)), daemon=True).start()
  return meeting.hold()


@contextlib.contextmanager
def errors_told(address: Address) -> Iterator[None]:
  """Tell the other processes, which would wait, about an error of usage in the block.

  Raises:
    UsageError: the error.
  """
  try:
    yield
  except UsageError as error:
    if address.is_given and address.num_processes > 1:
      with contextlib.suppress(UsageError, RunError):
        meet(address, {}, str(error).split("\n")[0][:_LONGEST_PROBLEM])
    raise


def _listener_of_first(own: Caller, host: str, port: int) -> socket.socket:
  """Return process 0's socket; a stand-in leaves the port to it.

  Raises:
    UsageError: another program, or another process 0, has the port, or it cannot be used.
  """
  began = time.monotonic()
  while True:
    look()
    try:
      return _listener(port)
    except OSError as error:
      if error.errno != errno.EADDRINUSE:
        raise UsageError(f"process 0 cannot listen at port {port}: {error.strerror}.") from error
      if not _is_leaving(own, host, port) or time.monotonic() - began > STRANGER_SECONDS:
        raise UsageError(
          f"process 0 on {own.host} cannot listen at port {port}: another program uses it. Give all processes another port"
          " in --coordinator."
        ) from error
    time.sleep(0.2)


def _is_leaving(own: Caller, host: str, port: int) -> bool:
  """Return whether the listener leaves the port to this process 0.

  Raises:
    UsageError: it is another process 0 of this run, which now tells both.
  """
  try:
    _call_once(own, host, port)
  except StrangerError:
    return False
  except ConnectionRefusedError:  # it has left, or listens at another address of this machine
    return True
  except OSError:
    return False
  return True


def _listener(port: int) -> socket.socket:
  if socket.has_dualstack_ipv6():
    with contextlib.suppress(OSError):  # many containers have no IPv6
      return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
  return socket.create_server(("", port))


def _look_elsewhere(meeting: "_Meeting", host: str, port: int) -> None:
  """Call the coordinator's address from process 0: it may lead to another machine."""
  while not meeting.is_over.wait(0.5):
    try:
      _call_once(meeting.own, host, port)
      return  # this process itself has answered
    except UsageError as error:
      fail_at_next_look(error)
      return
    except OSError:  # a name that cannot be reached from here may be right for the others
      continue


class _Meeting:
  """Process 0, or its stand-in, which waits for the others.

  Args:
    own: this process.
    listener: socket bound to the port.
    place: HOST:PORT, for messages.
  """

  def __init__(self, own: Caller, listener: socket.socket, place: str) -> None:
    self.own, self.listener, self.place = own, listener, place
    self.present: dict[int, tuple[Caller, socket.socket]] = {}
    self.is_over = threading.Event()

  def hold(self) -> list[str]:
    """Wait for all processes and let them go; return their machines, see `meet`.

    Raises:
      UsageError: the processes are inconsistent.
      RunError: some processes never called.
    """
    with self._closed_at_end():
      if self.own.problem:
        self._end(f"{self.own} cannot start: {self.own.problem}")
      for caller, connection in self._callers(START_SECONDS):
        self.present[caller.number] = caller, connection
        if len(self.present) == self.own.total - 1:
          break
      else:
        raise RunError(
          f"process 0 at {self.place} waited {START_SECONDS} s for {self._absent()} of"
          f" {self.own.total}: check whether they start and can reach this machine."
        )
      hosts = [self.own.host, *(self.present[n][0].host for n in sorted(self.present))]
      self._tell({"go": hosts})
    return hosts

  def stand_in(self, seconds: float) -> None:
    """Wait in place of process 0, until it comes; none may come if two have another's number.

    Raises:
      UsageError: the processes are inconsistent.
    """
    with self._closed_at_end():
      for caller, connection in self._callers(seconds):
        self.present[caller.number] = caller, connection
        if caller.number == 0:
          return

  def guard(self) -> None:
    """End the run of a single process if another calls, which expects several."""
    with self._closed_at_end():
      try:
        for _ in self._callers(math.inf):
          pass
      except UsageError as error:
        fail_at_next_look(error)

  @contextlib.contextmanager
  def _closed_at_end(self) -> Iterator[None]:
    try:
      yield
    finally:
      self.is_over.set()
      self.listener.close()
      for _, connection in self.present.values():
        connection.close()

  def _callers(self, seconds: float) -> Iterator[tuple[Caller, socket.socket]]:
    """Yield valid callers; the first invalid one ends the meeting for all."""
    began, noticed = time.monotonic(), False
    while (waited := time.monotonic() - began) < seconds:
      look()
      if waited > NOTICE_SECONDS and not noticed and self.own.number == 0 < self.own.total - 1:
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
    """Return the next caller within a moment; disconnect strangers and this process itself."""
    if not select.select([self.listener], [], [], 0.2)[0]:
      return None
    connection, _ = self.listener.accept()
    try:
      connection.settimeout(ANSWER_SECONDS)
      send(connection, {"here": self.own.number})
      caller = read_caller(received(connection)["here"])
      if caller[:4] != self.own[:4]:
        return caller, connection
      connection.close()  # this process itself, see `_look_elsewhere`
      return None
    except (OSError, TypeError, ValueError, LookupError):
      connection.close()
      return None

  def _problem(self, caller: Caller) -> str:
    """Return the problem with a caller; empty if there is none."""
    known = {self.own.number: self.own} | {number: who for number, (who, _) in self.present.items()}
    if caller.total == self.own.total and caller.number in known:
      return (
        f"two processes have --process_id={caller.number}: {known[caller.number]} and {caller}."
        " Give each process its own number, from 0."
      )
    return disagreement(self.own, caller)

  def _end(self, problem: str) -> None:
    """Tell the problem to all who are here and to those who call in the next seconds."""
    self._tell({"problem": problem})
    last = time.monotonic()
    until = last + LINGER_SECONDS
    while time.monotonic() < (until if self._awaits_more() else last + SURPLUS_SECONDS):
      look()
      if called := self._accepted():
        self.present[-1 - len(self.present)] = called
        last = time.monotonic()
        with contextlib.suppress(OSError):
          send(called[1], {"problem": problem})
    raise UsageError(problem)

  def _awaits_more(self) -> bool:
    totals = [self.own.total, *(caller.total for caller, _ in self.present.values())]
    return len(self.present) < max(totals) - 1

  def _tell(self, message: Mapping[str, Any]) -> None:
    for _, connection in self.present.values():
      with contextlib.suppress(OSError):
        send(connection, message)

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


def _call(own: Caller, host: str, port: int) -> list[str]:
  """Call process 0 until it says go; return the machines of all processes."""
  began = time.monotonic()
  first_stranger, noticed = 0.0, False
  reason: object = "no answer"
  patience = EXCUSE_SECONDS if own.problem else START_SECONDS
  while (waited := time.monotonic() - began) < patience:
    look()
    if waited > NOTICE_SECONDS and not noticed:
      noticed = True
      say(f"process {own.number} waits for process 0 at {host}:{port}: {reason}")
    try:
      if hosts := _call_once(own, host, port):
        return hosts
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
      if waited > STAND_IN_SECONDS and isinstance(error, ConnectionRefusedError):
        _stand_in(own, host, port)
    time.sleep(0.5)
  raise RunError(
    f"process {own.number} on {own.host} waited {patience:.0f} s for process 0 at {host}:{port}: {reason}."
  )


def _stand_in(own: Caller, host: str, port: int) -> None:
  """Listen in place of process 0 for a while, on its machine, see `_Meeting.stand_in`."""
  try:
    family, *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family) as probe:
      probe.bind(address)  # fails for an address of another machine
    listener = _listener(port)
  except OSError:
    return
  _Meeting(own, listener, f"{host}:{port}").stand_in(STAND_IN_SECONDS)


def _call_once(own: Caller, host: str, port: int) -> list[str]:
  """Call process 0 and wait for its answer, the machines of all; empty if it disconnected.

  Raises:
    OSError: there is no listener.
    StrangerError: the listener is another program.
    UsageError: process 0 reports a problem.
  """
  with socket.create_connection((host, port), timeout=2) as connection:
    connection.settimeout(ANSWER_SECONDS)
    try:
      send(connection, {"here": own})
      if "here" not in received(connection):
        raise ValueError
    except (ValueError, TypeError, OSError) as error:  # it may disconnect on unknown input
      raise StrangerError("another program") from error
    connection.settimeout(1.0)
    word = _word(connection)
  if problem := word.get("problem"):
    raise UsageError(printable(str(problem)))
  return [str(host) for host in word.get("go", ())]


def _word(connection: socket.socket) -> dict[str, Any]:
  """Return the final answer of process 0; None if it is gone."""
  while True:
    look()
    try:
      return received(connection)
    except TimeoutError:
      continue
    except (OSError, ValueError, TypeError):
      return {}
