"""Compare exact retrieval from a pool on disk with faiss-cpu's flat index, using the same number of threads.

  python benchmarks/retrieval.py --json=retrieval.json       # 1,000,000 x 512 float16, 2,000 queries, k = 30: ten minutes
  python benchmarks/retrieval.py --rows=50000 --queries=500  # smoke test: a minute

Each side has its own process, so that peak memory is separate. The sides alternate, and medians of wall and CPU time
are compared. Ours streams the pool from disk in every search; faiss loads and converts it once, then searches. Ratios
are peer / ours: above 1, ours is faster. `from_disk` includes faiss's loading time, `of_seconds` and `of_cpu_seconds`
do not. The results must be equal: a row that only one side returns must score within rounding of the k-th best.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SHARD_ROWS = 100_000
TOLERANCE = 1e-5


def main() -> None:
  arguments = parsed()
  if arguments.child:
    print(json.dumps(CHILDREN[arguments.child](Path(arguments.data), arguments)))
    return
  with tempfile.TemporaryDirectory(dir=arguments.data) as folder:
    results = compared(Path(folder), arguments)
  print(json.dumps(results, indent=2))
  if arguments.json:
    Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n")


def parsed() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--rows", type=int, default=1_000_000)
  parser.add_argument("--width", type=int, default=512)
  parser.add_argument("--queries", type=int, default=2000)
  parser.add_argument("--k", type=int, default=30)
  parser.add_argument("--repeats", type=int, default=3, help="runs of each side")
  parser.add_argument("--threads", type=int, default=os.cpu_count())
  parser.add_argument(
    "--data", help="folder for the pool; by default the system's temporary folder"
  )
  parser.add_argument("--peer-python", default=sys.executable, help="a Python with faiss")
  parser.add_argument("--json", help="file for the results")
  parser.add_argument("--child", help=argparse.SUPPRESS)
  return parser.parse_args()


def compared(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
  """Return alternating medians of both sides, their ratios, and whether results agree."""
  write_pool(folder, arguments)
  turns: dict[str, list[dict[str, Any]]] = {"ours": [], "faiss": []}
  for _ in range(arguments.repeats):
    for name, found in turns.items():
      found.append(run_child(name, folder, arguments))
  results: dict[str, Any] = {name: medians(found) for name, found in turns.items()}
  for clock in ("seconds", "cpu_seconds"):
    results[f"ratio_of_{clock}"] = results["faiss"][clock] / results["ours"][clock]
  from_disk = results["faiss"]["load_seconds"] + results["faiss"]["seconds"]
  results["ratio_from_disk"] = from_disk / results["ours"]["seconds"]
  pool_mb = sum(path.stat().st_size for path in (folder / "img_emb").iterdir()) / 2**20
  peak_mb = results["ours"]["peak_mb"]
  results["pool_mb"], results["peak_mb_over_pool"] = pool_mb, peak_mb - pool_mb
  results["same_answers"] = same_answers(folder)
  results["machine"] = {"threads": arguments.threads, "load_at_end": os.getloadavg()}
  return results


def write_pool(folder: Path, arguments: argparse.Namespace) -> None:
  """Write shards of unit-norm features around a thousand centers, like those of real images, and queries near them."""
  rng = np.random.default_rng(0)
  centers = rng.standard_normal((1000, arguments.width), dtype=np.float32)

  def features(count: int) -> np.ndarray:
    noise = rng.standard_normal((count, arguments.width), dtype=np.float32)
    near = centers[rng.integers(len(centers), size=count)] + noise
    return near / np.linalg.norm(near, axis=1, keepdims=True)

  (folder / "img_emb").mkdir()
  for number, start in enumerate(range(0, arguments.rows, SHARD_ROWS)):
    shard = features(min(SHARD_ROWS, arguments.rows - start)).astype(np.float16)
    np.save(folder / "img_emb" / f"img_emb_{number:04d}.npy", shard)
  np.save(folder / "queries.npy", features(arguments.queries))


def run_child(name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
  """Run one side in its own process with the given number of threads."""
  python = sys.executable if name == "ours" else arguments.peer_python
  command = [python, __file__, f"--child={name}", f"--data={folder}", f"--k={arguments.k}"]
  command.append(f"--threads={arguments.threads}")
  limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(arguments.threads))
  environment = {"JAX_PLATFORMS": "cpu", **os.environ, **limits}
  found = subprocess.run(
    command, check=True, stdout=subprocess.PIPE, text=True, env=environment
  ).stdout
  result = json.loads(found.splitlines()[-1])
  print(
    f"{name:6s} {result['seconds']:8.2f} s  {result['cpu_seconds']:8.2f} CPU s "
    f"{result['peak_mb']:7.0f} MB",
    flush=True,
  )
  return result


def medians(turns: list[dict[str, Any]]) -> dict[str, Any]:
  return {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}


def ours(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
  import genbench_jax as gb

  queries = np.load(folder / "queries.npy")
  began = time.perf_counter()
  # Compile the program on the first block, as an earlier search of the same shape would have done.
  first = folder / "img_emb" / "img_emb_0000.npy"
  (folder / "warm").mkdir(exist_ok=True)
  np.save(folder / "warm" / "warm.npy", np.load(first, mmap_mode="r")[:65_536])
  gb.retrieve(queries, folder / "warm", arguments.k)
  warm_up = time.perf_counter() - began
  return {**timed(lambda: gb.retrieve(queries, folder, arguments.k), folder / "ours.npz"), "load_seconds": warm_up}  # fmt: skip


def faiss(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
  import faiss as library

  library.omp_set_num_threads(arguments.threads)
  queries = np.load(folder / "queries.npy")
  began = time.perf_counter()
  index = library.IndexFlatIP(queries.shape[1])
  for path in sorted((folder / "img_emb").iterdir()):
    index.add(np.load(path).astype(np.float32))
  loading = time.perf_counter() - began
  return {**timed(lambda: index.search(queries, arguments.k), folder / "faiss.npz"), "load_seconds": loading}  # fmt: skip


CHILDREN = {"ours": ours, "faiss": faiss}


def timed(search: Any, path: Path) -> dict[str, Any]:
  """Run a search and store its results; return wall and CPU seconds, and the process's peak memory."""
  began, cpu = time.perf_counter(), time.process_time()
  scores, rows = search()
  seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
  np.savez(path, scores=scores, rows=rows)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak}


def same_answers(folder: Path) -> bool:
  """Return whether both sides return the same rows, except for ties with the last one within rounding."""
  with np.load(folder / "ours.npz") as left, np.load(folder / "faiss.npz") as right:
    if not np.allclose(left["scores"], right["scores"], atol=TOLERANCE):
      return False
    return all(
      set(a) - set(b)
      <= {row for row, score in zip(a, s, strict=True) if score <= s[-1] + TOLERANCE}
      for a, b, s in zip(left["rows"], right["rows"], left["scores"], strict=True)
    )


if __name__ == "__main__":
  main()
