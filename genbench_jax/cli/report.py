"""Rebuild the page of a run from its work folder, without models or datasets.

genbench report WORKDIR --price 1.2
"""

import argparse
import math
from pathlib import Path

from genbench_jax.cli.subcommand import subcommand
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.stopping import leave


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("workdir", type=Path, help="work folder of a run")
  parser.add_argument(
    "--price", type=_price, help="USD per chip-hour, for the cost of images in the ranking"
  )


def _price(text: str) -> float:
  try:
    price = float(text)
  except ValueError:
    price = -1.0
  if not 0 <= price < math.inf:
    raise argparse.ArgumentTypeError(f"{text!r} is not a price, such as 1.2")
  return price


@subcommand("report", _arguments, __doc__)
def main(options: argparse.Namespace) -> None:
  """Write the page and print its path."""
  from genbench_jax.report.from_disk import rebuild

  say(f"report: {rebuild(options.workdir, options.price)}")


if __name__ == "__main__":
  leave(main())
