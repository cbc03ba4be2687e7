"""Address of a process in a run of several. JAX is not imported, because it has not started yet."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from genbench_jax.errors import UsageError

FLAGS = ("coordinator", "num_processes", "process_id")


@dataclasses.dataclass(frozen=True)
class Address:
  """Values of the process flags; empty and -1 mean that the environment decides."""

  coordinator: str = ""
  num_processes: int = -1
  process_id: int = -1

  @property
  def is_given(self) -> bool:
    return bool(self.coordinator) or self.num_processes >= 0 or self.process_id >= 0

  def check(self) -> Self:
    """Return the address itself.

    Raises:
      UsageError: one of the three flags is missing or out of range.
    """
    if not self.is_given:
      return self
    if not self.coordinator or self.num_processes < 0 or self.process_id < 0:
      raise UsageError(
        "give --coordinator=HOST:PORT, --num_processes=N and --process_id=0..N-1 together, or none of them."
      )
    if not self.coordinator.rpartition(":")[2].isdecimal() or ":" not in self.coordinator:
      raise UsageError(f"--coordinator is {self.coordinator!r}, expected HOST:PORT of process 0.")
    if not 0 <= self.process_id < self.num_processes:
      raise UsageError(
        f"--process_id is {self.process_id}, expected 0 to {self.num_processes - 1} with --num_processes={self.num_processes}."
      )
    return self


def one_of_several(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
  """Return whether arguments or environment say that this process is one of several.

  Slurm's `srun` and Open MPI set variables. Cloud TPU is detected by its devices or, on Kubernetes,
  by variables. JAX finds the remaining values itself.
  """
  if any(argument.lstrip("-").partition("=")[0] in FLAGS for argument in arguments):
    return True
  if "SLURM_STEP_NODELIST" in environment and "SLURM_PROCID" in environment:
    return environment.get("SLURM_NTASKS", "1") != "1"
  if environment.get("OMPI_COMM_WORLD_SIZE", "1") != "1":
    return True
  if environment.get("JAX_PLATFORMS", "tpu").startswith("tpu"):
    several = {"TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"}
    return any("," in environment.get(name, "") for name in several) or _has_tpu()
  return False


def _has_tpu() -> bool:
  return any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))
