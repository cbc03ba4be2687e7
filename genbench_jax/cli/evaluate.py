"""`genbench evaluate`: how good are the images of a folder as training data for a dataset?"""

import argparse
import json

from genbench_jax.cli.subcommand import numbers, subcommand
from genbench_jax.pipeline.evaluate import evaluate_folder
from genbench_jax.report.text_table import table
from genbench_jax.runtime.progress import show
from genbench_jax.runtime.stopping import leave


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("folder", help="CLASS/*.png, classes by name, label or index")
  parser.add_argument(
    "--dataset",
    required=True,
    help="whose classes they are, see `genbench benchmark`",
  )
  parser.add_argument("--workdir", help="where features, rows and the page stay")
  parser.add_argument(
    "--shots",
    type=numbers,
    default=(),
    help="images a class, by comma; by default 1,4,16,... and all",
  )
  parser.add_argument(
    "--seeds", type=numbers, default=(0,), help="of the choice of images, by comma"
  )
  parser.add_argument("--encoder", default="", help="CLIP checkpoint: folder or hub id")
  parser.add_argument(
    "--with-originals", action="store_true", help="measure the dataset's own training images too"
  )
  parser.add_argument("--data-dir", default="", help="TFDS's data folder")
  parser.add_argument("--json", action="store_true", help="print the rows as JSON")


@subcommand("evaluate", _arguments, __doc__)
def main(options: argparse.Namespace) -> None:
  """Print the table, or the rows as JSON."""
  from genbench_jax.runtime.jax_start import start_jax

  start_jax()
  rows = evaluate_folder(
    options.folder,
    options.dataset,
    options.workdir,
    shots=options.shots,
    seeds=options.seeds,
    encoder=options.encoder,
    with_originals=options.with_originals,
    settings={"data_dir": options.data_dir},
  )
  show(json.dumps(rows, indent=2) if options.json else table(rows))


if __name__ == "__main__":
  leave(main())
