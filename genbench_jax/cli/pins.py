"""The checkpoints of a config, and whether they are those that it pins.

  python -m genbench_jax.pins --config configs/full.py

downloads them, or takes those given as folders, and prints the settings that pin them: the commit of each hub id, and the SHA-256
over configuration, tokenizer and weights. From then on a run refuses anything else. Exit status: 0, 1 where a checkpoint is not whole, 2 for a mistake in usage.
"""

import sys
from collections.abc import Sequence

from genbench_jax.config import make_config
from genbench_jax.errors import RunError, UsageError
from genbench_jax.run import pins
from genbench_jax.runtime.progress import say


def main(argv: Sequence[str]) -> int:
  """Prints the settings that pin the checkpoints of a config; returns the exit status."""
  from genbench_jax.cli.flags import parse

  if {"--help", "-h"} & set(argv[1:]):
    print(__doc__)
    return 0
  try:
    for pin in pins(make_config(parse(argv).config)):
      print("\n".join([f"# {pin.checkpoint}", *pin.lines()]))
  except (UsageError, RunError) as error:
    say(f"error: {error}")
    return 2 if isinstance(error, UsageError) else 1
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv))
