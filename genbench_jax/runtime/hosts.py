"""The processes of one run: startup, assignment of work, and synchronization.

Images and embeddings need no collectives: each process makes its own units of work on its own
devices. Scoring and recognition run the same program on all processes, on the mesh of all devices.
"""

import contextlib
import dataclasses
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool

from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.address import Address
from genbench_jax.runtime.callers import different_settings, read_caller, this_caller
from genbench_jax.runtime.rendezvous import START_SECONDS, meet
from genbench_jax.runtime.stopping import look
from genbench_jax.runtime.supervision import DIED, GOES_ON

# A process without a heartbeat for this long counts as dead, and JAX ends the others.
HEARTBEAT_SECONDS = 25
# By then, all processes have met.
JOIN_SECONDS = 60
# Maximum time between processes at a barrier: one may have hours of images to make when another has
# none. Dead processes are detected much earlier by their heartbeat.
DRIFT_SECONDS = 14 * 24 * 3600
# Errors of a program on all devices contain one of these if devices of another process are gone.
LOST = ("Gloo", "NCCL", "UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "onnection")
# Called before and after every barrier, see `around_waits`.
_AROUND_WAITS: ContextVar[tuple[tuple[Callable[[], None], Callable[[], None]], ...]] = ContextVar(
  "around_waits", default=()
)
# Time to print the reason if all processes end for the same reason.
LAST_WORDS_SECONDS = 15
# Time to wait for the others at the very end.
STOP_SECONDS = 15


@dataclasses.dataclass(frozen=True)
class Hosts:
  """This process and the number of processes of the run.

  Attributes:
    number: index of this process, from 0.
    count: number of processes.
  """

  number: int = 0
  count: int = 1

  @property
  def is_first(self) -> bool:
    """Whether this process writes files that exist once: manifests, rows, the report."""
    return self.number == 0

  def owns(self, unit: int) -> bool:
    """Return whether a unit of work, such as a shard, belongs to this process.

    Units are assigned by their number, not by what is missing. No process needs to know how far the
    others are, and any number of processes can resume a run evenly.
    """
    return unit % self.count == self.number

  def wait(self, what: str) -> None:
    """Return when all processes have reached this point.

    Raises:
      RunError: a process has died or ended.
    """
    look()
    if self.count > 1:
      from orbax.checkpoint import multihost

      for prepare, _ in _AROUND_WAITS.get():
        prepare()
      with _named(what):
        multihost.get_barrier_sync_fn()(key=what, timeout_ms=DRIFT_SECONDS * 1000)
      for _, catch_up in _AROUND_WAITS.get():
        catch_up()

  def agreed(self, flags: Iterable[bool], what: str) -> Bool[np.ndarray, "n"]:
    """Return the first process's flags on every process.

    Files appear at different times on different hosts, so each process could see other flags.
    """
    own = np.asarray(list(flags), bool)
    if self.count == 1 or not len(own):
      return own
    from jax.experimental import multihost_utils

    self.wait(what)
    with _named(what):
      return np.asarray(multihost_utils.broadcast_one_to_all(own), bool)

  def gathered(self, values: list[Any], what: str) -> list[Any]:
    """Return the JSON values of all processes in order."""
    if self.count == 1:
      return values
    from jax.experimental.multihost_utils import process_allgather

    self.wait(what)
    with _named(what):
      text = np.frombuffer(json.dumps(values).encode(), np.uint8)
      sizes = np.asarray(process_allgather(np.array([len(text)], np.int32))).reshape(-1)
      padded = np.zeros(int(sizes.max()), np.uint8)
      padded[: len(text)] = text
      rows = np.asarray(process_allgather(padded)).reshape(self.count, -1)
    found = [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]
    return [value for values in found for value in values]


@contextlib.contextmanager
def around_waits(before: Callable[[], None], after: Callable[[], None]) -> Iterator[None]:
  """Call these functions at every barrier, where copies of the work folder are synchronized."""
  token = _AROUND_WAITS.set((*_AROUND_WAITS.get(), (before, after)))
  try:
    yield
  finally:
    _AROUND_WAITS.reset(token)


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
  try:
    yield
  except (RuntimeError, ValueError) as error:
    first = str(error).strip().split("\n")[0][:200]
    raise RunError(
      f"waiting for the other processes ({what}) failed: one has died or cannot be reached. {first}"
    ) from error


@contextlib.contextmanager
def processes(address: Address, several: bool, settings: Mapping[str, Any]) -> Iterator[Hosts]:
  """Yield this process among those of the run, joined before any other use of JAX.

  Args:
    address: the address from the flags.
    several: whether there are other processes.
    settings: name -> value of what all processes must share.

  Raises:
    UsageError: the processes are inconsistent.
    RunError: other processes cannot be reached, or one is lost during a collective.
  """
  machines = _join(address, settings) if several else None
  joined = machines is not None
  try:
    if machines is not None:
      _refuse_unequal_devices(machines)
      if not address.is_given:  # otherwise `meet` has compared them
        _refuse_different(this_process(), settings)
    yield this_process()
  except jax.errors.JaxRuntimeError as error:
    first = str(error).strip().split("\n")[0][:200]
    if not (joined and any(sign in first for sign in LOST)):
      raise
    raise RunError(f"{DIED}: {first}. {GOES_ON}") from error
  if joined:  # not after an error, so that waiting processes notice the end of this one
    jax.distributed.shutdown()


def _refuse_unequal_devices(machines: Sequence[str]) -> None:
  """Require equal numbers of devices, because rows are split evenly over the mesh.

  `meet` has compared the numbers that the environment shows.

  Args:
    machines: name of each process's machine, as far as they are known.

  Raises:
    UsageError: the numbers differ.
  """
  counts = Counter(device.process_index for device in jax.devices())
  if len(set(counts.values())) > 1:
    _let_others_speak("unequal devices")
    names = dict(enumerate(machines)) or {jax.process_index(): socket.gethostname()}
    listing = ", ".join(
      f"process {number}{f' on {names[number]}' if number in names else ''} has {count}"
      for number, count in sorted(counts.items())
    )
    raise UsageError(
      f"the processes have different numbers of devices: {listing}. Give each the same number."
    )


def _refuse_different(hosts: Hosts, settings: Mapping[str, Any]) -> None:
  """Reject processes with different settings; all of them end with the same message.

  Raises:
    UsageError: a setting differs; the message has both values and machines.
  """
  own = this_caller(hosts.number, hosts.count, settings)
  first, *others = map(read_caller, hosts.gathered([own], "a look at the settings"))
  for other in others:
    if problem := different_settings(first, other):
      _let_others_speak("different settings")
      raise UsageError(problem)


def _let_others_speak(what: str) -> None:
  """Wait until all processes have printed their error, since JAX aborts them when process 0 ends."""
  from orbax.checkpoint import multihost

  with contextlib.suppress(
    RuntimeError, ValueError
  ):  # a process that has ended has printed its error
    multihost.get_barrier_sync_fn()(key=what, timeout_ms=LAST_WORDS_SECONDS * 1000)
  if jax.process_index() == 0:
    time.sleep(2)


def this_process() -> Hosts:
  """Return this process among those that have joined."""
  return Hosts(jax.process_index(), jax.process_count())


def _join(address: Address, settings: Mapping[str, Any]) -> list[str] | None:
  """Join the other processes; return the machines of all, none if there is only this process.

  The list is empty if the environment names the processes, because then they do not meet.

  Raises:
    UsageError: the processes are inconsistent.
    RunError: they cannot find each other.
  """
  if address.num_processes == 1:
    return None
  # JAX's own preemption service swallows SIGTERM; ours ends the run (see `genbench_jax.runtime.stopping`).
  jax.config.update("jax_enable_preemption_service", False)
  given: dict[str, Any] = {}
  machines: list[str] = []
  if address.is_given:
    machines = meet(
      address, settings
    )  # again, since JAX's import takes different times on different machines
    given = {
      "coordinator_address": address.coordinator,
      "num_processes": address.num_processes,
      "process_id": address.process_id,
      "cluster_detection_method": "deactivate",
    }
  try:
    jax.distributed.initialize(
      **given,
      initialization_timeout=JOIN_SECONDS if given else START_SECONDS,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
      shutdown_timeout_seconds=STOP_SECONDS,
    )
  except (RuntimeError, ValueError, OSError) as error:
    if not address.is_given and "coordinator_address should be defined" in str(error):
      return None  # a single device that resembles a slice's
    first = str(error).strip().split("\n")[0][:200]
    raise RunError(f"the processes of this run cannot find each other: {first}") from error
  return machines
