"""Two processes, as on two hosts, measure the same values as one."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from genbench_jax.metrics.cler import measure_cler
from genbench_jax.metrics.frechet import frechet_distance
from genbench_jax.metrics.manifold import precision_recall_density_coverage

PROGRAM = Path(__file__).with_name("hosts_program.py")


def free_address():
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    return f"127.0.0.1:{found.getsockname()[1]}"


@pytest.mark.slow
def test_two_hosts_measure_the_same_as_one(world, tmp_path):
  names = ("images", "labels", "text", "tests", "test_labels")
  np.savez(tmp_path / "arrays.npz", **dict(zip(names, world.all, strict=True)))
  address = free_address()
  hosts = [
    subprocess.Popen(
      [sys.executable, PROGRAM, address, str(number), tmp_path / "arrays.npz"],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in (0, 1)
  ]
  outputs = [host.communicate(timeout=600) for host in hosts]
  for host, (_, errors) in zip(hosts, outputs, strict=True):
    assert host.returncode == 0, errors
  results = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
  assert results[0] == results[1] and results[0]["devices"] == 4
  found = results[0]["found"]
  for name, expected in measure_cler(*world.all, resamples=20).scores.items():
    assert found[name] == pytest.approx(
      [expected.value, expected.ci_low, expected.ci_high], rel=1e-5
    )
  assert found["fid"] == pytest.approx(frechet_distance(world.images, world.tests), rel=1e-5)
  manifold = precision_recall_density_coverage(world.tests, world.images)
  assert {name: found[name] for name in manifold} == pytest.approx(manifold)
