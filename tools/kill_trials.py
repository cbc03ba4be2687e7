"""Kill runs with SIGKILL at random moments of each stage, continue them, and compare with an undisturbed run.

  python tools/kill_trials.py --trials 25 --out kill_trials.json

Models are as small as possible, with random weights. For every trial, the preceding stages are copied from the
undisturbed run; the stage is started in its own process, killed, and run again in another process. Half of the
moments are drawn uniformly over the stage's duration. The other half are within 20 ms after a randomly chosen
file of the stage appears, since writing takes almost no time here. All outputs of the stage must be
byte-identical, except for the seconds in rows and pages. Processes are forked from one that has imported
everything, so that a trial takes seconds and no moment falls into imports. Trials are appended to --out; a
stopped tool continues there. The exit status is 1 if any output differs.
"""

import argparse
import csv
import gc
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.config import STAGES
from genbench_jax.main import main as run_command
from genbench_jax.runtime.jax_start import start_jax
from genbench_jax.zoo.tiny import write_tiny_clip, write_tiny_stable_diffusion

ROOT = Path(__file__).parents[1]
# Output folders of each stage, in the work folder.
MAKES = {
  "images": ("images",),
  "embed": ("embeddings",),
  "score": ("rows", "classes", "hits"),
  "recognize": ("rows", "classes", "hits", "recognizers"),
  "report": ("report",),
}
RESULTS = ("results.jsonl", "results.csv")  # written by every stage
IMPORTED = (
  "genbench_jax.pipeline.report",
  "genbench_jax.pipeline.stages",
  "genbench_jax.report.trackers",
  "tensorflow_datasets",
  "transformers",
)
# Wall-clock times (of a row or of all stages, in JSON and in the page's table), and checksums of rows with them.
SECONDS = re.compile(
  rb'"seconds": (?:[-+.e0-9]+|\{[^}]*\})|aria-label="Time and cost">.*?</div>|^\{"sha256": "\w+"\}$',
  re.DOTALL | re.MULTILINE,
)
AFTER_FILE_SECONDS = 0.02


def main(argv: Sequence[str] | None = None) -> int:
  """Run all trials; return 0 if all outputs equal the undisturbed run's."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--trials", type=int, default=25, help="trials per stage")
  parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
  parser.add_argument("--out", type=Path, default=Path("kill_trials.json"))
  options = parser.parse_args(argv)
  done = json.loads(options.out.read_text()) if options.out.exists() else {}
  with tempfile.TemporaryDirectory() as temporary:
    trials = Trials(Path(temporary))
    for number in range(options.trials):
      for stage in options.stages:
        of_stage = done.setdefault(stage, [])
        if number >= len(of_stage):
          of_stage.append(trials.trial(stage, number))
          options.out.write_text(json.dumps(done, indent=1))
          print(f"{stage} {number}: {of_stage[-1]}", flush=True)
  print("\n".join(summary(done)))
  return 1 if any(trial["different"] for trials in done.values() for trial in trials) else 0


def summary(done: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
  """Yield a line per stage: number of trials, when they were killed, and how they ended."""
  for stage, trials in done.items():
    counts = {
      "killed": sum(trial["killed"] for trial in trials),
      "with some files written and some not": sum(trial["half_done"] for trial in trials),
      "different": sum(bool(trial["different"]) for trial in trials),
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items())
    yield f"{stage}: {len(trials)} trials, {told}"


class Trials:
  """An undisturbed run, and trials of its stages."""

  def __init__(self, folder: Path) -> None:
    self.folder, self.whole = folder, folder / "undisturbed"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")
    _import_all()
    self._finish(lambda: _write_models(folder))
    self.finish(self.whole, STAGES)  # compiles; the second run is the undisturbed one
    shutil.rmtree(self.whole)
    self.seconds = {stage: self.finish(self.whole, [stage]) for stage in STAGES}
    self.files = {stage: made_by(stage, self.whole).keys() for stage in STAGES}
    print({stage: round(seconds, 1) for stage, seconds in self.seconds.items()}, flush=True)

  def trial(self, stage: str, number: int) -> dict[str, Any]:
    """Kill the stage at a random moment, continue it, and return what differs."""
    rng = random.Random(f"{stage} {number}")
    workdir = self.folder / "trial"
    shutil.copytree(self.whole, workdir)
    wanted = made_by(stage, self.whole)
    for name in wanted:
      (workdir / name).unlink()
    began = time.monotonic()
    process = self.start(workdir, [stage])
    if number % 2:
      self._wait_for_files(process, workdir, stage, rng.randint(1, len(wanted)))
      time.sleep(rng.uniform(0, AFTER_FILE_SECONDS))
    else:
      time.sleep(rng.uniform(0, self.seconds[stage]))
    moment = time.monotonic() - began
    os.kill(process, signal.SIGKILL)
    killed = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    left = len(made_by(stage, workdir))
    self.finish(workdir, [stage])
    found = made_by(stage, workdir)
    names = sorted(wanted.keys() | found.keys())
    different = [name for name in names if wanted.get(name) != found.get(name)]
    shutil.rmtree(workdir)
    return {
      "seconds": round(moment, 3),
      "killed": killed,
      "half_done": killed and 0 < left < len(wanted),
      "different": different,
    }

  def _wait_for_files(self, process: int, workdir: Path, stage: str, count: int) -> None:
    """Wait until a stage has written `count` files, or has ended."""
    deadline = time.monotonic() + 10 * self.seconds[stage] + 60
    while len(names_made_by(stage, workdir)) < count and time.monotonic() < deadline:
      if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        return
      time.sleep(0.002)

  def finish(self, workdir: Path, stages: Sequence[str]) -> float:
    """Run stages to their end; return the seconds that they took."""
    began = time.monotonic()
    self._finish(lambda: run_command(["main", *self._arguments(workdir, stages)]))
    return time.monotonic() - began

  def start(self, workdir: Path, stages: Sequence[str]) -> int:
    """Start the command in a fork; return its process id."""
    return self._fork(lambda: run_command(["main", *self._arguments(workdir, stages)]))

  def _finish(self, work: Callable[[], int]) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(self._fork(work), 0)[1])
    if status:
      output = (self.folder / "output.txt").read_text(encoding="utf-8")
      raise RuntimeError(f"status {status}:\n{output}")

  def _fork(self, work: Callable[[], int]) -> int:
    process = os.fork()
    if process == 0:
      status = 1
      try:
        output = os.open(self.folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        status = work()
      except BaseException:
        sys.excepthook(*sys.exc_info())
      finally:
        os._exit(status)
    return process

  def _arguments(self, workdir: Path, stages: Sequence[str]) -> list[str]:
    return [
      f"--config={ROOT / 'configs' / 'demo.py'}:quick",
      f"--workdir={workdir}",
      f"--stages={','.join(stages)}",
      f"--config.generation.checkpoint={self.folder / 'diffusion'}",
      f"--config.encoder.checkpoint={self.folder / 'clip'}",
      "--config.shots=(1, 2)",
      "--config.generation.strategies=('defined_template',)",
      "--config.generation.steps=2",
      "--config.generation.batch_per_device=4",
      "--config.generation.shard_size=4",
      "--config.scoring.quantities=('cler', 'fid')",
      "--config.scoring.resamples=10",
    ]


def _write_models(folder: Path) -> int:
  write_tiny_clip(folder / "clip")
  write_tiny_stable_diffusion(folder / "diffusion")
  return 0


def _import_all() -> None:
  """Import what a run imports, once for all forks. Makes no arrays, since JAX then starts threads."""
  start_jax()
  for name in IMPORTED:
    importlib.import_module(name)
  gc.freeze()


def names_made_by(stage: str, workdir: Path) -> list[Path]:
  """Return the files, complete or not, that a stage makes."""
  found = [path for name in MAKES[stage] for path in (workdir / name).rglob("*") if path.is_file()]
  # Scores and recognizers share folders; their names differ.
  if stage in ("score", "recognize"):
    found = [path for path in found if f"-{stage}-" in str(path.relative_to(workdir))]
  return [*found, *(workdir / name for name in RESULTS if (workdir / name).exists())]


def made_by(stage: str, workdir: Path) -> dict[str, bytes]:
  """Return the content of each file that a stage has made, without the seconds in rows."""
  return {
    str(path.relative_to(workdir)): without_seconds(path) for path in names_made_by(stage, workdir)
  }


def without_seconds(path: Path) -> bytes:
  """Return a file's content without wall-clock times."""
  content = path.read_bytes()
  if path.suffix != ".csv":
    return SECONDS.sub(b"", content)
  rows = list(csv.reader(content.decode().splitlines()))
  kept = [place for place, name in enumerate(rows[0]) if name != "seconds"]
  return json.dumps([[row[place] for place in kept] for row in rows]).encode()


if __name__ == "__main__":
  sys.exit(main())
