"""A pinned checkpoint: refused when its files are not those that the config names."""

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints
from genbench_jax.models.image_encoder import named_place

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
    """Where it stands on this machine, downloaded if need be; a file for some encoders."""
    place = named_place(self.checkpoint, self.revision or None)
    if place is not None:
      return place
    return checkpoints.locate(self.checkpoint, self.revision or None, self.downloads)

  def fingerprint(self) -> str:
    """SHA-256 of the checkpoint.

    Raises:
      RunError: it is another one than the config pins.
    """
    found = self._digest()
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
    yield f'{self.settings[1]} = "{self._digest()}"'

  def _digest(self) -> str:
    """SHA-256 of the folder or file, or of the name where there is nothing to load."""
    place = self.folder()
    if place == Path():
      return hashlib.sha256(self.checkpoint.encode()).hexdigest()
    return checkpoints.fingerprint(place)
