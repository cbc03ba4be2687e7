"""The five stages in order. Each reads the output of earlier stages and makes what is missing."""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from genbench_jax.config import STAGES, Config
from genbench_jax.errors import RunError, UsageError
from genbench_jax.pipeline.embed import embed
from genbench_jax.pipeline.images import make_images
from genbench_jax.pipeline.ledger import Ledger
from genbench_jax.pipeline.recognize import recognize, refuse_unsuitable
from genbench_jax.pipeline.report import report
from genbench_jax.pipeline.rows import measured_rows
from genbench_jax.pipeline.score import score
from genbench_jax.run import Run
from genbench_jax.runtime.failures import Failures
from genbench_jax.runtime.printable import listed
from genbench_jax.runtime.programs import ProgramMemory
from genbench_jax.runtime.progress import say
from genbench_jax.store.rows import write_results


def run_stages(
  config: Config, workdir: Path, stages: Sequence[str], command: str, keep_going: bool = False
) -> None:
  """Run the given stages in order and print what each did.

  Every process of the run calls this function. Only the first one writes rows and report.

  Args:
    config: the config.
    workdir: the work folder.
    stages: names of the stages.
    command: the command line, for the page.
    keep_going: whether other cells continue after a failure.

  Raises:
    RunError: parts of the run failed; raised at the end with a list.
    UsageError: the processes see different data.
  """
  run = Run(config, workdir, Failures(keep_going))
  functions: dict[str, Callable[[Run], int]] = {
    "images": lambda run: make_images(run, ledger),
    "embed": embed,
    "score": score,
    "recognize": recognize,
  }
  if "recognize" in stages:
    refuse_unsuitable(run)
  _refuse_different_data(run, stages)
  ledger, programs = Ledger(workdir, config, command), ProgramMemory()
  for stage in STAGES:
    if stage in stages and stage in functions:
      began = time.monotonic()
      done = _together(run, stage, functions[stage](run))
      programs.drop_if_large()
      if run.hosts.is_first:
        ledger.add(stage, done, time.monotonic() - began)
        if not done and not run.failures.reasons:
          say(f"{stage}: nothing to do")
  if run.hosts.is_first:
    ledger.keep()
    write_results(workdir, measured_rows(run), ledger.name)
    if "report" in stages:
      report(run, ledger)
  if run.failures.reasons:
    raise RunError(run.failures.summary())


def _refuse_different_data(run: Run, stages: Sequence[str]) -> None:
  """Require the same data on all hosts: names contain their digests, so one would wait for another's files.

  Raises:
    UsageError: the digests of a split differ; all processes raise it.
  """
  if run.hosts.count == 1:
    return
  own = {
    f"{dataset} {split}": _digest(run, dataset, split) for dataset, split in _used(run, stages)
  }
  (host, first), *others = run.hosts.gathered([[socket.gethostname(), own]], "a look at the data")
  for number, (other_host, other) in enumerate(others, 1):
    if odd := [name for name in first if first[name] != other.get(name)]:
      raise UsageError(
        f"process 0 on {host} and process {number} on {other_host} have different data: {listed(odd)}. Give all"
        " hosts the same files in config.data_dir and in the folders of datasets."
      )


def _used(run: Run, stages: Sequence[str]) -> Iterator[tuple[str, str]]:
  """Yield the dataset and split of all real images that the stages use."""
  for dataset, spec in run.config.specs.items():
    if {"embed", "score", "recognize"} & set(stages):
      yield dataset, "test"
    if "original" in run.config.sources and "train" in spec.splits:
      yield dataset, "train"


def _digest(run: Run, dataset: str, split: str) -> str:
  """Return the digest of a split; empty if it cannot be read, which a stage reports if it matters."""
  try:
    return run.digest(dataset, split)
  except (RunError, UsageError):
    return ""


def _together(run: Run, stage: str, done: int) -> int:
  """Wait for the other processes at the end of a stage; return their total work and failures."""
  reports = run.hosts.gathered([[done, run.failures.reasons]], f"the end of stage {stage}")
  for _, reasons in reports:
    run.failures.reasons.update(reasons)
  return sum(count for count, _ in reports)
