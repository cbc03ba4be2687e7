"""Generate and embed with the shipped models for an hour, and check that nothing grows.

  python benchmarks/soak.py --minutes 60 --out soak.json

Samples resident memory and open files, and counts images per CPU second, since machines are shared. After a warm-up
of a fifth of the time, memory and open files may grow by less than 5 %, and the rate may fall by less than 5 %, each
along a line fitted to the samples. Otherwise the exit status is 1.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

WARM_UP = 0.2
LIMIT = 0.05


def main(argv: Sequence[str] | None = None) -> int:
  """Run the soak test; return 0 if nothing grew."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--minutes", type=float, default=60)
  parser.add_argument("--batch", type=int, default=16)
  parser.add_argument("--steps", type=int, default=4)
  parser.add_argument("--out", default="soak.json")
  options = parser.parse_args(argv)
  samples = soak(options.minutes * 60, options.batch, options.steps)
  found = judged(samples)
  Path(options.out).write_text(json.dumps({**found, "samples": samples}, indent=1))
  print(json.dumps(found, indent=1))
  return 0 if found["passed"] else 1


def soak(seconds: float, batch: int, steps: int) -> list[dict[str, float]]:
  """Return a sample per round of generating and embedding a batch of new prompts."""
  import genbench_jax as gb

  began, cpu_began = time.monotonic(), time.process_time()
  samples: list[dict[str, float]] = []
  done = 0
  while time.monotonic() - began < seconds:
    prompts = [f"a photo of the digit {(done + place) % 10}, {done}" for place in range(batch)]
    seeds = list(range(done, done + batch))
    images = gb.generate(prompts, "zoo/diffusion", seeds=seeds, steps=steps, batch_per_device=batch)
    features = gb.embed_images(list(images), "zoo/clip")
    texts = gb.embed_texts(prompts, "zoo/clip")
    assert np.isfinite(features).all() and np.isfinite(texts).all()
    done += batch
    samples.append(
      {
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - cpu_began,
        "images": done,
        "resident_mb": resident_mb(),
        "open_files": sum(1 for _ in Path("/proc/self/fd").iterdir()),
      }
    )
  return samples


def resident_mb() -> float:
  """Return the resident memory of this process, in MiB."""
  pages = int(Path("/proc/self/statm").read_text().split()[1])
  return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def judged(samples: Sequence[dict[str, float]]) -> dict[str, float | bool]:
  """Return the growth of each quantity after the warm-up, relative to its initial value."""
  times = np.array([sample["seconds"] for sample in samples])
  warm = [sample for sample, when in zip(samples, times, strict=True) if when > WARM_UP * times[-1]]
  growth = {name: grown(warm, name) for name in ("resident_mb", "open_files")}
  images = np.diff([sample["images"] for sample in warm])
  cpu = np.diff([sample["cpu_seconds"] for sample in warm])
  rates = [
    {"seconds": s["seconds"], "rate": r} for s, r in zip(warm[1:], images / cpu, strict=True)
  ]
  growth["rate"] = grown(rates, "rate")
  passed = max(growth["resident_mb"], growth["open_files"], -growth["rate"]) < LIMIT
  return {
    "minutes": float(times[-1] / 60),
    "images": samples[-1]["images"],
    "images_a_cpu_second": float(np.sum(images) / np.sum(cpu)),
    "resident_mb_from": warm[0]["resident_mb"],
    "resident_mb_to": warm[-1]["resident_mb"],
    "open_files_from": warm[0]["open_files"],
    "open_files_to": warm[-1]["open_files"],
    **{f"{name}_growth": float(value) for name, value in growth.items()},
    "passed": bool(passed),
  }


def grown(samples: Sequence[dict[str, float]], name: str) -> float:
  """Return the growth along a line fitted to the samples, relative to its start."""
  times = np.array([sample["seconds"] for sample in samples])
  values = np.array([sample[name] for sample in samples])
  slope, start = np.polyfit(times - times[0], values, 1)
  return float(slope * (times[-1] - times[0]) / start)


if __name__ == "__main__":
  sys.exit(main())
