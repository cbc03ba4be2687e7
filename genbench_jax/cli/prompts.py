"""Write a list of every image that a config wants, for any program to make.

  genbench prompts full --out prompts.jsonl --config.datasets="('cifar10',)"

A line is one image: file, class, index, prompt, negative prompt and seed. `genbench import` takes the images in.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from genbench_jax.cli.run import with_config
from genbench_jax.errors import UsageError
from genbench_jax.runtime.command import run_command
from genbench_jax.runtime.progress import say, show
from genbench_jax.runtime.stopping import leave


def main(words: Sequence[str] | None = None) -> int:
  """Write the list; return the exit status."""
  given = with_config(sys.argv[1:] if words is None else words)
  if {"--help", "-h"} & set(given):
    show(f"usage: genbench prompts CONFIG --out FILE [--config.SETTING=VALUE ...]\n\n{__doc__}")
    return 0
  return run_command(lambda: _write(given), debug="--debug" in given)


def _write(words: Sequence[str]) -> int:
  import json

  from genbench_jax.cli.flags import parse
  from genbench_jax.config import make_config
  from genbench_jax.pipeline.manifest import wanted_images
  from genbench_jax.store import files

  rest, out = _without_out(words)
  config = make_config(parse(["genbench prompts", *rest]).config)
  count = 0
  with files.atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as file:
    for line in wanted_images(config, out.parent):
      file.write(json.dumps(line, ensure_ascii=False) + "\n")
      count += 1
  say(f"{out}: {count:,} images")
  return 0


def _without_out(words: Sequence[str]) -> tuple[list[str], Path]:
  """The words without `--out FILE`, and the file."""
  rest = list(words)
  for at, word in enumerate(rest):
    if word.startswith("--out="):
      return rest[:at] + rest[at + 1 :], Path(word.removeprefix("--out="))
    if word == "--out" and at + 1 < len(rest):
      return rest[:at] + rest[at + 2 :], Path(rest[at + 1])
  raise UsageError("no file given. Say where the list goes: --out prompts.jsonl.")


if __name__ == "__main__":
  leave(main())
