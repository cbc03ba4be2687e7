"""The checkpoints of a config, and whether they are those that it pins.

  python -m genbench_jax.pins --config configs/full.py

downloads them, or takes those given as folders, and prints the settings that pin them: the commit of each hub id, and the SHA-256
over configuration, tokenizer and weights. From then on a run refuses anything else. Exit status: 0, 1 where a checkpoint is not whole, 2 for a mistake in usage.
"""

import sys
from collections.abc import Sequence

from genbench_jax.config import make_config
from genbench_jax.run import pins
from genbench_jax.runtime.command import command
from genbench_jax.runtime.progress import show
from genbench_jax.runtime.stopping import leave


@command
def main(argv: Sequence[str]) -> int:
  """Prints the settings that pin the checkpoints of a config; returns the exit status."""
  from genbench_jax.cli.flags import parse

  if {"--help", "-h"} & set(argv[1:]):
    show(__doc__)
    return 0
  for pin in pins(make_config(parse(argv).config)):
    show("\n".join([f"# {pin.checkpoint}", *pin.lines()]))
  return 0


if __name__ == "__main__":
  leave(main(sys.argv))
