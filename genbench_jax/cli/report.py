"""Rebuild the page of a run from its work folder, without models or datasets.

genbench report WORKDIR --price 1.2
"""

import argparse
from pathlib import Path

from genbench_jax.cli.argument_types import price
from genbench_jax.cli.subcommand import subcommand
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.stopping import leave


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("workdir", type=Path, help="work folder of a run")
  parser.add_argument(
    "--price", type=price, help="USD per chip-hour, for the cost of images in the ranking"
  )


@subcommand("report", _arguments, __doc__)
def main(options: argparse.Namespace) -> None:
  """Write the page and print its path."""
  from genbench_jax.report.from_disk import rebuild

  say(f"report: {rebuild(options.workdir, options.price)}")


if __name__ == "__main__":
  leave(main())
