"""Take in images that another program has made of a list by `genbench prompts`.

  genbench import my_images/ --prompts prompts.jsonl --name flux --out imported/
  genbench evaluate flux=imported/flux/cifar10/defined_template-seed0 --dataset cifar10 --workdir out

Files have the names that the list gives them, with any suffix of an image. What is missing, damaged, twice or not asked for is
told; the same command takes what has been made since. Exit status: 0 if all are there, 1 if not, 2 for a mistake in usage.
"""

import argparse
from pathlib import Path

from genbench_jax.cli.subcommand import subcommand
from genbench_jax.runtime.progress import say, show
from genbench_jax.runtime.stopping import leave


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("folder", type=Path, help="the images, by the names that the list gives them")
  parser.add_argument("--prompts", type=Path, required=True, metavar="FILE", help="the list")
  parser.add_argument("--name", required=True, help="of the generator")
  parser.add_argument("--out", type=Path, default=Path("imported"), help="where the sets go")


@subcommand("import", _arguments, __doc__)
def main(options: argparse.Namespace) -> int:
  """Take the images in and say what is missing."""
  from genbench_jax.config import FOLDER_NAME
  from genbench_jax.errors import UsageError
  from genbench_jax.pipeline.manifest import read_manifest, take_images

  if not FOLDER_NAME.fullmatch(options.name):
    raise UsageError(f"the name {options.name!r} must be of letters, digits, '_', '.' and '-'.")
  wanted = read_manifest(options.prompts)
  taken = take_images(options.folder, wanted, options.out / options.name)
  show(f"{taken.count:,} of {len(wanted):,} images of {options.name} are there.")
  for folder in taken.folders:
    show(f"  {options.name}={folder}")
  if words := taken.words():
    say(words)
  return 0 if taken.is_whole else 1


if __name__ == "__main__":
  leave(main())
