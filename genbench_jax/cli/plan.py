"""`genbench plan`: the work and cost of a run, without a device, the network or written files."""

import sys
from collections.abc import Sequence


def main(words: Sequence[str] | None = None) -> int:
  """Run the command; `genbench plan full` is `genbench run full --plan`. Return the exit status."""
  from genbench_jax.main import main as run

  return run(["genbench plan", *(sys.argv[1:] if words is None else words), "--plan"])
