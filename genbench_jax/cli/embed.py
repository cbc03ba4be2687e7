"""The command that makes a pool for retrieval from your own images.

  python -m genbench_jax.embed my_images/ --out pool/ --checkpoint openai/clip-vit-base-patch32
  python -m genbench_jax.embed laion/ --out pool/     # a folder of webdataset tars, read in place
  python -m genbench_jax.embed ~/tensorflow_datasets/laion400m/embeddings/1.0.0 --out pool/

Of a dataset that TFDS prepared, records with an image are embedded, and records that are features alone copied. Captions are taken from beside the images (`a.jpg` and `a.txt`, `a.caption` or `a.json`). The pool has clip-retrieval's layout. Stop
it whenever you like: the same command goes on with the shard where it was. Exit status: 0, 1 for a failed run, 2 for a
mistake in usage.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from genbench_jax.errors import UsageError
from genbench_jax.runtime.command import command
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.stopping import leave


@command
def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command and returns its exit status."""
  options = _parser().parse_args(arguments)
  _run(options)
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m genbench_jax.embed",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "collection", help="folder of images, of tars, or of a dataset by TFDS; or a tar"
  )
  parser.add_argument("--out", required=True, help="folder of the pool")
  parser.add_argument("--checkpoint", default="zoo/clip", help="a CLIP: folder or hub id")
  parser.add_argument("--revision", default="", help="commit, tag or branch of a hub id")
  parser.add_argument("--shard-size", type=int, default=10_000, help="images of a folder a shard")
  parser.add_argument("--batch-per-device", type=int, default=64)
  return parser


def _run(options: argparse.Namespace) -> None:
  if options.shard_size < 1 or options.batch_per_device < 1:
    raise UsageError("--shard-size and --batch-per-device must be at least 1.")
  from genbench_jax.models.clip import load_clip
  from genbench_jax.retrieval.collection import open_collection
  from genbench_jax.runtime.jax_start import start_jax
  from genbench_jax.store.workdir import locked

  parts = open_collection(Path(options.collection).expanduser(), options.shard_size)
  start_jax()
  from genbench_jax.retrieval.build import build_pool
  from genbench_jax.runtime.mesh import data_mesh

  out = Path(options.out).expanduser()
  with locked(out):
    features = parts[0].kind == "features"  # by whichever CLIP: ours has nothing to do
    clip = None if features else load_clip(options.checkpoint, options.revision or None)
    if not build_pool(parts, out, clip, data_mesh(), options.batch_per_device):
      say("embed: nothing to do")


if __name__ == "__main__":
  leave(main())
