"""Compute FID and KID between two sets of images, comparable with papers.

    genbench fid generated/ real/
    genbench fid generated/ real_statistics.npz --resize legacy
    genbench fid real/ generated/ --save real_statistics.npz   # saves those of real/

A set is a folder of images, with any subfolders, or an .npz of `mu` and `sigma` as pytorch-fid and
clean-fid write it. Features are Inception-v3's. `inception:FILE.safetensors` names its weights on
disk (tools/convert_inception.py converts the original archive). Other encoders can be named
instead. The output ends with the SHA-256 of the weights; `--sha256` rejects any others.
"""

import argparse
import json
from pathlib import Path

from genbench_jax.cli.argument_types import positive
from genbench_jax.cli.subcommand import subcommand
from genbench_jax.runtime.printable import printable
from genbench_jax.runtime.progress import show
from genbench_jax.runtime.stopping import leave


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("first", help="folder of images, or .npz of statistics")
  parser.add_argument("second", help="folder of images, or .npz of statistics")
  parser.add_argument(
    "--encoder", default="inception", help="inception, inception:FILE, or a CLIP or DINOv2"
  )
  parser.add_argument("--revision", help="commit, tag or branch of an encoder from the hub")
  parser.add_argument("--sha256", default="", help="expected SHA-256 of the encoder's weights")
  parser.add_argument(
    "--resize",
    choices=("clean", "legacy"),
    help="resizing of clean-fid (default) or of the original",
  )
  parser.add_argument(
    "--save", type=Path, metavar="FILE", help="write the statistics of the first set to an .npz"
  )
  parser.add_argument("--by-class", action="store_true", help="the FID of each subfolder, too")
  parser.add_argument("--batch-per-device", type=positive, default=32)
  parser.add_argument("--json", action="store_true", help="print JSON instead of text")


@subcommand("fid", _arguments, __doc__)
def main(options: argparse.Namespace) -> None:
  """Print the distances."""
  from genbench_jax.runtime.jax_start import start_jax

  start_jax()
  from genbench_jax.metrics.class_distances import FEWEST
  from genbench_jax.pipeline.fid import fid_between_folders

  found = fid_between_folders(
    options.first, options.second, options.encoder, options.resize, options.batch_per_device, options.save,
    options.revision, options.sha256,
  )  # fmt: skip
  kid = None if found.kid is None else found.kid.mean
  if options.json:
    about = {
      "fid": found.fid,
      "kid": kid,
      "images": found.images,
      "encoder": found.encoder,
      "resize": found.resize,
      "sha256": found.fingerprint,
      "fd_infinity": found.fd_infinity,
      "by_class": dict(found.by_class),
    }
    show(json.dumps(about))
    return
  counts = " and ".join(f"{count:,} images" if count else "statistics" for count in found.images)
  show(f"FID {found.fid:.3f}   ({counts}, {found.encoder}, {found.resize} resizing)")
  if found.kid is not None:
    show(f"KID x 1000 {1000 * found.kid.mean:.3f} ± {1000 * found.kid.std:.3f}")
  if found.fd_infinity is not None:
    show(f"FID of infinitely many images {found.fd_infinity:.3f}")
  for name, value in found.by_class.items() if options.by_class else ():
    show(f"  {printable(name)}: FID {value:.3f}")
  if options.by_class and not found.by_class:
    show(f"  no class: no subfolder has the same name and at least {FEWEST} images on both sides.")
  show(f"weights: SHA-256 {found.fingerprint}")


if __name__ == "__main__":
  leave(main())
