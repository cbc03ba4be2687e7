"""How a process learns that it is one of several. No JAX: this is asked before JAX starts."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from genbench_jax.errors import UsageError

FLAGS = ("coordinator", "num_processes", "process_id")


@dataclasses.dataclass(frozen=True)
class Address:
  """What the flags say of the processes; empty and -1 leave it to the environment."""

  coordinator: str = ""
  num_processes: int = -1
  process_id: int = -1

  @property
  def is_given(self) -> bool:
    return bool(self.coordinator) or self.num_processes >= 0 or self.process_id >= 0

  def check(self) -> Self:
    """The address itself.

    Raises:
      UsageError: some of the three flags are missing, or out of range.
    """
    if not self.is_given:
      return self
    if not self.coordinator or self.num_processes < 0 or self.process_id < 0:
      raise UsageError(
        "--coordinator=HOST:PORT, --num_processes=N and --process_id=0..N-1 are given together, or none of them."
      )
    if not self.coordinator.rpartition(":")[2].isdecimal() or ":" not in self.coordinator:
      raise UsageError(f"--coordinator is {self.coordinator!r}, wanted HOST:PORT of process 0.")
    if not 0 <= self.process_id < self.num_processes:
      raise UsageError(
        f"--process_id is {self.process_id} of --num_processes={self.num_processes}: they count from 0."
      )
    return self


def one_of_several(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
  """Whether the command's arguments or the environment say that this process is one of several.

  Slurm's `srun` and Open MPI say so by variables, Cloud TPU by its devices or, on Kubernetes, by variables.
  JAX itself finds out the rest.
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
