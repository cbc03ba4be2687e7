"""Print the settings that pin the checkpoints of a config.

  genbench pins full

downloads the checkpoints, or reads those given as folders, and prints the commit of each hub id and the SHA-256 over
configuration, tokenizer and weights. With these settings a run refuses any other checkpoint. Exit status: 0; 1 where a
checkpoint is incomplete; 2 for a mistake in usage.
"""

import argparse

from genbench_jax.cli.flags import add_config, with_config
from genbench_jax.cli.subcommand import subcommand
from genbench_jax.config import make_config
from genbench_jax.run import pins
from genbench_jax.runtime.progress import show
from genbench_jax.runtime.stopping import leave


@subcommand("pins", add_config, __doc__, read=with_config)
def main(options: argparse.Namespace) -> None:
  """Print the pins of every checkpoint."""
  for pin in pins(make_config(options.config)):
    show("\n".join([f"# {pin.checkpoint}", *pin.lines()]))


if __name__ == "__main__":
  leave(main())
