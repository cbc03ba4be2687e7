"""Program of `test_hosts`: one of two processes with two devices each; prints its values as
JSON."""

import json
import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np


def main() -> None:
  address, number = sys.argv[1], int(sys.argv[2])
  jax.distributed.initialize(address, 2, number)
  from genbench_jax.metrics.cler import measure_cler
  from genbench_jax.metrics.frechet import frechet_distance
  from genbench_jax.metrics.manifold import precision_recall_density_coverage

  arrays = dict(np.load(sys.argv[3]))
  images, tests = arrays["images"], arrays["tests"]
  result = measure_cler(
    images, arrays["labels"], arrays["text"], tests, arrays["test_labels"], resamples=20
  )
  found = {name: [m.value, m.ci_low, m.ci_high] for name, m in result.scores.items()}
  found["fid"] = frechet_distance(images, tests)
  found |= precision_recall_density_coverage(tests, images)
  print(json.dumps({"devices": jax.device_count(), "found": found}))


if __name__ == "__main__":
  main()
