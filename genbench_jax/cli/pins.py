"""The checkpoints of a config, and whether they are those that it pins.

  genbench pins full

downloads them, or takes those given as folders, and prints the settings that pin them: the commit of each hub id, and the SHA-256
over configuration, tokenizer and weights. From then on a run refuses anything else. Exit status: 0, 1 where a checkpoint is not whole, 2 for a mistake in usage.
"""

import sys
from collections.abc import Sequence

from genbench_jax.cli.run import with_config
from genbench_jax.config import make_config
from genbench_jax.run import pins
from genbench_jax.runtime.command import run_command
from genbench_jax.runtime.progress import show
from genbench_jax.runtime.stopping import leave


def main(words: Sequence[str] | None = None) -> int:
  """Print the settings that pin the checkpoints of a config; return the exit status."""
  given = with_config(sys.argv[1:] if words is None else words)
  if {"--help", "-h"} & set(given):
    show(__doc__)
    return 0
  return run_command(lambda: _print_pins(given), debug="--debug" in given)


def _print_pins(words: Sequence[str]) -> int:
  from genbench_jax.cli.flags import parse

  for pin in pins(make_config(parse(["genbench pins", *words]).config)):
    show("\n".join([f"# {pin.checkpoint}", *pin.lines()]))
  return 0


if __name__ == "__main__":
  leave(main())
