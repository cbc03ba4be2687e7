"""`launch/slurm.sbatch` under a real Slurm on this machine.

Two tasks are preempted and queued again, and give the rows of one process. The test needs Debian's
packages slurm-wlm and munge, and root.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genbench_jax.main import main

ROOT = Path(__file__).parents[2]
COMMANDS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch")
pytestmark = [
  pytest.mark.long,
  pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, COMMANDS)),
    reason="Slurm is not installed, or can't be started by this user",
  ),
]
CONFIG = """
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
GresTypes=gpu
NodeName=localhost NodeHostname={host} NodeAddr=127.0.0.1 CPUs=8 Gres=gpu:8
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
  """A cluster of this machine alone, with eight GPUs that are empty files."""

  def __init__(self, folder: Path) -> None:
    self.folder = folder
    for name in ("state", "spool"):
      (folder / name).mkdir()
    for number in range(8):
      (folder / f"gpu{number}").touch()
    host = socket.gethostname().partition(".")[0]
    config = CONFIG.format(host=host, folder=folder, ports=_free_ports())
    (folder / "slurm.conf").write_text(config)
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-7]\n")

  def start(self) -> None:
    """Start the daemons, which run in the background."""
    key = f"{self.folder}/munge.key"
    self.call("mungekey", "--create", f"--keyfile={key}")
    files = {"socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    places = [f"--{flag}={self.folder}/{name}" for flag, name in files.items()]
    self.call("munged", "--force", f"--key-file={key}", f"--seed-file={self.folder}/seed", *places)
    self.call("slurmctld")
    self.call("slurmd")
    _wait("the node", lambda: self.call("sinfo", "--noheader", "--format=%t").strip() == "idle")

  def stop(self) -> None:
    """End running jobs, then the daemons."""
    with contextlib.suppress(subprocess.SubprocessError, AssertionError):
      self.call("scancel", "--user=root")
      _wait("the end of jobs", lambda: not self.call("squeue", "--noheader"))
    for name in ("slurmd", "slurmctld", "munged"):
      with contextlib.suppress(OSError, ValueError):
        os.kill(int((self.folder / f"{name}.pid").read_text()), 15)

  def call(self, *command: str, **environment: str) -> str:
    done = subprocess.run(
      command,
      env={**os.environ, "SLURM_CONF": f"{self.folder}/slurm.conf", **environment},
      cwd=ROOT,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,  # daemons keep it open
      text=True,
      timeout=60,
      check=True,
    )
    return done.stdout

  def job(self, number: str) -> dict[str, str]:
    """Return what Slurm reports about a job."""
    words = self.call("scontrol", "show", "job", number).split()
    return dict(word.partition("=")[::2] for word in words)


@pytest.fixture
def slurm(tmp_path):
  folder = tmp_path / "slurm"
  folder.mkdir()
  cluster = Slurm(folder)
  try:
    cluster.start()
    yield cluster
  finally:
    cluster.stop()


def _free_ports():
  with socket.socket() as one, socket.socket() as other:
    for found in (one, other):
      found.bind(("127.0.0.1", 0))
    return one.getsockname()[1], other.getsockname()[1]


def _wait(what, is_so, seconds=60):
  deadline = time.monotonic() + seconds
  while not is_so():
    assert time.monotonic() < deadline, what
    time.sleep(0.2)


def test_a_preempted_job_of_two_tasks_resumes_to_the_rows_of_one_process(tiny, tmp_path, slurm):
  cheap = ("--config.sources=('original',)", "--config.scoring.quantities=('cler', 'fid')")
  stages = "--stages=images,embed,score"
  many, said = tmp_path / "many", tmp_path / "said.txt"
  asked = ["--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=2", "--cpus-per-task=1"]
  job = slurm.call(
    *("sbatch", "--parsable", *asked, f"--output={said}", str(ROOT / "launch" / "slurm.sbatch")),
    *tiny.arguments(many, *cheap, stages),
    PYTHON=sys.executable,
    **{name: tiny.environment()[name] for name in ("XLA_FLAGS", "JAX_PLATFORMS")},
  ).strip()
  _wait("the first shard", lambda: list(many.rglob("*.array_record-*")), 300)
  slurm.call("scancel", "--signal=TERM", job)  # as --signal does: to the steps
  _wait("the queue", lambda: slurm.job(job)["Restarts"] == "1", 120)
  assert "stopped by SIGTERM" in said.read_text()

  slurm.call("scontrol", "update", f"jobid={job}", "StartTime=now")
  ended = ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT")
  _wait("the end", lambda: slurm.job(job)["JobState"] in ended, 600)
  assert slurm.job(job)["JobState"] == "COMPLETED", said.read_text()
  assert main(["main", *tiny.arguments(tmp_path / "one", *cheap, stages)]) == 0
  assert tiny.bytes(many, "images") == tiny.bytes(tmp_path / "one", "images")
  rows, alone = tiny.rows(many), tiny.rows(tmp_path / "one")
  assert len(rows) == len(alone) > 0
  for left, right in zip(rows, alone, strict=True):
    assert left["value"] == pytest.approx(right["value"], rel=1e-4)
