"""The processes of one run: how they find each other, who does what, and how they wait for each other.

Images and embeddings need no collective: each process makes its own units of work on its own devices.
Scoring and recognition run the same program everywhere, on the mesh of all devices.
"""

import contextlib
import dataclasses
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool

from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.address import Address
from genbench_jax.runtime.rendezvous import START_SECONDS, meet
from genbench_jax.runtime.stopping import look
from genbench_jax.runtime.supervision import DIED, GOES_ON

# A process that has sent no sign of life for so long is dead, and JAX ends the others.
HEARTBEAT_SECONDS = 25
# All have met by then.
JOIN_SECONDS = 60
# How long the processes may drift apart: one may have hours of images to make when another has none. The dead
# are found by their heartbeat, long before.
DRIFT_SECONDS = 14 * 24 * 3600
# One of these stands in the error of a program that runs on all devices when those of another process are gone.
LOST = ("Gloo", "NCCL", "UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "onnection")
# Called before and after every process has come to the same place, see `around_waits`.
_AROUND_WAITS: ContextVar[tuple[tuple[Callable[[], None], Callable[[], None]], ...]] = ContextVar(
  "around_waits", default=()
)
# To say why it ends, where all end for the same reason.
LAST_WORDS_SECONDS = 15
# Waiting for the others at the very end, when there is nothing left to do.
STOP_SECONDS = 15


@dataclasses.dataclass(frozen=True)
class Hosts:
  """This process among those of the run.

  Attributes:
    number: of this process, from 0.
    count: of all processes.
  """

  number: int = 0
  count: int = 1

  @property
  def is_first(self) -> bool:
    """Whether this is the process that writes what there is one of: manifests, rows, the report."""
    return self.number == 0

  def owns(self, unit: int) -> bool:
    """Whether a unit of work, such as a shard, is this process's.

    Units go round by their own number, not by what is missing: nobody needs to know how far the others are,
    and a run that was stopped is continued evenly by any number of processes.
    """
    return unit % self.count == self.number

  def wait(self, what: str) -> None:
    """Returns when every process has come here.

    Raises:
      RunError: one of them has died or has ended.
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
    """The first process's flags, on every process: files may show up at different times on different hosts."""
    own = np.asarray(list(flags), bool)
    if self.count == 1 or not len(own):
      return own
    from jax.experimental import multihost_utils

    self.wait(what)
    with _named(what):
      return np.asarray(multihost_utils.broadcast_one_to_all(own), bool)

  def gathered(self, values: list[Any], what: str) -> list[Any]:
    """The JSON values of all processes, those of the first one first."""
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
    return [value for one in found for value in one]


@contextlib.contextmanager
def around_waits(before: Callable[[], None], after: Callable[[], None]) -> Iterator[None]:
  """Call these whenever processes wait for each other meanwhile: there, copies of the work folder are brought in line."""
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
      f"waiting for the other processes ({what}) failed: one has died or can't be reached. {first}"
    ) from error


@contextlib.contextmanager
def processes(address: Address, several: bool) -> Iterator[Hosts]:
  """This process among those of the run, joined before anything else is done with JAX.

  Args:
    address: what the flags say.
    several: whether there is anybody to join.

  Raises:
    UsageError: the processes don't fit together.
    RunError: the others can't be reached, or one of them is lost while all compute together.
  """
  joined = several and _join(address)
  try:
    if joined:
      _refuse_unequal_devices()
    yield this_process()
  except jax.errors.JaxRuntimeError as error:
    first = str(error).strip().split("\n")[0][:200]
    if not (joined and any(sign in first for sign in LOST)):
      raise
    raise RunError(f"{DIED}: {first}. {GOES_ON}") from error
  if joined:  # not after an error: those who wait for this process shall learn that it is gone
    jax.distributed.shutdown()


def _refuse_unequal_devices() -> None:
  """Programs on the mesh of all devices split their rows evenly: all processes have the same number of devices."""
  counts = Counter(device.process_index for device in jax.devices())
  if len(set(counts.values())) > 1:
    _let_others_speak("unequal devices")
    told = ", ".join(f"process {number} has {count}" for number, count in sorted(counts.items()))
    raise UsageError(
      f"the processes have different numbers of devices: {told} (this is process {jax.process_index()} on"
      f" {socket.gethostname()}). Give each the same number."
    )


def refuse_different(hosts: Hosts, settings: Mapping[str, Any]) -> None:
  """Refuse processes that were started with different settings; every one of them ends with the same line.

  Args:
    hosts: the processes.
    settings: name -> value, as text or JSON, of this process.

  Raises:
    UsageError: a setting differs; it is named with both values and machines.
  """
  own = {name: str(value) for name, value in settings.items()}
  every = hosts.gathered([[socket.gethostname(), own]], "a look at the settings")
  host, first = every[0]
  for number, (other_host, other) in enumerate(every):
    for name in sorted(first.keys() | other.keys()):
      values = first.get(name, "nothing")[:200], other.get(name, "nothing")[:200]
      if first.get(name) != other.get(name):
        _let_others_speak("different settings")
        raise UsageError(
          f"the processes were started with different settings: process 0 on {host} has {name}={values[0]}, process"
          f" {number} on {other_host} has {name}={values[1]}. Start all with the same command."
        )


def _let_others_speak(what: str) -> None:
  """Wait until every process has come to the same end. JAX aborts the others as soon as process 0 is gone."""
  from orbax.checkpoint import multihost

  with contextlib.suppress(RuntimeError, ValueError):  # one that is gone has had its say
    multihost.get_barrier_sync_fn()(key=what, timeout_ms=LAST_WORDS_SECONDS * 1000)
  if jax.process_index() == 0:
    time.sleep(2)


def this_process() -> Hosts:
  """This process among those that have joined."""
  return Hosts(jax.process_index(), jax.process_count())


def _join(address: Address) -> bool:
  """Whether there was anybody to join, as far as the environment tells.

  Raises:
    UsageError: the processes contradict each other.
    RunError: they can't find each other.
  """
  # JAX's own preemption service swallows SIGTERM; ours ends the run (see `genbench_jax.runtime.stopping`).
  jax.config.update("jax_enable_preemption_service", False)
  given: dict[str, Any] = {}
  if address.is_given:
    meet(address)
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
      return False  # a device that only looks like a slice's
    first = str(error).strip().split("\n")[0][:200]
    raise RunError(f"the processes of this run can't find each other: {first}") from error
  return True
