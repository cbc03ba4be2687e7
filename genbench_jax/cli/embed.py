"""Make a pool for retrieval from images.

    genbench embed my_images/ --out pool/ --checkpoint openai/clip-vit-base-patch32
    genbench embed laion/ --out pool/     # a folder of webdataset tars, read in place
    genbench embed ~/tensorflow_datasets/laion400m/embeddings/1.0.0 --out pool/

From a dataset that TFDS prepared, records with an image are embedded and records with features only
are copied. Captions are read from files beside the images (`a.jpg` and `a.txt`, `a.caption` or
`a.json`). The pool has clip-retrieval's layout. If the command is stopped, run it again to continue
with the next shard. Exit status: 0 for success, 1 for a failed run, 2 for a usage error.
"""

import argparse
from pathlib import Path

from genbench_jax.cli.argument_types import positive
from genbench_jax.cli.subcommand import subcommand
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.stopping import leave


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("collection", help="folder of images, tars or a TFDS dataset; or a tar")
  parser.add_argument("--out", required=True, help="folder of the pool")
  parser.add_argument("--checkpoint", default="zoo/clip", help="a CLIP or SigLIP: folder or hub id")
  parser.add_argument("--revision", default="", help="commit, tag or branch of a hub id")
  parser.add_argument(
    "--shard-size", type=positive, default=10_000, help="images per shard of a folder"
  )
  parser.add_argument("--batch-per-device", type=positive, default=64)


@subcommand("embed", _arguments, __doc__)
def main(options: argparse.Namespace) -> None:
  """Make the pool, or continue it."""
  from genbench_jax.models.image_encoder import load_text_encoder
  from genbench_jax.retrieval.collection import open_collection
  from genbench_jax.runtime.jax_start import start_jax
  from genbench_jax.store.workdir import locked

  parts = open_collection(Path(options.collection).expanduser(), options.shard_size)
  start_jax()
  from genbench_jax.retrieval.build import build_pool
  from genbench_jax.runtime.mesh import data_mesh

  out = Path(options.out).expanduser()
  with locked(out):
    features = parts[0].kind == "features"  # features of any encoder: nothing to embed
    encoder = None if features else load_text_encoder(options.checkpoint, options.revision or None)
    if not build_pool(parts, out, encoder, data_mesh(), options.batch_per_device):
      say("embed: nothing to do")


if __name__ == "__main__":
  leave(main())
