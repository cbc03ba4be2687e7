"""Write image sets and features for other tools.

Image sets are in WORKDIR/images/DATASET, features in WORKDIR/embeddings/DATASET.
imagefolder: class folders and metadata.csv. hf: the same for Hugging Face datasets.
webdataset: tar shards. npz: mu, sigma, features and labels of a file of features.
`genbench evaluate` reads the first three.
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
  parser.add_argument("source", type=Path, help="image set, or file of features for npz")
  parser.add_argument("--to", choices=(*FORMS, "npz"), required=True, help="output format")
  parser.add_argument("out", type=Path, help="new folder, or new file for npz")
  parser.add_argument("--unit-norm", action="store_true", help="for npz: normalize features")


@subcommand("export", _arguments, __doc__)
def main(options: argparse.Namespace) -> None:
  """Write the export and print its size."""
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
