"""The command `python -m genbench_jax.report`: pages from what runs have left, without models or datasets.

python -m genbench_jax.report WORKDIR
python -m genbench_jax.report --compare RUN_A RUN_B --out comparison
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.errors import UsageError
from genbench_jax.report.compare import write_comparison
from genbench_jax.report.from_disk import read_run, rebuild
from genbench_jax.runtime.command import command
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.stopping import leave


@command
def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  options = _parser().parse_args(arguments)
  page = _page(options)
  say(f"report: {page}")
  return 0


def _page(options: argparse.Namespace) -> Path:
  if options.compare:
    run_a, run_b = options.compare
    return _compare(run_a, run_b, options.out)
  return _rebuild(options.workdir)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m genbench_jax.report",
    description="Makes the page of a run again from its work folder, or sets two runs side by side.",
  )
  parser.add_argument("workdir", nargs="?", type=Path, help="the work folder of a run")
  parser.add_argument(
    "--compare", nargs=2, type=Path, metavar=("RUN_A", "RUN_B"), help="two work folders"
  )
  parser.add_argument(
    "--out", type=Path, default=Path("comparison"), help="--compare: the folder of the page"
  )
  return parser


def _rebuild(workdir: Path | None) -> Path:
  if workdir is None:
    raise UsageError("no work folder given. Give one, or two with --compare RUN_A RUN_B.")
  return rebuild(workdir)


def _compare(a: Path, b: Path, out: Path) -> Path:
  (rows_a, run_a), (rows_b, run_b) = read_run(a), read_run(b)
  return write_comparison(rows_a, rows_b, _named(run_a, a), _named(run_b, b), out)


def _named(run: Mapping[str, Any], workdir: Path) -> dict[str, Any]:
  return {**run, "title": f"{run.get('title') or 'Run'}, {workdir.name}"}


if __name__ == "__main__":
  leave(main())
