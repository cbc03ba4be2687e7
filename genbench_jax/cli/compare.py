"""Compare runs on one page.

genbench compare RUN_A RUN_B --out comparison
"""

import argparse
from pathlib import Path

from genbench_jax.cli.subcommand import subcommand
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.stopping import leave


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="two or more work folders")
  parser.add_argument("--out", type=Path, default=Path("comparison"), help="folder of the page")


@subcommand("compare", _arguments, __doc__)
def main(options: argparse.Namespace) -> None:
  """Write the page and print its path."""
  from genbench_jax.report.comparison_page import compare_folders

  say(f"report: {compare_folders(options.runs, options.out)}")


if __name__ == "__main__":
  leave(main())
