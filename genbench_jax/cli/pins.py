"""Print the settings that pin the checkpoints of a config.

    genbench pins full

The command downloads the checkpoints, or reads those given as folders, and prints the commit of each hub id and
the SHA-256 over configuration, tokenizer and weights. With these settings a run rejects any other
checkpoint. A checkpoint that cannot be downloaded gets a line with the reason (gated, withdrawn, no
such revision, no network) and a mirror if one is known; the others are still printed. Exit status:
0 for success, 1 if a checkpoint is missing or incomplete, 2 for a usage error.
"""

import argparse

from genbench_jax.cli.flags import add_config, with_config
from genbench_jax.cli.subcommand import subcommand
from genbench_jax.config import make_config
from genbench_jax.errors import RunError, UsageError
from genbench_jax.run import pins
from genbench_jax.runtime.command import say_error
from genbench_jax.runtime.progress import show
from genbench_jax.runtime.stopping import leave


@subcommand("pins", add_config, __doc__, read=with_config)
def main(options: argparse.Namespace) -> int:
  """Print the pins of every checkpoint."""
  status = 0
  for pin in pins(make_config(options.config)):
    try:
      show("\n".join([f"# {pin.checkpoint}", *pin.lines()]))
    except (UsageError, RunError) as error:
      say_error(error)  # continue, because the other pins are useful
      status = 1
  return status


if __name__ == "__main__":
  leave(main())
