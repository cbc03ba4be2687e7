"""`genbench plan`: what a run would make, take and cost. It touches no device and no network, and writes nothing."""

import sys
from collections.abc import Sequence


def main(words: Sequence[str] | None = None) -> int:
  """Run the command; `genbench plan full` is `genbench run full --plan`. Return the exit status."""
  from genbench_jax.main import main as run

  return run(["genbench plan", *(sys.argv[1:] if words is None else words), "--plan"])
