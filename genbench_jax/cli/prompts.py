"""Write the prompts of all images of a config, for any program to generate.

    genbench prompts full --out prompts.jsonl --config.datasets="('cifar10',)"

A line is one image: file, class, index, prompt, negative prompt and seed. `genbench import` imports
the images.
"""

import argparse
import json
from pathlib import Path

from genbench_jax.cli.flags import add_config, with_config
from genbench_jax.cli.subcommand import subcommand
from genbench_jax.config import make_config
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.stopping import leave


def _arguments(parser: argparse.ArgumentParser) -> None:
  add_config(parser)
  parser.add_argument("--out", type=Path, required=True, help="output file, such as prompts.jsonl")


@subcommand("prompts", _arguments, __doc__, read=with_config)
def main(options: argparse.Namespace) -> None:
  """Write the list."""
  from genbench_jax.pipeline.manifest import wanted_images
  from genbench_jax.store import files

  count = 0
  with files.atomic_path(options.out) as temporary, temporary.open("w", encoding="utf-8") as file:
    for line in wanted_images(make_config(options.config), options.out.parent):
      file.write(json.dumps(line, ensure_ascii=False) + "\n")
      count += 1
  say(f"{options.out}: {count:,} images")


if __name__ == "__main__":
  leave(main())
