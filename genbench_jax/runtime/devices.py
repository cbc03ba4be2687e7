"""Number of devices that a process will have, read from its environment before JAX starts.

JAX knows its devices only once all processes have joined, which takes long on a busy machine. The
environment usually shows earlier that a launch script gives the processes different numbers.
"""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_CPU_DEVICES = re.compile(r"--xla_force_host_platform_device_count=(\d+)")
_GPU_PLUGINS = "jax_cuda12_plugin", "jax_cuda13_plugin"
_UNKNOWN = -1


class Devices(NamedTuple):
  """Devices of a process.

  Attributes:
    kind: platform, such as `cpu`; empty if the environment does not show it.
    count: number of devices; -1 if the environment does not show it.
    origin: what sets the number.
  """

  kind: str = ""
  count: int = _UNKNOWN  # type: ignore[assignment]  # hides a method of tuples
  origin: str = ""

  def __str__(self) -> str:
    return f"{self.count} ({self.kind}, {self.origin})"

  def equal(self, other: "Devices") -> bool:
    """Return whether both are of one kind and number, as far as is known."""
    return _UNKNOWN in (self.count, other.count) or self[:2] == other[:2]


def declared_devices(environment: Mapping[str, str], root: Path = Path("/")) -> Devices:
  """Return the devices that the environment gives this process.

  Args:
    environment: variables of the process.
    root: root of the file system, where device files are.
  """
  platform = environment.get("JAX_PLATFORMS", "").partition(",")[0] or _default_platform(root)
  if platform == "cpu":
    return _cpus(environment)
  if platform in ("cuda", "gpu"):
    return _gpus(environment, root)
  if platform == "tpu":
    return _tpus(environment, root)
  return Devices()


def _default_platform(root: Path) -> str:
  """Return the platform that JAX chooses itself; empty if a plugin that we do not know decides."""
  if _gpu_files(root) and any(map(importlib.util.find_spec, _GPU_PLUGINS)):
    return "cuda"
  if importlib.util.find_spec("jax_plugins") or _tpu_files(root):
    return ""
  return "cpu"


def _cpus(environment: Mapping[str, str]) -> Devices:
  if (own := environment.get("JAX_NUM_CPU_DEVICES", "")).isdecimal():
    return Devices("cpu", int(own), f"JAX_NUM_CPU_DEVICES={own}")
  # The last of equal flags wins.
  if found := list(_CPU_DEVICES.finditer(environment.get("XLA_FLAGS", ""))):
    return Devices("cpu", int(found[-1][1]), f"XLA_FLAGS={found[-1][0]}")
  return Devices("cpu", 1, "XLA_FLAGS does not set another number")


def _gpus(environment: Mapping[str, str], root: Path) -> Devices:
  if chosen := environment.get("JAX_LOCAL_DEVICE_IDS"):
    return Devices("cuda", len(chosen.split(",")), f"JAX_LOCAL_DEVICE_IDS={chosen}")
  visible = environment.get("CUDA_VISIBLE_DEVICES")
  if visible is None:
    count = _gpu_files(root)
    return Devices("cuda", count, "CUDA_VISIBLE_DEVICES is not set") if count else Devices()
  # CUDA ignores what follows the first -1.
  names = [name.strip() for name in visible.split(",") if name.strip()]
  count = names.index("-1") if "-1" in names else len(names)
  return Devices("cuda", count, f"CUDA_VISIBLE_DEVICES={visible}")


def _tpus(environment: Mapping[str, str], root: Path) -> Devices:
  visible = environment.get("TPU_VISIBLE_DEVICES") or environment.get("TPU_VISIBLE_CHIPS")
  if visible:
    return Devices("tpu", len(visible.split(",")), f"TPU_VISIBLE_DEVICES={visible}")
  count = _tpu_files(root)
  return Devices("tpu", count, "chips in /dev") if count else Devices()


def _gpu_files(root: Path) -> int:
  return len(list((root / "dev").glob("nvidia[0-9]*")))


def _tpu_files(root: Path) -> int:
  return len([*(root / "dev").glob("accel[0-9]*"), *(root / "dev/vfio").glob("[0-9]*")])
