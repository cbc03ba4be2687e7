"""Draws a contact sheet of an image set: a row a class, its name beside its images.

python -m genbench_jax.show WORKDIR/images/digits/generative-defined_template-seed0-09e1538f900e
python -m genbench_jax.show DIR --out sheet.png --per-class 8 --classes 20
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

from genbench_jax.errors import UsageError
from genbench_jax.export.contact_sheet import contact_sheet
from genbench_jax.export.records import open_image_set
from genbench_jax.runtime.command import command
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.stopping import leave
from genbench_jax.store import files


@command
def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  options = _parser().parse_args(arguments)
  if options.per_class < 1 or options.classes < 1:
    raise UsageError("--per-class and --classes must be at least 1.")
  sheet = contact_sheet(open_image_set(options.folder), options.per_class, options.classes)
  buffer = io.BytesIO()
  sheet.save(buffer, format="PNG", optimize=True)
  files.write_bytes(options.out, buffer.getvalue())
  say(f"{options.out}: {sheet.width} x {sheet.height} pixels")
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m genbench_jax.show", description="Draws a contact sheet of an image set."
  )
  parser.add_argument("folder", type=Path, help="an image set, in WORKDIR/images/DATASET")
  parser.add_argument("--out", type=Path, default=Path("sheet.png"), help="the PNG file to write")
  parser.add_argument("--per-class", type=int, default=8, help="images of a class")
  parser.add_argument("--classes", type=int, default=30, help="rows at most")
  return parser


if __name__ == "__main__":
  leave(main())
