"""`python -m genbench_jax`, the same as `genbench`."""

import sys

from genbench_jax.runtime.stopping import leave


def main() -> None:
  """Run the command as a process."""
  from genbench_jax.cli.genbench import main as genbench

  leave(genbench(sys.argv[1:]))


if __name__ == "__main__":
  main()
