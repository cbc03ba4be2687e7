"""Write image sets and features in the forms that other tools read.

Image sets lie in WORKDIR/images/DATASET, features in WORKDIR/embeddings/DATASET.
imagefolder: a folder a class and metadata.csv. hf: the same for Hugging Face's datasets. webdataset: tar shards.
npz: mu, sigma, features and labels of a file of features. `genbench evaluate` reads the first three back.
"""

import argparse
from pathlib import Path

from genbench_jax.cli.subcommand import subcommand
from genbench_jax.export.features import features
from genbench_jax.export.image_folder import hugging_face, image_folder
from genbench_jax.export.records import open_image_set
from genbench_jax.export.webdataset import webdataset
from genbench_jax.runtime.progress import Progress, say
from genbench_jax.runtime.stopping import leave

FORMS = {"imagefolder": image_folder, "webdataset": webdataset, "hf": hugging_face}


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("source", type=Path, help="an image set; for npz a file of features")
  parser.add_argument("--to", choices=(*FORMS, "npz"), required=True, help="the form")
  parser.add_argument("out", type=Path, help="a new folder; for npz a new file")
  parser.add_argument("--unit-norm", action="store_true", help="npz: scale features to length one")


@subcommand("export", _arguments, __doc__)
def main(options: argparse.Namespace) -> None:
  """Write the export and say how much is in it."""
  if options.to == "npz":
    count = features(options.source, options.out, options.unit_norm)
    say(f"{count} features in {options.out}")
    return
  images = open_image_set(options.source)
  images.verify()
  with Progress(f"export {options.to}", len(images), "images") as progress:
    FORMS[options.to](images, options.out, progress.advance)
  say(f"{len(images)} images in {options.out}")


if __name__ == "__main__":
  leave(main())
