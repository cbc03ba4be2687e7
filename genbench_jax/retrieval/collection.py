"""Collections of images to build pools from: folders with captions, webdataset tars, TFDS.

They are read in place. Links and names that climb out of a collection are skipped and counted.
"""

import dataclasses
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from genbench_jax.errors import UsageError
from genbench_jax.retrieval.captions import CAPTION_SUFFIXES, MAX_CAPTION_BYTES, caption_of
from genbench_jax.retrieval.place import Entry, Listing, Place
from genbench_jax.retrieval.records import INFO, RecordFile, record_files, text_of
from genbench_jax.retrieval.tars import tar_listing
from genbench_jax.runtime.printable import is_text, listed, printable
from genbench_jax.runtime.progress import say
from genbench_jax.store import files
from genbench_jax.store.digests import identity
from genbench_jax.store.image_files import ImageWalk, image_suffixes, visible
from genbench_jax.store.reading import read_beneath

Kind = Literal["images", "tar", "records", "features"]
# Feature names in TFDS's laion400m/embeddings.
IMAGE_FEATURES, TEXT_FEATURES = "image_embedding", "text_embedding"


@dataclasses.dataclass(frozen=True)
class Part:
  """Images of a collection that become one shard: a run of a folder, or one file. Listed on demand.

  Attributes:
    root: folder of the collection.
    files: images, or one file of many images.
    kind: `images`, a `tar`, `records` with one image each, or records with only `features`.
    left_out: files of the folder that are in no part; counted by the first part.
  """

  root: Path
  files: tuple[Path, ...]
  kind: Kind
  left_out: int = 0

  @property
  def name(self) -> str:
    first = printable(self.files[0].relative_to(self.root).as_posix())
    return f"{first} and {len(self.files) - 1} more" if self.kind == "images" else first

  def fingerprint(self) -> str:
    """Return a digest of the names and identities of the files and their captions, see `store.digests`."""
    paths = [*self.files]
    if self.kind == "images":
      names = (_caption_names(path.relative_to(self.root).as_posix()) for path in self.files)
      captions = dict.fromkeys(self.root / name for beside in names for name in beside.values())
      paths += filter(os.path.lexists, captions)
    about = [(p.relative_to(self.root).as_posix(), identity(p.lstat())) for p in paths]
    return files.digest(about)

  def listing(self) -> Listing:
    """List the images.

    Raises:
      RunError: a tar is damaged or compressed, or a record file cannot be read.
    """
    if self.kind == "images":
      return _folder_listing(self.root, self.files)._replace(left_out=self.left_out)
    return (tar_listing if self.kind == "tar" else _record_listing)(self.files[0])


def open_collection(path: Path, per_part: int) -> list[Part]:
  """Split a collection into parts, in name order.

  Args:
    path: a folder of images, tars or TFDS records, or a single tar.
    per_part: images per part of a folder. A tar or record file is one part, whatever its size.

  Raises:
    UsageError: there are no images.
    RunError: a record file cannot be read.
  """
  if path.is_file() and path.suffix == ".tar":
    return [Part(path.parent, (path,), "tar")]
  if not path.is_dir():
    raise UsageError(f"{str(path)!r} is neither a folder nor a .tar.")
  if tars := visible(path, "*.tar"):
    return [Part(path, (tar,), "tar") for tar in tars]
  if (path / INFO).exists():
    return _prepared_parts(path)
  return _folder_parts(path, per_part)


def _folder_parts(path: Path, per_part: int) -> list[Part]:
  """Return the parts of a folder of images; files that are not images are reported."""
  walk = ImageWalk(path, beside=CAPTION_SUFFIXES)
  # The metadata of a pool are Parquet, whose texts are UTF-8.
  images = [
    path / name
    for name in walk.images()
    if is_text(name) or walk.leave_out("names are not UTF-8", name)
  ]
  for note in walk.notes():
    say(f"{path}: {note}")
  if not images:
    raise UsageError(
      f"{path} holds neither .tar files nor images ({', '.join(sorted(image_suffixes()))})."
    )
  starts = range(0, len(images), per_part)
  left_out = sum(map(len, walk.passed.values()))
  return [
    Part(path, tuple(images[start : start + per_part]), "images", 0 if start else left_out)
    for start in starts
  ]


def _prepared_parts(folder: Path) -> list[Part]:
  """Return the parts of a TFDS dataset; its first record decides the kind."""
  paths = record_files(folder)
  files_of_some = (file for path in paths if len(file := RecordFile(path)))
  names = next((file.read([0])[0] for file in files_of_some), {})
  kind: Kind
  if {IMAGE_FEATURES, TEXT_FEATURES} <= set(names):
    kind = "features"
  elif "image" in names:
    kind = "records"
  else:
    raise UsageError(
      f"{folder} holds no records with an 'image', nor with '{IMAGE_FEATURES}' and '{TEXT_FEATURES}':"
      f" wanted a dataset such as TFDS's laion400m as ArrayRecord or TFRecord; found {sorted(names) or 'none'}."
    )
  return [Part(folder, (path,), kind) for path in paths]


def _record_listing(path: Path) -> Listing:
  file = RecordFile(path)
  entries = []
  for number in range(len(file)):
    (record,) = file.read([number])
    place, caption = Place(path, number), text_of(record, "caption")
    entries.append(Entry(f"{number:08d}", place, caption, text_of(record, "url")))
  return Listing(entries, 0)


def _folder_listing(root: Path, paths: Sequence[Path]) -> Listing:
  entries, passed = [], []
  for path in paths:
    name = path.relative_to(root).as_posix()
    beside, odd = _captions_beside(root, name)
    passed += odd
    entries.append(Entry(name, Place(path, root=root), *caption_of(beside)))
  if passed:
    say(
      f"{root}: {len(passed)} caption files left out, links, pipes or too large: {listed(passed)}."
    )
  return Listing(entries, 0)


def _captions_beside(root: Path, image: str) -> tuple[dict[str, bytes], list[str]]:
  """Return the caption files of an image by suffix, and those that must not be read."""
  found, passed = {}, []
  for ending, name in _caption_names(image).items():
    try:
      found[ending] = read_beneath(root, name, MAX_CAPTION_BYTES)
    except FileNotFoundError:
      continue
    except OSError:
      passed.append(name)
  return found, passed


def _caption_names(image: str) -> dict[str, str]:
  """Return suffix -> path of the files that may hold an image's caption."""
  stem, suffix = posixpath.splitext(image)
  stem = stem if suffix.lower() in image_suffixes() else image
  return {ending: stem + ending for ending in CAPTION_SUFFIXES}
