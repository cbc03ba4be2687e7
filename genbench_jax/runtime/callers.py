"""A process of a run as it introduces itself to the others, and what may be wrong between two."""

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from genbench_jax.runtime.devices import Devices, declared_devices
from genbench_jax.runtime.printable import printable

_LONGEST_VALUE = 200
_MOST_NAMES = 8


class Caller(NamedTuple):
  """A process, as it identifies itself.

  Attributes:
    number: index of the process, from 0.
    total: number of processes, as it was told.
    host: name of its machine.
    pid: its process id there.
    settings: name -> value of what all processes must share.
    devices: devices that its environment gives it.
    problem: why it cannot start; empty if it can.
  """

  number: int
  total: int
  host: str
  pid: int
  settings: Mapping[str, str] = {}
  devices: Devices = Devices()
  problem: str = ""

  def __str__(self) -> str:
    return f"process {self.number} on {printable(self.host)[:80]} (pid {self.pid})"


def this_caller(number: int, total: int, settings: Mapping[str, Any], problem: str = "") -> Caller:
  """Return this process.

  Args:
    number: its index.
    total: number of processes.
    settings: name -> value of what all processes must share.
    problem: why it cannot start; empty if it can.
  """
  texts = {name: str(value) for name, value in settings.items()}
  devices = declared_devices(os.environ)
  return Caller(number, total, socket.gethostname(), os.getpid(), texts, devices, problem)


def read_caller(value: Any) -> Caller:
  """Return the process that a message describes.

  Raises:
    ValueError: the message describes none.
  """
  kinds = int, int, str, int, dict, list | tuple, str
  if (
    not isinstance(value, list | tuple)
    or len(value) != len(kinds)
    or not all(map(isinstance, value, kinds))
    or not all(isinstance(text, str) for text in value[4].values())
    or [type(part) for part in value[5]] != [str, int, str]
  ):
    raise ValueError("not a process of a run")
  number, total, host, pid, settings, devices, problem = value
  return Caller(number, total, host, pid, settings, Devices(*devices), problem)


def disagreement(one: Caller, other: Caller) -> str:
  """Return what two processes of one run disagree about, with what to do; empty if they agree."""
  if other.total != one.total:
    return (
      f"{other} was started with --num_processes={other.total}, but {one} with --num_processes={one.total}."
      " Start all with the same number."
    )
  if other.problem:
    return f"{other} cannot start: {other.problem}"
  return different_settings(one, other) or _different_devices(one, other)


def different_settings(one: Caller, other: Caller) -> str:
  """Return the first setting that differs, with both values, and the names of the others."""
  names = [
    name
    for name in sorted(one.settings.keys() | other.settings.keys())
    if one.settings.get(name) != other.settings.get(name)
  ]
  if not names:
    return ""
  return (
    f"the processes were started with different settings: {_value(one, names[0])}, {_value(other, names[0])}."
    f"{_further(names[1:])} Start all with the same command."
  )


def _value(caller: Caller, name: str) -> str:
  return f"{caller} has {name}={caller.settings.get(name, 'nothing')[:_LONGEST_VALUE]}"


def _further(names: Sequence[str]) -> str:
  if not names:
    return ""
  more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
  return f" Also different: {', '.join(names[:_MOST_NAMES])}{more}."


def _different_devices(one: Caller, other: Caller) -> str:
  if one.devices.equal(other.devices):
    return ""
  return (
    f"the processes have different numbers of devices: {one} has {one.devices}, {other} has {other.devices}."
    " Give each the same number and kind."
  )
