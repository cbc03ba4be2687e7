"""Pinned checkpoints: rejected if their files are not those that the config names."""

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
  """A checkpoint as a config names it.

  Attributes:
    checkpoint: folder or hub id.
    revision: revision of a hub id; empty for the newest.
    sha256: expected fingerprint; empty accepts any.
    downloads: patterns of the files to download from a hub id.
    settings: names of the config's settings for revision and checksum.
  """

  checkpoint: str
  revision: str
  sha256: str
  downloads: tuple[str, ...]
  settings: tuple[str, str]

  def folder(self) -> Path:
    """Return the local folder (or file), downloaded if necessary."""
    place = named_place(self.checkpoint, self.revision or None)
    if place is not None:
      return place
    if checkpoints.is_single_file(self.checkpoint):
      return Path(self.checkpoint).expanduser()
    return checkpoints.locate(self.checkpoint, self.revision or None, self.downloads)

  def fingerprint(self) -> str:
    """Return the SHA-256 of the checkpoint.

    Raises:
      RunError: it differs from the one that the config pins.
    """
    found = self._digest()
    if self.sha256 and self.sha256.lower() != found:
      raise RunError(
        f"the checkpoint {self.checkpoint!r} has SHA-256 {found}, but {self.settings[1]} is {self.sha256}: the checkpoint is damaged"
        " or not the one that was pinned."
      )
    return found

  def lines(self) -> Iterator[str]:
    """Yield the lines of a config that pin the checkpoint as it is now."""
    folder = self.folder()
    # The hub's cache names the folder of a download by its commit.
    if not Path(self.checkpoint).expanduser().is_dir() and COMMIT.fullmatch(folder.name):
      yield f'{self.settings[0]} = "{folder.name}"'
    yield f'{self.settings[1]} = "{self._digest()}"'

  def _digest(self) -> str:
    """Return the SHA-256 of the folder or file, or of the name if there is nothing to load."""
    place = self.folder()
    if place == Path():
      return hashlib.sha256(self.checkpoint.encode()).hexdigest()
    return checkpoints.fingerprint(place)
