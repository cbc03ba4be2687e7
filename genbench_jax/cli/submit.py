"""Write the results of a work folder to one small JSON file, or validate such files.

genbench submit WORKDIR --by "Your Name" --note "what is special"
genbench submit --check FILE...
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from genbench_jax.cli.subcommand import subcommand
from genbench_jax.errors import UsageError
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.stopping import leave


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("workdir", nargs="?", type=Path, help="work folder of a run")
  parser.add_argument("--by", default="", help="name of the submitter")
  parser.add_argument("--note", default="", help="a sentence for the reader")
  parser.add_argument("--out", type=Path, help="output file; default: NAME.submission.json")
  parser.add_argument("--check", nargs="+", type=Path, metavar="FILE", help="validate these files")


@subcommand("submit", _arguments, __doc__)
def main(options: argparse.Namespace) -> None:
  """Write a submission, or validate some."""
  if options.check:
    _check(options.check)
  else:
    _submit(options)


def _submit(options: argparse.Namespace) -> None:
  from genbench_jax.report.submission import submission
  from genbench_jax.report.submission_check import problems
  from genbench_jax.store import files

  if options.workdir is None:
    raise UsageError("no work folder given. Give one, or files with --check FILE...")
  document = submission(options.workdir, options.by, options.note)
  if found := problems(document):
    raise UsageError(f"{options.workdir} gives no valid submission: {' '.join(found)}")
  out = options.out or Path(f"{options.workdir.resolve().name}.submission.json")
  files.write_text(out, json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")
  rows, sets = len(document["rows"]["data"]), len(document["image_sets"])
  say(f"submission: {out} ({out.stat().st_size / 1000:.0f} kB: {rows} rows, {sets} image sets)")


def _check(paths: Sequence[Path]) -> None:
  from genbench_jax.report.board import read_entry

  for path in paths:
    document = read_entry(path)
    say(f"{path} is valid: {len(document['rows']['data'])} rows, checksum {document['checksum']}")


if __name__ == "__main__":
  leave(main())
