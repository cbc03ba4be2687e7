"""Kills runs with SIGKILL at random moments of each stage, goes on, and compares with a run that nobody disturbed.

python tools/kill_trials.py --trials 25 --out kill_trials.json

Models are as small as real ones can be, with random weights. For every trial the stages before the one under trial are copied from
the undisturbed run; the stage is started in a process of its own, killed, and run again in another one. Half of the moments are
drawn evenly over the time that the stage takes; the other half fall within 20 ms after a file drawn from those that the stage
writes has appeared, since writing takes next to no time here. All that the stage makes must come out byte for byte the same, but for the seconds that
rows and pages tell. Processes are forks of one that has imported everything, so that a trial takes seconds and no moment falls
into imports. Trials are written to --out one by one; a stopped tool goes on from there. Status 1 if anything came out different.
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
# What each stage makes, in folders of the work folder.
MAKES = {
  "images": ("images",),
  "embed": ("embeddings",),
  "score": ("rows", "classes"),
  "recognize": ("rows", "classes", "recognizers"),
  "report": ("report",),
}
RESULTS = ("results.jsonl", "results.csv")  # of every stage
IMPORTED = (
  "diffusers.models.modeling_flax_utils",
  "genbench_jax.pipeline.report",
  "genbench_jax.pipeline.stages",
  "genbench_jax.report.trackers",
  "tensorflow_datasets",
  "transformers",
)
# Wall-clock times, of a row or of all stages in JSON and in the page's table, and the checksum of rows that tell them.
SECONDS = re.compile(
  rb'"seconds": (?:[-+.e0-9]+|\{[^}]*\})|aria-label="Time and cost">.*?</div>|^\{"sha256": "\w+"\}$',
  re.DOTALL | re.MULTILINE,
)
AFTER_FILE_SECONDS = 0.02


def main(argv: Sequence[str] | None = None) -> int:
  """Runs all trials; returns 0 if all ended as the undisturbed run."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--trials", type=int, default=25, help="of each stage")
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
  return 1 if any(one["different"] for some in done.values() for one in some) else 0


def summary(done: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
  """One line a stage: how many trials, what they hit and how they ended."""
  for stage, trials in done.items():
    counts = {
      "killed": sum(one["killed"] for one in trials),
      "with some files written and some not": sum(one["half_done"] for one in trials),
      "different": sum(bool(one["different"]) for one in trials),
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
    self.finish(self.whole, STAGES)  # to compile; its second time is the undisturbed run
    shutil.rmtree(self.whole)
    self.seconds = {stage: self.finish(self.whole, [stage]) for stage in STAGES}
    self.files = {stage: made_by(stage, self.whole).keys() for stage in STAGES}
    print({stage: round(seconds, 1) for stage, seconds in self.seconds.items()}, flush=True)

  def trial(self, stage: str, number: int) -> dict[str, Any]:
    """Kills the stage at a moment, goes on, and says what is different."""
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
    """Returns when so many files of a stage are there, or when it has ended."""
    deadline = time.monotonic() + 10 * self.seconds[stage] + 60
    while len(names_made_by(stage, workdir)) < count and time.monotonic() < deadline:
      if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        return
      time.sleep(0.002)

  def finish(self, workdir: Path, stages: Sequence[str]) -> float:
    """Runs stages to their end; the seconds that they took."""
    began = time.monotonic()
    self._finish(lambda: run_command(["main", *self._arguments(workdir, stages)]))
    return time.monotonic() - began

  def start(self, workdir: Path, stages: Sequence[str]) -> int:
    """Starts the command in a fork; its process id."""
    return self._fork(lambda: run_command(["main", *self._arguments(workdir, stages)]))

  def _finish(self, work: Callable[[], int]) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(self._fork(work), 0)[1])
    if status:
      said = (self.folder / "said.txt").read_text(encoding="utf-8")
      raise RuntimeError(f"status {status}:\n{said}")

  def _fork(self, work: Callable[[], int]) -> int:
    process = os.fork()
    if process == 0:
      status = 1
      try:
        said = os.open(self.folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
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
  """Imports what a run imports, once for all forks. No arrays: JAX starts threads with its first one."""
  start_jax()
  for name in IMPORTED:
    importlib.import_module(name)
  gc.freeze()


def names_made_by(stage: str, workdir: Path) -> list[Path]:
  """The files, whole or not, of what a stage makes."""
  found = [path for name in MAKES[stage] for path in (workdir / name).rglob("*") if path.is_file()]
  # Scores and recognizers share folders and tell themselves apart by their names.
  if stage in ("score", "recognize"):
    found = [path for path in found if f"-{stage}-" in str(path.relative_to(workdir))]
  return [*found, *(workdir / name for name in RESULTS if (workdir / name).exists())]


def made_by(stage: str, workdir: Path) -> dict[str, bytes]:
  """What a stage has made: the bytes of each file, without the seconds that rows tell."""
  return {
    str(path.relative_to(workdir)): without_seconds(path) for path in names_made_by(stage, workdir)
  }


def without_seconds(path: Path) -> bytes:
  """A file's content without the wall-clock times in it."""
  content = path.read_bytes()
  if path.suffix != ".csv":
    return SECONDS.sub(b"", content)
  rows = list(csv.reader(content.decode().splitlines()))
  kept = [place for place, name in enumerate(rows[0]) if name != "seconds"]
  return json.dumps([[row[place] for place in kept] for row in rows]).encode()


if __name__ == "__main__":
  sys.exit(main())
