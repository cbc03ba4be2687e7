"""Compare speed and memory of the metrics with other implementations; medians of one run.

  python benchmarks/metrics.py --json=metrics.json --plot=cost_against_n.png   # half an hour on 2 cores
  python benchmarks/metrics.py --scale=0.01                                    # smoke test: a minute
  python benchmarks/metrics.py --only=cler,vote                                # some of the comparisons

Peers (torch, faiss-cpu, prdc) are used if they are installed, here or in the environment of --peer-python. Every
measurement has its own process, so that thread pools do not interfere and peak memory is separate. Ratios are
peer / ours: above 1, ours is faster.

  cler       external 1,274,000 x 512 and test 50,000 x 512 on disk, 1,000 classes. The peer is the published
             formula in PyTorch: a loop over the classes, and the full similarity matrix in chunks. It is timed on a
             share of the test images (--share) and scaled up; its time without the similarity matrix is also given.
  vote       exact top-10 neighbors versus faiss-cpu's flat index, both in memory.
  frechet    versus NumPy's covariance and eigh.
  manifold   precision, recall, density and coverage, 10,000 x 10,000, versus the prdc package.
  curve      CLER and the Fréchet distance for n = 1e4 ... 1e6 external images: the exponent of the cost.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("cler", "vote", "frechet", "manifold", "curve")
WIDTH = 512
ROWS_AT_ONCE = 65_536


def main() -> None:
  arguments = parsed()
  if arguments.child:
    name, sizes = json.loads(arguments.child)
    print(json.dumps(CHILDREN[name](Path(arguments.data), **sizes)))
    return
  with tempfile.TemporaryDirectory(dir=arguments.data) as folder:
    run = functools.partial(measured, folder, arguments)
    results = {name: COMPARISONS[name](run, arguments, Path(folder)) for name in arguments.only}
  results["machine"] = {"cores": os.cpu_count(), "load_at_end": os.getloadavg()}
  if arguments.json:
    Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n")
  if arguments.plot and "curve" in results:
    plot_curve(results["curve"], Path(arguments.plot))


def parsed() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--only", type=lambda text: text.split(","), default=list(NAMES))
  parser.add_argument("--scale", type=float, default=1.0, help="factor for all numbers of images")
  parser.add_argument(
    "--share", type=float, default=0.05, help="share of the test images for the published formula"
  )
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument(
    "--data", help="folder for features on disk; by default the system's temporary folder"
  )
  parser.add_argument("--peer-python", default=sys.executable, help="a Python with the peers")
  parser.add_argument("--json", help="file for the results")
  parser.add_argument("--plot", help="file for a plot of the cost against n")
  parser.add_argument("--child", help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if unknown := set(arguments.only) - set(NAMES):
    parser.error(f"unknown comparison {', '.join(unknown)}; known: {', '.join(NAMES)}")
  return arguments


def measured(folder: str, arguments: argparse.Namespace, name: str, **sizes: Any) -> dict[str, Any]:
  """Run a measurement in its own process."""
  task = json.dumps([name, {**sizes, "repeats": arguments.repeats}])
  ours = name.endswith("_ours")
  python = sys.executable if ours else arguments.peer_python
  command = [python, __file__, f"--child={task}", f"--data={folder}"]
  found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
  result = json.loads(found.stdout.splitlines()[-1])
  print(f"{name:28s} {result['median_seconds']:10.3f} s  {result['peak_mb']:8.0f} MB", flush=True)
  return result


def timed(function: Callable[[], Any], repeats: int) -> dict[str, Any]:
  """Return the median wall time, the first call's time (with compilation), and the process's peak memory."""
  began = time.perf_counter()
  function()
  first = time.perf_counter() - began
  seconds = [first] if not repeats else []
  for _ in range(repeats):
    began = time.perf_counter()
    function()
    seconds.append(time.perf_counter() - began)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  return {"median_seconds": statistics.median(seconds), "first_seconds": first, "peak_mb": peak}


def ratio(peer: dict[str, Any], ours: dict[str, Any], what: str) -> float:
  found = peer["median_seconds"] / ours["median_seconds"]
  print(f"  {what}: {found:.2f} x", flush=True)
  return found


def installed(arguments: argparse.Namespace, module: str) -> bool:
  """Return whether the peers' Python has the module."""
  tried = subprocess.run(
    [arguments.peer_python, "-c", f"import {module}"], check=False, stderr=subprocess.DEVNULL
  )
  if tried.returncode:
    print(f"  {module} not installed: no comparison", flush=True)
  return not tried.returncode


# ---- data ----------------------------------------------------------------------------------------


def write_ours(
  folder: Path, file: str, rows: int, classes: int, seed: int, repeats: int
) -> dict[str, Any]:
  """Write clustered features and labels as .npy, in blocks. In a child, which would inherit our peak memory."""
  return timed(lambda: write_features(folder / file, rows, classes, seed), 0)


def write_features(path: Path, rows: int, classes: int, seed: int) -> None:
  random = np.random.default_rng(seed)
  centers = np.random.default_rng(0).normal(size=(classes, WIDTH)).astype(np.float32)
  features = np.lib.format.open_memmap(
    path.with_suffix(".npy"), mode="w+", dtype=np.float32, shape=(rows, WIDTH)
  )
  labels = random.integers(0, classes, rows).astype(np.int32)
  for start in range(0, rows, ROWS_AT_ONCE):
    block = labels[start : start + ROWS_AT_ONCE]
    noise = random.standard_normal((len(block), WIDTH), dtype=np.float32)
    features[start : start + len(block)] = centers[block] + 4 * noise
  np.save(path.with_suffix(".labels.npy"), labels)


def read_features(path: Path) -> tuple[np.ndarray, np.ndarray]:
  return np.load(path.with_suffix(".npy"), mmap_mode="r"), np.load(path.with_suffix(".labels.npy"))


def text_features(classes: int) -> np.ndarray:
  centers = np.random.default_rng(0).normal(size=(classes, WIDTH))
  return (centers + np.random.default_rng(1).normal(size=centers.shape)).astype(np.float32)


def cloud(rows: int, seed: int) -> np.ndarray:
  random = np.random.default_rng(seed)
  return random.standard_normal((rows, WIDTH), dtype=np.float32) * (1 + seed / 10)


# ---- measurements, each in its own process -------------------------------------------------------


def cler_ours(folder: Path, classes: int, repeats: int) -> dict[str, Any]:
  """Time our CLER without the votes, which need the similarities."""
  from genbench_jax.metrics.cler import cler

  def run() -> dict[str, float]:
    external, tests = read_features(folder / "external"), read_features(folder / "test")
    return cler(*external, text_features(classes), *tests, top_k=None)

  return {**timed(run, repeats), "scores": run()}


def cler_torch(folder: Path, classes: int, share: float, repeats: int) -> dict[str, Any]:
  """Time the published formula: normalized features, a loop over the classes, all similarities, top 10.

  The similarities are computed for a share of the test images, and their time is scaled up.
  """
  import torch

  unit = torch.nn.functional.normalize

  def read(name: str) -> tuple[Any, Any]:
    features, labels = read_features(folder / name)
    return unit(torch.from_numpy(np.array(features))), torch.from_numpy(labels).long()

  def prototypes() -> tuple[Any, ...]:
    (features, labels), (tests, truth) = read("external"), read("test")
    text = unit(torch.from_numpy(text_features(classes)))
    centers = unit(torch.stack([features[labels == c].mean(0) for c in range(classes)]))
    scores = {"zero_shot": text, "cler": unit(centers + text), "cler_image": centers}
    found = {
      name: float((torch.softmax(tests @ each.T, 1).argmax(1) == truth).float().mean())
      for name, each in scores.items()
    }
    return found, features, labels, tests[: max(1, int(share * len(tests)))]

  found, features, labels, tests = prototypes()
  one_hot = torch.nn.functional.one_hot(labels, classes).to(torch.float32)

  def votes() -> None:
    for chunk in tests.split(256):
      one_hot[(chunk @ features.T).topk(10, dim=1).indices].mean(1).argmax(1)

  similarities = timed(votes, 1)
  del features, one_hot
  whole = timed(prototypes, repeats)
  return {
    **whole,
    "scores": found,
    "without_similarities": whole["median_seconds"],
    "median_seconds": whole["median_seconds"] + similarities["median_seconds"] / share,
    "similarities_scaled_from_share": share,
  }


def vote_ours(folder: Path, external: int, tests: int, repeats: int) -> dict[str, Any]:
  from genbench_jax.metrics.neighbors import nearest

  base, queries = cloud(external, 0), cloud(tests, 1)
  return timed(lambda: nearest(queries, base, 10), repeats)


def vote_faiss(folder: Path, external: int, tests: int, repeats: int) -> dict[str, Any]:
  import faiss

  base, queries = cloud(external, 0), cloud(tests, 1)

  def run() -> None:
    rows, asked = base.copy(), queries.copy()
    faiss.normalize_L2(rows)
    faiss.normalize_L2(asked)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(rows)
    index.search(asked, 10)

  return timed(run, repeats)


def frechet_ours(folder: Path, rows: int, repeats: int) -> dict[str, Any]:
  from genbench_jax.metrics.frechet import frechet_distance

  x, y = cloud(rows, 0), cloud(rows // 2, 1)
  return {**timed(lambda: frechet_distance(x, y), repeats), "value": frechet_distance(x, y)}


def frechet_numpy(folder: Path, rows: int, repeats: int) -> dict[str, Any]:
  x, y = cloud(rows, 0), cloud(rows // 2, 1)

  def run() -> float:
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(cov_x)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_y @ root), 0)).sum()
    means = np.sum((x.mean(0) - y.mean(0)) ** 2)
    return float(means + np.trace(cov_x) + np.trace(cov_y) - 2 * cross)

  return {**timed(run, repeats), "value": run()}


def manifold_ours(folder: Path, rows: int, repeats: int) -> dict[str, Any]:
  from genbench_jax.metrics.manifold import precision_recall_density_coverage

  run = functools.partial(precision_recall_density_coverage, cloud(rows, 0), cloud(rows, 1))
  return {**timed(run, repeats), "scores": run()}


def manifold_prdc(folder: Path, rows: int, repeats: int) -> dict[str, Any]:
  from prdc import compute_prdc

  real, generated = cloud(rows, 0), cloud(rows, 1)

  def run() -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints its progress
      return compute_prdc(real, generated, nearest_k=5)

  scores = {name: float(value) for name, value in run().items()}
  return {**timed(run, repeats), "scores": scores}


def curve_ours(folder: Path, rows: int, classes: int, repeats: int) -> dict[str, Any]:
  """Time CLER and the Fréchet distance of the first `rows` external images on disk."""
  from genbench_jax.metrics.cler import cler
  from genbench_jax.metrics.frechet import frechet_distance

  features, labels = read_features(folder / "curve")
  tests, truth = cloud(1000, 1), np.arange(1000) % classes
  text = text_features(classes)
  run_cler = lambda: cler(features[:rows], labels[:rows], text, tests, truth, top_k=None)  # noqa: E731
  found = timed(run_cler, repeats)
  frechet = timed(lambda: frechet_distance(features[:rows], tests), repeats)
  return {**found, "frechet_seconds": frechet["median_seconds"]}


CHILDREN: dict[str, Callable[..., dict[str, Any]]] = {
  function.__name__: function
  for function in (
    cler_ours, cler_torch, vote_ours, vote_faiss, frechet_ours, frechet_numpy, manifold_ours,
    manifold_prdc, curve_ours, write_ours,
  )
}  # fmt: skip


# ---- comparisons ---------------------------------------------------------------------------------


def scaled(arguments: argparse.Namespace, rows: int) -> int:
  return max(20, int(arguments.scale * rows))


def compare_cler(run: Callable[..., Any], arguments: argparse.Namespace, folder: Path) -> Any:
  classes = scaled(arguments, 1000)
  run("write_ours", file="external", rows=scaled(arguments, 1_274_000), classes=classes, seed=1)
  run("write_ours", file="test", rows=scaled(arguments, 50_000), classes=classes, seed=2)
  found = {"ours": run("cler_ours", classes=classes)}
  if installed(arguments, "torch"):
    found["published"] = run("cler_torch", classes=classes, share=arguments.share)
    found["ratio"] = ratio(found["published"], found["ours"], "CLER against the published formula")
    alone = {"median_seconds": found["published"]["without_similarities"]}
    what = "the same without its similarity matrix"
    found["ratio_without_similarities"] = ratio(alone, found["ours"], what)
  (folder / "external.npy").unlink()
  return found


def compare_vote(run: Callable[..., Any], arguments: argparse.Namespace, folder: Path) -> Any:
  sizes = {"external": scaled(arguments, 200_000), "tests": scaled(arguments, 10_000)}
  found = {"ours": run("vote_ours", **sizes)}
  if installed(arguments, "faiss"):
    found["faiss"] = run("vote_faiss", **sizes)
    found["ratio"] = ratio(found["faiss"], found["ours"], "top 10 against faiss-cpu's flat index")
  return found


def compare_frechet(run: Callable[..., Any], arguments: argparse.Namespace, folder: Path) -> Any:
  rows = scaled(arguments, 200_000)
  found = {"ours": run("frechet_ours", rows=rows), "numpy": run("frechet_numpy", rows=rows)}
  found["ratio"] = ratio(found["numpy"], found["ours"], "Fréchet distance against NumPy")
  return found


def compare_manifold(run: Callable[..., Any], arguments: argparse.Namespace, folder: Path) -> Any:
  rows = scaled(arguments, 10_000)
  found = {"ours": run("manifold_ours", rows=rows)}
  if installed(arguments, "prdc"):
    found["prdc"] = run("manifold_prdc", rows=rows)
    found["ratio"] = ratio(found["prdc"], found["ours"], "manifold metrics against prdc")
  return found


def compare_curve(run: Callable[..., Any], arguments: argparse.Namespace, folder: Path) -> Any:
  sizes = [scaled(arguments, rows) for rows in (10_000, 30_000, 100_000, 300_000, 1_000_000)]
  run("write_ours", file="curve", rows=sizes[-1], classes=100, seed=1)
  found = [run("curve_ours", rows=rows, classes=100) for rows in sizes]
  cler = [point["median_seconds"] for point in found]
  frechet = [point["frechet_seconds"] for point in found]
  # The two smallest sizes are dominated by fixed costs, so the exponent is fitted to the larger ones.
  exponents = {
    name: float(np.polyfit(np.log(sizes[2:]), np.log(seconds[2:]), 1)[0])
    for name, seconds in (("cler", cler), ("frechet", frechet))
  }
  print(f"  cost grows as n to the power {exponents}", flush=True)
  return {"n": sizes, "cler": cler, "frechet": frechet, "exponents": exponents}


COMPARISONS = {
  "cler": compare_cler,
  "vote": compare_vote,
  "frechet": compare_frechet,
  "manifold": compare_manifold,
  "curve": compare_curve,
}


def plot_curve(curve: dict[str, Any], path: Path) -> None:
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot

  figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
  for name in ("cler", "frechet"):
    axes.loglog(curve["n"], curve[name], "o-", label=f"{name}: n^{curve['exponents'][name]:.2f}")
  straight = np.array(curve["n"]) * curve["cler"][-1] / curve["n"][-1]
  axes.loglog(curve["n"], straight, ":", color="gray", label="linear")
  axes.set(xlabel="external images", ylabel="seconds")
  axes.legend()
  figure.savefig(path, dpi=150)


if __name__ == "__main__":
  main()
