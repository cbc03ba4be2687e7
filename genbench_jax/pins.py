"""The checkpoints of a config, and whether they are those that it pins.

  python -m genbench_jax.pins --config configs/full.py

downloads them, or takes those given as folders, and prints the settings that pin them: the commit of each hub id, and the SHA-256
over configuration, tokenizer and weights. From then on a run refuses anything else. Exit status: 0, 1 where a checkpoint is not whole, 2 for a mistake in usage.
"""

import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from genbench_jax import checkpoints
from genbench_jax.config import Config, make_config
from genbench_jax.errors import RunError, UsageError
from genbench_jax.progress import say

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclasses.dataclass(frozen=True)
class Pin:
  """A checkpoint as a config asks for it.

  Attributes:
    checkpoint: folder or hub id.
    revision: of a hub id; empty is its newest.
    sha256: the fingerprint that it must have; empty admits any.
    downloads: patterns of the files that are needed of a hub id.
    settings: the names of the settings for revision and checksum.
  """

  checkpoint: str
  revision: str
  sha256: str
  downloads: tuple[str, ...]
  settings: tuple[str, str]

  def folder(self) -> Path:
    """Where it stands on this machine, downloaded if need be."""
    return checkpoints.locate(self.checkpoint, self.revision or None, self.downloads)

  def fingerprint(self) -> str:
    """SHA-256 of the checkpoint.

    Raises:
      RunError: it is another one than the config pins.
    """
    found = checkpoints.fingerprint(self.folder())
    if self.sha256 and self.sha256.lower() != found:
      raise RunError(
        f"the checkpoint {self.checkpoint!r} has SHA-256 {found}, and {self.settings[1]} wants {self.sha256}: it is damaged,"
        " or another one than was pinned."
      )
    return found

  def lines(self) -> Iterator[str]:
    """The settings that pin what stands there now."""
    folder = self.folder()
    # The hub's cache calls the folder of a download by its commit.
    if not Path(self.checkpoint).expanduser().is_dir() and COMMIT.fullmatch(folder.name):
      yield f'{self.settings[0]} = "{folder.name}"'
    yield f'{self.settings[1]} = "{checkpoints.fingerprint(folder)}"'


def diffusion_pin(config: Config) -> Pin:
  """The model that makes images."""
  from genbench_jax.diffusion.model import DOWNLOADS

  asked = config.generation
  return Pin(asked.checkpoint, asked.revision, asked.sha256, DOWNLOADS, _settings("generation"))


def encoder_pin(config: Config) -> Pin:
  """The CLIP that measures."""
  from genbench_jax.clip.model import DOWNLOADS

  asked = config.encoder
  return Pin(asked.checkpoint, asked.revision, asked.sha256, DOWNLOADS, _settings("encoder"))


def feature_pin(config: Config) -> Pin:
  """The second encoder, on whose features is measured what needs no text; its name is empty where there is none."""
  from genbench_jax.clip.model import DOWNLOADS

  asked = config.scoring
  return Pin(
    asked.feature_checkpoint,
    asked.feature_revision,
    asked.feature_sha256,
    DOWNLOADS,
    _settings("scoring.feature", "_"),
  )


def judge_pin(config: Config) -> Pin:
  """The CLIP that chooses among candidates."""
  from genbench_jax.clip.model import DOWNLOADS

  asked = config.selection
  return Pin(asked.checkpoint, asked.revision, asked.sha256, DOWNLOADS, _settings("selection"))


def sentence_pin(config: Config) -> Pin:
  """The T5 that writes sentences."""
  from genbench_jax.prompts.keyword_to_sentence import DOWNLOADS

  asked = config.prompts
  return Pin(
    asked.sentence_model,
    asked.sentence_revision,
    asked.sentence_sha256,
    DOWNLOADS,
    _settings("prompts.sentence", "_"),
  )


def _settings(section: str, joint: str = ".") -> tuple[str, str]:
  return f"config.{section}{joint}revision", f"config.{section}{joint}sha256"


def pins(config: Config) -> Iterator[Pin]:
  """All checkpoints that a run of the config reads."""
  if "generative" in config.sources:
    yield diffusion_pin(config)
  yield encoder_pin(config)
  if config.scoring.feature_checkpoint:
    yield feature_pin(config)
  if config.selection.method == "clip":
    yield judge_pin(config)
  if config.prompts.sentence_model:
    yield sentence_pin(config)


def main(argv: Sequence[str]) -> int:
  """Prints the settings that pin the checkpoints of a config; returns the exit status."""
  from genbench_jax.main import parse

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
