"""Pinned checkpoints: rejected if their files are not those that the config names."""

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

from genbench_jax.errors import RunError
from genbench_jax.models import checkpoints, lora
from genbench_jax.models.image_encoder import named_place

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclasses.dataclass(frozen=True)
class Pin:
  """A checkpoint as a config names it. Pins are equal if they accept the same files.

  Attributes:
    checkpoint: folder or hub id.
    revision: revision of a hub id; empty for the newest.
    sha256: expected fingerprint; empty accepts any.
    downloads: patterns of the files to download from a hub id.
    prefixes: beginnings of the config's settings for revision and checksum, such as
      `config.encoder.`; more than one if several sections name the checkpoint.
    part: the subfolder that is read, if the checkpoint has it.
  """

  checkpoint: str
  revision: str
  sha256: str
  downloads: tuple[str, ...]
  prefixes: tuple[str, ...] = dataclasses.field(compare=False)
  part: str = ""

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
    _refuse_another(
      f"checkpoint {self.checkpoint!r}", found, self.sha256, f"{self.prefixes[0]}sha256"
    )
    return found

  def lines(self) -> Iterator[str]:
    """Yield the lines of a config that pin the checkpoint as it is now."""
    folder, digest = self.folder(), self._digest()
    # The hub's cache names the folder of a download by its commit.
    from_hub = not Path(self.checkpoint).expanduser().is_dir() and COMMIT.fullmatch(folder.name)
    for prefix in self.prefixes:
      if from_hub:
        yield f'{prefix}revision = "{folder.name}"'
      yield f'{prefix}sha256 = "{digest}"'

  def _digest(self) -> str:
    """Return the SHA-256 of the folder or file, or of the name if there is nothing to load."""
    place = self.folder()
    if place == Path():
      return hashlib.sha256(self.checkpoint.encode()).hexdigest()
    inner = place / self.part
    return checkpoints.fingerprint(inner if inner.is_dir() else place)


@dataclasses.dataclass(frozen=True)
class LoraPin:
  """The LoRA files of a generator, which have one setting for all checksums.

  Attributes:
    files: the files as the config names them.
    sha256: expected checksums of the files; empty accepts any.
    prefixes: as in `Pin`.
  """

  files: tuple[str, ...]
  sha256: tuple[str, ...]
  prefixes: tuple[str, ...] = dataclasses.field(compare=False)

  @property
  def checkpoint(self) -> str:
    """The files, for messages."""
    return ", ".join(self.files)

  def fingerprint(self) -> str:
    """Return a digest of the files.

    Raises:
      RunError: a file is not the one that the config pins.
    """
    found = self._digests()
    for file, digest, wanted in zip(self.files, found, self.sha256 or found, strict=True):
      _refuse_another(f"LoRA {file!r}", digest, wanted, f"{self.prefixes[0]}lora_sha256")
    return hashlib.sha256(" ".join(found).encode()).hexdigest()

  def lines(self) -> Iterator[str]:
    """Yield the lines of a config that pin the files as they are now."""
    quoted = " ".join(f'"{digest}",' for digest in self._digests())
    for prefix in self.prefixes:
      yield f"{prefix}lora_sha256 = ({quoted})"

  def _digests(self) -> tuple[str, ...]:
    return tuple(checkpoints.file_digest(lora.lora_file(file)) for file in self.files)


AnyPin: TypeAlias = Pin | LoraPin


def distinct(pins: Iterable[AnyPin]) -> Iterator[AnyPin]:
  """Yield equal pins once, with the prefixes of all of them."""
  found: dict[AnyPin, AnyPin] = {}
  for pin in pins:
    prefixes = (*found[pin].prefixes, *pin.prefixes) if pin in found else pin.prefixes
    found[pin] = dataclasses.replace(pin, prefixes=prefixes)
  yield from found.values()


def _refuse_another(what: str, found: str, pinned: str, setting: str) -> None:
  if pinned and pinned.lower() != found:
    raise RunError(
      f"the {what} has SHA-256 {found}, but {setting} is {pinned}: it is damaged or not the one that was pinned."
    )
