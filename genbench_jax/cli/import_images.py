"""Import images that another program generated from a list of `genbench prompts`.

    genbench import my_images/ --prompts prompts.jsonl --name flux --out imported/
    genbench evaluate flux=imported/flux/cifar10/defined_template-seed0 --dataset cifar10 --workdir out

Files have the names of the list, with any image suffix. Missing, damaged, duplicate and unwanted
images are reported. Run the command again to import images that were generated since. Exit status:
0 if all images are imported, 1 if not, 2 for a usage error.
"""

import argparse
from pathlib import Path

from genbench_jax.cli.subcommand import subcommand
from genbench_jax.runtime.progress import say, show
from genbench_jax.runtime.stopping import leave


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("folder", type=Path, help="folder of the images, named as in the list")
  parser.add_argument(
    "--prompts", type=Path, required=True, metavar="FILE", help="list of `genbench prompts`"
  )
  parser.add_argument("--name", required=True, help="name of the generator")
  parser.add_argument(
    "--out", type=Path, default=Path("imported"), help="destination of the image sets"
  )


@subcommand("import", _arguments, __doc__)
def main(options: argparse.Namespace) -> int:
  """Import the images and report problems.

  Raises:
    UsageError: the name of the generator has other characters than those allowed.
  """
  from genbench_jax.config import FOLDER_NAME
  from genbench_jax.errors import UsageError
  from genbench_jax.pipeline.manifest import read_manifest, take_images

  if not FOLDER_NAME.fullmatch(options.name):
    raise UsageError(
      f"invalid name {options.name!r}: use letters, digits, spaces, '_', '.' and '-'."
    )
  wanted = read_manifest(options.prompts)
  taken = take_images(options.folder, wanted, options.out / options.name)
  show(f"{taken.count:,} of {len(wanted):,} images of {options.name} are imported.")
  for folder in taken.folders:
    show(f"  {options.name}={folder}")
  for words in taken.words():
    say(words)
  return 0 if taken.is_whole else 1


if __name__ == "__main__":
  leave(main())
