"""Kills runs with SIGKILL at random moments of each stage, goes on, and compares with a run that nobody disturbed.

python tools/kill_trials.py --trials 25 --out kill_trials.json

Models are as small as real ones can be, with random weights. For every trial the stages before the one under trial are copied from
the undisturbed run; the stage is started, killed at a moment drawn evenly over the time that it took undisturbed, and the same
command is run again. Images and features must come out byte for byte the same, rows the same but for the seconds that they took.
Status 1 if one does not.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genbench_jax.config import STAGES
from genbench_jax.testing import write_tiny_clip, write_tiny_stable_diffusion

ROOT = Path(__file__).parents[1]
# What each stage makes, and so what is not copied for its trials.
MAKES = {
  "images": ("images", "embeddings", "rows", "report", "results.jsonl", "results.csv"),
  "embed": ("embeddings", "rows", "report", "results.jsonl", "results.csv"),
  "score": ("rows", "report", "results.jsonl", "results.csv"),
  "recognise": ("rows", "report", "results.jsonl", "results.csv"),
  "report": ("report", "results.jsonl", "results.csv"),
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs all trials; returns 0 if all ended as the undisturbed run."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--trials", type=int, default=25, help="of each stage")
  parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--out", default="kill_trials.json")
  options = parser.parse_args(argv)
  rng = random.Random(options.seed)
  with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    write_tiny_clip(folder / "clip")
    write_tiny_stable_diffusion(folder / "diffusion")
    finished(folder, folder / "undisturbed", STAGES)  # once more than needed: programs are compiled
    shutil.rmtree(folder / "undisturbed")
    seconds = {stage: finished(folder, folder / "undisturbed", [stage]) for stage in STAGES}
    results = {
      stage: [
        trial(folder, stage, rng.uniform(0.2, 1) * seconds[stage]) for _ in range(options.trials)
      ]
      for stage in options.stages
    }
  summary = {
    stage: {
      "trials": len(trials),
      "killed": sum(one["killed"] for one in trials),
      "different": [one for one in trials if one["different"]],
    }
    for stage, trials in results.items()
  }
  Path(options.out).write_text(json.dumps(summary, indent=1))
  print(json.dumps(summary, indent=1))
  return 1 if any(one["different"] for one in summary.values()) else 0


def trial(folder: Path, stage: str, moment: float) -> dict[str, Any]:
  """Kills the stage at a moment, goes on, and says what is different."""
  workdir = folder / "trial"
  shutil.copytree(
    folder / "undisturbed", workdir, ignore=lambda at, names: _made_by(stage, folder, at, names)
  )
  process = started(folder, workdir, [stage])
  time.sleep(moment)
  killed = process.poll() is None
  process.kill()
  process.communicate()
  later = STAGES[STAGES.index(stage) :]
  finished(folder, workdir, later)
  different = differences(folder / "undisturbed", workdir)
  shutil.rmtree(workdir)
  print(
    f"{stage}: killed after {moment:.1f} s, {different or 'as undisturbed'}",
    flush=True,
  )
  return {"moment": moment, "killed": killed, "different": different}


def _made_by(stage: str, folder: Path, at: str, names: list[str]) -> list[str]:
  if Path(at) != folder / "undisturbed":
    rows = Path(at).parent.name == "rows" and stage == "recognise"
    return [name for name in names if rows and "-recognise-" in name]
  leave_out = [name for name in MAKES[stage] if not (stage == "recognise" and name == "rows")]
  return [name for name in names if name in leave_out]


def differences(one: Path, other: Path) -> list[str]:
  """The names of artefacts that are not the same."""
  left, right = artefacts(one), artefacts(other)
  return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def artefacts(workdir: Path) -> dict[str, Any]:
  """The bytes of images and features, and rows without their seconds."""
  found: dict[str, Any] = {
    str(path.relative_to(workdir)): path.read_bytes()
    for name in ("images", "embeddings")
    for path in (workdir / name).rglob("*")
    if path.is_file()
  }
  rows = [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]
  found["rows"] = [{key: row[key] for key in row if key != "seconds"} for row in rows]
  found["page"] = (workdir / "report" / "index.html").exists()
  return found


def finished(folder: Path, workdir: Path, stages: Sequence[str]) -> float:
  """Runs stages to their end; the seconds that they took."""
  began = time.monotonic()
  process = started(folder, workdir, stages)
  said, _ = process.communicate()
  if process.returncode:
    raise RuntimeError(f"{stages} ended with status {process.returncode}:\n{said}")
  return time.monotonic() - began


def started(folder: Path, workdir: Path, stages: Sequence[str]) -> "subprocess.Popen[str]":
  """The command, started."""
  command = [
    *(sys.executable, "-m", "genbench_jax.main"),
    f"--config={ROOT / 'configs' / 'demo.py'}:quick",
    f"--workdir={workdir}",
    f"--stages={','.join(stages)}",
    f"--config.generation.checkpoint={folder / 'diffusion'}",
    f"--config.encoder.checkpoint={folder / 'clip'}",
    "--config.shots=(1, 2)",
    "--config.generation.strategies=('defined_template',)",
    "--config.generation.steps=2",
    "--config.generation.batch_per_device=4",
    "--config.generation.shard_size=4",
    "--config.scoring.quantities=('cler', 'fid')",
    "--config.scoring.resamples=10",
  ]
  return subprocess.Popen(
    command,
    cwd=ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


if __name__ == "__main__":
  sys.exit(main())
