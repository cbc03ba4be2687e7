"""Make the page of a run again from its work folder: no model, no dataset.

genbench report WORKDIR
"""

import argparse
from pathlib import Path

from genbench_jax.cli.subcommand import subcommand
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.stopping import leave


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("workdir", type=Path, help="the work folder of a run")


@subcommand("report", _arguments, __doc__)
def main(options: argparse.Namespace) -> None:
  """Make the page and say where it is."""
  from genbench_jax.report.from_disk import rebuild

  say(f"report: {rebuild(options.workdir)}")


if __name__ == "__main__":
  leave(main())
