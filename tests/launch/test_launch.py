"""The launch scripts pass shellcheck, use flags of the command, and call cloud tools in order."""

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from genbench_jax.main import run

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SHELL = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
ARGUMENTS = [f"--config={ROOT / 'configs' / 'demo.py'}", "--workdir=/work/a b", "--keep-going"]

# Logs its name and arguments. The test passes a `case` on the arguments that sets the output and exit status.
STAND_IN = """#!/usr/bin/env bash
{python} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$(basename "$0")" "$@" >> {log}
{does}
"""


class StandIns:
  """Fake commands, first on PATH, that record their calls."""

  def __init__(self, folder: Path) -> None:
    self.folder, self.log = folder, folder / "log.jsonl"

  def add(self, name: str, does: str = "exit 0") -> None:
    path = self.folder / name
    path.write_text(STAND_IN.format(python=sys.executable, log=self.log, does=does))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)

  def calls(self) -> list[list[str]]:
    return [json.loads(line) for line in self.log.read_text().splitlines()]

  def run(self, script: str, *arguments: str, **environment: str):
    path = f"{self.folder}:{os.environ['PATH']}"
    return subprocess.run(
      ["bash", str(LAUNCH / script), *arguments],
      env={**os.environ, "PATH": path, "PAUSE": "0", **environment},
      capture_output=True,
      text=True,
      timeout=60,
      check=False,
    )


@pytest.fixture
def stand_ins(tmp_path):
  return StandIns(tmp_path)


def values_of(call):
  """Parse the flags of a recorded call with the command's own parser."""
  start = call.index("genbench_jax.main")
  return run.parse(call[start + 1 :])


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_scripts_pass_shellcheck():
  done = subprocess.run(
    ["shellcheck", *map(str, SHELL)], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout


def test_one_machine_of_gpus(stand_ins):
  stand_ins.add("python")
  assert stand_ins.run("multi_gpu.sh", *ARGUMENTS).returncode == 0
  (call,) = stand_ins.calls()
  values = values_of(call)
  assert (values.workdir, values.keep_going, values.coordinator) == ("/work/a b", True, "")


def test_several_machines_of_gpus(stand_ins):
  stand_ins.add("python")
  done = stand_ins.run(
    "multi_gpu.sh", *ARGUMENTS, COORDINATOR="10.0.0.1:12355", HOSTS="4", HOST="2"
  )
  assert done.returncode == 0
  values = values_of(stand_ins.calls()[0])
  assert values.coordinator == "10.0.0.1:12355"
  assert (values.num_processes, values.process_id) == (4, 2)
  assert "HOSTS: number of machines" in stand_ins.run("multi_gpu.sh", "x", COORDINATOR="a:1").stderr


def test_slurm_runs_the_command_and_requeues_after_preemption(stand_ins):
  stand_ins.add("srun", "exit ${STATUS}")
  stand_ins.add("scontrol")
  for status in ("0", "1", "143"):
    done = stand_ins.run("slurm.sbatch", *ARGUMENTS, STATUS=status, SLURM_JOB_ID="7")
    assert done.returncode == int(status)
  calls = stand_ins.calls()
  assert values_of(calls[0]).workdir == "/work/a b"
  assert [call for call in calls if call[0] == "scontrol"] == [["scontrol", "requeue", "7"]]


def test_tpu_commands(stand_ins):
  stand_ins.add("gcloud")
  for command in (["create"], ["install"], ["run", *ARGUMENTS], ["delete"]):
    done = stand_ins.run("tpu_vm.sh", *command, NAME="pod", ZONE="here", TYPE="v5litepod-64")
    assert done.returncode == 0, done.stderr
  create, copy, install, run, delete = stand_ins.calls()
  start = ["gcloud", "compute", "tpus", "tpu-vm"]
  assert create[:6] == [*start, "create", "pod"]
  assert {"--zone=here", "--accelerator-type=v5litepod-64", "--spot"} <= set(create)
  assert copy[4] == "scp" and copy[6:] == ["pod:genbench_jax.tar.gz", "--zone=here", "--worker=all"]
  assert "--require-hashes -r requirements.lock" in install[-1]
  assert run[4:8] == ["ssh", "pod", "--zone=here", "--worker=all"]
  words = shlex.split(run[8].removeprefix("--command=").partition(" && ")[2])
  assert values_of(words).workdir == "/work/a b"
  assert delete[4:] == ["delete", "pod", "--zone=here", "--quiet"]


def test_tpu_resume_recreates_a_preempted_slice(stand_ins):
  does = f"""
  case "$4" in
    describe) test -e {stand_ins.folder}/made && echo READY || echo PREEMPTED ;;
    create) touch {stand_ins.folder}/made ;;
    ssh) case "$*" in *genbench_jax.main*)
      if test ! -e {stand_ins.folder}/lost; then touch {stand_ins.folder}/lost; rm {stand_ins.folder}/made; exit 255; fi ;; esac ;;
  esac
  """
  stand_ins.add("gcloud", does)
  done = stand_ins.run("tpu_vm.sh", "resume", *ARGUMENTS)
  assert done.returncode == 0, done.stderr
  verbs = [call[4] for call in stand_ins.calls() if call[4] != "describe"]
  once = ["delete", "create", "scp", "ssh", "ssh"]
  assert verbs == once * 2
  assert "preempted; try 2 of" in done.stderr


def test_tpu_resume_does_not_retry_errors_of_the_run(stand_ins):
  stand_ins.add("gcloud", 'case "$4" in describe) echo READY ;; ssh) exit 2 ;; esac')
  assert stand_ins.run("tpu_vm.sh", "resume", *ARGUMENTS).returncode == 2
  assert [call[4] for call in stand_ins.calls()].count("ssh") == 1


def test_an_unknown_word_is_a_usage_error(stand_ins):
  done = stand_ins.run("tpu_vm.sh", "crate")
  assert done.returncode == 2
  assert "usage:" in done.stderr


def test_kubernetes_pods_find_each_other():
  jobset = yaml.safe_load((LAUNCH / "kubernetes" / "jobset.yaml").read_text())
  claim = yaml.safe_load((LAUNCH / "kubernetes" / "pvc.yaml").read_text())
  (hosts,) = jobset["spec"]["replicatedJobs"]
  job = hosts["template"]["spec"]
  pod = job["template"]["spec"]
  (container,) = pod["containers"]
  values = values_of([word.replace("$(HOST)", "3") for word in container["command"]])
  assert job["completionMode"] == "Indexed"
  assert job["parallelism"] == job["completions"] == values.num_processes == 4
  # JobSet names pods JOBSET-JOB-REPLICA-INDEX, in the subdomain with the JobSet's name.
  name = jobset["metadata"]["name"]
  assert values.coordinator == f"{name}-{hosts['name']}-0-0.{name}:12355"
  assert [variable["name"] for variable in container["env"]] == ["HOST"]
  assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
  used = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "emptyDir" not in v]
  assert used == [claim["metadata"]["name"]]
  mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
  assert any(values.workdir.startswith(f"{path}/") for path in mounted)


def test_hosts_of_the_tpu_jobset_are_found_by_jax():
  jobset = yaml.safe_load((LAUNCH / "kubernetes" / "jobset-tpu.yaml").read_text())
  (hosts,) = jobset["spec"]["replicatedJobs"]
  job = hosts["template"]["spec"]
  pod = job["template"]["spec"]
  (container,) = pod["containers"]
  values = values_of(container["command"])
  assert (values.coordinator, values.num_processes, values.process_id) == ("", -1, -1)
  rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
  chips = container["resources"]["limits"]["google.com/tpu"]
  assert job["parallelism"] == job["completions"] == rows * columns // chips
  assert [mount["name"] for mount in container["volumeMounts"]] == ["work"]


def leaves(value, path=()):
  """Return the path and text of every leaf of a JSON value."""
  if isinstance(value, dict | list):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {leaf for name, inner in items for leaf in leaves(inner, (*path, name))}
  return {(path, str(value))}


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kubernetes_supports_every_field_of_pods_and_claim(tmp_path):
  """kubectl parses the files into its own types, without a cluster, and drops unknown fields."""
  jobset = yaml.safe_load((LAUNCH / "kubernetes" / "jobset.yaml").read_text())
  claim = yaml.safe_load((LAUNCH / "kubernetes" / "pvc.yaml").read_text())
  (hosts,) = jobset["spec"]["replicatedJobs"]
  job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **hosts["template"]}
  # `kubectl set env` does not accept a claim, but within a pod the claim has the same type.
  inner = {"name": "claim", "ephemeral": {"volumeClaimTemplate": {"spec": claim["spec"]}}}
  job["spec"]["template"]["spec"]["volumes"].append(inner)
  job["spec"]["misspelt"] = 1
  path = tmp_path / "job.json"
  path.write_text(json.dumps(job))
  done = subprocess.run(
    ["kubectl", "set", "env", "--local", f"--filename={path}", "--output=json", "ADDED=1"],
    env={**os.environ, "KUBECONFIG": os.devnull},
    capture_output=True,
    text=True,
    timeout=60,
    check=True,
  )
  assert leaves(job) - leaves(json.loads(done.stdout)) == {(("spec", "misspelt"), "1")}


def test_local_processes_get_flags_and_process_numbers(tmp_path):
  package = tmp_path / "genbench_jax"
  package.mkdir()
  (package / "__init__.py").write_text("")
  (package / "main.py").write_text(
    "import json, os, sys\nprint(json.dumps([sys.argv[1:], os.environ['XLA_FLAGS']]))\n"
    "sys.exit(5 if '--process_id=1' in sys.argv else 0)\n"
  )
  done = subprocess.run(
    [sys.executable, str(LAUNCH / "local.py"), "--processes=3", "--devices=4", "--", *ARGUMENTS],
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": str(tmp_path), "XLA_FLAGS": "--xla_other=1"},
    capture_output=True,
    text=True,
    timeout=60,
    check=False,
  )
  assert done.returncode == 5
  seen = {}
  for line in done.stderr.splitlines():
    number, _, rest = line.partition(" ")
    arguments, flags = json.loads(rest)
    seen[number] = values_of(["genbench_jax.main", *arguments])
    assert flags == "--xla_other=1 --xla_force_host_platform_device_count=4"
  assert sorted(seen) == ["[0]", "[1]", "[2]"]
  assert {values.num_processes for values in seen.values()} == {3}
  assert len({values.coordinator for values in seen.values()}) == 1
  assert [seen[f"[{number}]"].process_id for number in range(3)] == [0, 1, 2]
