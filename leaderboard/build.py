"""Build the leaderboard, one static page, from the submissions in a folder.

python leaderboard/build.py                      # leaderboard/entries -> leaderboard/site
python leaderboard/build.py ENTRIES --out SITE
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from genbench_jax.errors import UsageError
from genbench_jax.report.board import read_entries, write_board

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
  """Run the command and return its exit status."""
  parser = argparse.ArgumentParser(description="Build the leaderboard from submissions.")
  parser.add_argument("entries", nargs="?", type=Path, default=HERE / "entries")
  parser.add_argument(
    "--out", type=Path, default=HERE / "site", help="folder that the page is written to"
  )
  options = parser.parse_args(arguments)
  try:
    entries = read_entries(options.entries)
  except UsageError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  page = write_board(entries, options.out)
  # The page links to its entries.
  copies = options.out / "entries"
  copies.mkdir(exist_ok=True)
  for name, _ in entries:
    shutil.copyfile(options.entries / name, copies / name)
  print(page)
  return 0


if __name__ == "__main__":
  sys.exit(main())
