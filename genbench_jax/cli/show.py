"""Draw a contact sheet of an image set, with one row per class.

genbench show WORKDIR/images/digits/original-seed0-*
genbench show DIR --out sheet.png --per-class 8 --classes 20
"""

import argparse
import io
from pathlib import Path

from genbench_jax.cli.argument_types import positive
from genbench_jax.cli.subcommand import subcommand
from genbench_jax.export.contact_sheet import contact_sheet
from genbench_jax.export.records import open_image_set
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.stopping import leave
from genbench_jax.store import files


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("folder", type=Path, help="image set, in WORKDIR/images/DATASET")
  parser.add_argument("--out", type=Path, default=Path("sheet.png"), help="output PNG file")
  parser.add_argument("--per-class", type=positive, default=8, help="images per class")
  parser.add_argument("--classes", type=positive, default=30, help="maximum number of rows")


@subcommand("show", _arguments, __doc__)
def main(options: argparse.Namespace) -> None:
  """Write the sheet and print its size."""
  sheet = contact_sheet(open_image_set(options.folder), options.per_class, options.classes)
  buffer = io.BytesIO()
  sheet.save(buffer, format="PNG", optimize=True)
  files.write_bytes(options.out, buffer.getvalue())
  say(f"{options.out}: {sheet.width} x {sheet.height} pixels")


if __name__ == "__main__":
  leave(main())
