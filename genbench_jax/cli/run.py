"""`genbench run`: run all or some stages of a config on a work folder."""

import sys
from collections.abc import Sequence


def main(words: Sequence[str] | None = None) -> int:
  """Run the command; `genbench run demo` is `--config configs/demo.py`. Return the exit status."""
  from genbench_jax.main import as_process

  return as_process(["genbench run", *(sys.argv[1:] if words is None else words)])
