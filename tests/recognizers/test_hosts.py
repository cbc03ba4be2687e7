"""Recognizers that two processes train, as on two hosts, score like those of one process."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from genbench_jax.runtime.mesh import data_mesh
from tests.metrics.test_hosts import free_address
from tests.recognizers import hosts_program

# Programs that train towers of a CLIP take half a minute to compile, in each of three processes.
FAST = ("linear_probe", "tip_adapter", "from_scratch")
ON_TOWERS = ("lora", "fine_tune", "coop", "vpt")


@pytest.mark.slow
@pytest.mark.parametrize(
  "names", [FAST, pytest.param(ON_TOWERS, marks=pytest.mark.long)], ids=["fast", "on_towers"]
)
def test_two_hosts_train_what_one_trains(names, tiny_clip_folder, tmp_path):
  address, program = free_address(), hosts_program.__file__
  hosts = [
    subprocess.Popen(
      [sys.executable, program, address, str(number), ",".join(names), tiny_clip_folder, tmp_path / "two"],
      cwd=Path(__file__).parents[2],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in (0, 1)
  ]  # fmt: skip
  # Meanwhile this process does the same on as many devices of its own.
  alone = hosts_program.scores_of(
    names, tiny_clip_folder, tmp_path / "one", data_mesh(jax.devices()[:4])
  )
  outputs = [host.communicate(timeout=600) for host in hosts]
  for host, (_, errors) in zip(hosts, outputs, strict=True):
    assert host.returncode == 0, errors
  results = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
  assert results[0] == results[1] and results[0]["devices"] == 4
  assert results[0]["scores"].keys() == alone.keys() == set(names)
  for name, scores in results[0]["scores"].items():
    # Sums over devices of two processes round differently, and training amplifies it a little.
    np.testing.assert_allclose(scores, alone[name], atol=1e-4, err_msg=name)
  # Of step 3, in the recognizer's folder or in that of one of its trainings.
  two = tmp_path / "two"
  found = [*two.glob("*/3"), *two.glob("*/*/3")]
  checkpoints = {path.relative_to(two).parts[0] for path in found}
  assert checkpoints == set(names) - {"linear_probe"}
