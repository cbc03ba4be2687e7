"""The command `python -m genbench_jax.report`: write pages from work folders.

Neither models nor datasets are loaded.

    python -m genbench_jax.report WORKDIR
    python -m genbench_jax.report --compare RUN_A RUN_B ... --out comparison
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from genbench_jax.errors import UsageError
from genbench_jax.report.compare import RunToCompare, write_comparison
from genbench_jax.report.from_disk import read_run, rebuild
from genbench_jax.report.hits import hits_of
from genbench_jax.report.results import beside_their_encoder, views
from genbench_jax.runtime.command import command
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.public import public
from genbench_jax.runtime.stopping import leave


@command
def main(arguments: Sequence[str] | None = None) -> int:
  """Run the command and return its exit status."""
  options = _parser().parse_args(arguments)
  page = _page(options)
  say(f"report: {page}")
  return 0


def _page(options: argparse.Namespace) -> Path:
  return (
    compare_folders(options.compare, options.out) if options.compare else _rebuild(options.workdir)
  )


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m genbench_jax.report",
    description="Rebuild the report of a run from its work folder, or compare runs.",
  )
  parser.add_argument("workdir", nargs="?", type=Path, help="work folder of a run")
  parser.add_argument(
    "--compare", nargs="+", type=Path, metavar="RUN", help="two or more work folders"
  )
  parser.add_argument(
    "--out", type=Path, default=Path("comparison"), help="folder of the comparison page"
  )
  return parser


def _rebuild(workdir: Path | None) -> Path:
  if workdir is None:
    raise UsageError("no work folder given. Give one, or two or more with --compare RUN_A RUN_B.")
  return rebuild(workdir)


def compare_folders(workdirs: Sequence[Path], out: Path) -> Path:
  """Write the page that compares work folders with the first of them; return its path.

  Raises:
    UsageError: a folder has no results or no cell in common with the first.
  """
  runs = []
  for workdir, name in zip(workdirs, short_names(workdirs), strict=True):
    rows, about = read_run(workdir)
    hits = {
      view: hits_of(workdir, rows, view) for view in views(public(beside_their_encoder(rows)))
    }
    runs.append(RunToCompare(name, rows, about, hits))
  return write_comparison(runs, out)


def short_names(workdirs: Sequence[Path]) -> list[str]:
  """Return the shortest trailing parts of the paths that distinguish all of them."""
  parts = [path.resolve().parts for path in workdirs]
  for count in range(1, max(map(len, parts), default=1) + 1):
    names = ["/".join(own[-count:]) for own in parts]
    if len(set(names)) == len(names):
      return names
  return [f"{names[i]} ({i + 1})" for i in range(len(names))]


if __name__ == "__main__":
  leave(main())
