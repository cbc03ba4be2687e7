"""`genbench run`: a config on a work folder, all stages or some."""

import sys
from collections.abc import Sequence


def main(words: Sequence[str] | None = None) -> int:
  """Run the command; `genbench run demo` is `--config configs/demo.py`. Return the exit status."""
  from genbench_jax.main import as_process

  return as_process(["genbench run", *with_config(sys.argv[1:] if words is None else words)])


def with_config(words: Sequence[str]) -> list[str]:
  """Return the words with a config that is named first given as a flag."""
  if words and not words[0].startswith("-"):
    return ["--config", *words]
  return list(words)
