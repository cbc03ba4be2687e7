"""Check every file of a work folder: seals, checksums, fingerprints, format versions.

    genbench verify WORKDIR

Damaged, missing and orphaned files are listed with advice. The exit status is 1 if anything is
wrong.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from genbench_jax.cli.subcommand import subcommand
from genbench_jax.runtime.printable import printable
from genbench_jax.runtime.progress import show
from genbench_jax.runtime.stopping import leave


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("workdir", type=Path, help="work folder of a run")
  parser.add_argument("--json", action="store_true", help="print JSON instead of text")


@subcommand("verify", _arguments, __doc__)
def main(options: argparse.Namespace) -> int:
  """Check the folder and print its faults."""
  from genbench_jax.pipeline.verify import verify

  found = verify(options.workdir)
  if options.json:
    show(json.dumps(dataclasses.asdict(found), indent=2, ensure_ascii=False))
    return 1 if found.faults else 0
  for fault in found.faults:
    show(f"{fault.kind}: {fault.path!r}: {printable(fault.why)}. To fix it: {fault.advice}.")
  counted = ", ".join(f"{count} {kind}" for kind, count in found.counts.items())
  wrong = f"{len(found.faults)} faults" if found.faults else "no faults"
  show(f"{printable(str(options.workdir))}: {counted}: {wrong}.")
  return 1 if found.faults else 0


if __name__ == "__main__":
  leave(main())
