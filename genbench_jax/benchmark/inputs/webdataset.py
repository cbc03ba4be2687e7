"""Webdataset shards: files with the same key are an example, an image with its class in `.cls` or `.json`."""

import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.benchmark.inputs.image_list import CLASS_COLUMNS, ImageList, column_among
from genbench_jax.benchmark.inputs.members import Member, PassedOver, notes_on
from genbench_jax.errors import UsageError
from genbench_jax.store.image_files import first_key, image_suffixes, is_hidden, key_and_suffix

_MOST_TEXT = 1 << 20
# Suffixes of files beside an image.
_BESIDE = (".cls", ".json", ".txt")


def is_webdataset(members: Sequence[Member]) -> bool:
  """Return whether files with a class have the same key as an image.

  Class folders may contain JSON beside images, too, such as the settings of a generator.
  """
  if any("/" in posixpath.normpath(member.name) for member in members):
    return any(name is not None for _, name in _examples(members[:4096]))
  split = [(member.name, *key_and_suffix(member.name, _BESIDE)) for member in members[:4096]]
  described = {key for _, key, suffix in split if suffix in (".cls", ".json")}
  images = [(name, key) for name, key, suffix in split if suffix in image_suffixes()]
  return any(key in described or first_key(name) in described for name, key in images)


class _Example:
  """The files of a key in a shard, by suffix."""

  def __init__(self, key: str) -> None:
    self.key, self.parts = key, dict[str, Member]()

  @property
  def images(self) -> list[Member]:
    return [part for suffix, part in self.parts.items() if suffix in image_suffixes()]


def _examples(members: Sequence[Member]) -> Iterator[tuple[_Example, str | None]]:
  """Yield the examples of shards that have an image, each with its class.

  The class of `0001.image.png` may be in `0001.cls`, if `0001` has no image of its own; it is given to one
  image only.
  """
  found: list[_Example] = []
  current: dict[tuple[Path, str], _Example] = {}
  for member in members:
    key, suffix = key_and_suffix(member.name, _BESIDE)
    example = current.get((member.archive, key))
    if example is None or suffix in example.parts:  # a key may be repeated
      example = current[member.archive, key] = _Example(key)
      found.append(example)
    example.parts[suffix] = member
  given = set[int]()
  for example in found:
    if example.images:
      image, name = example.images[0], _class_name(example.parts)
      first = current.get((image.archive, first_key(image.name)))
      if name is None and first and not first.images and id(first) not in given:
        given.add(id(first))
        name = _class_name(first.parts)
      yield example, name


def webdataset_images(root: Path, members: Sequence[Member], passed: PassedOver) -> ImageList:
  """Return the images of shards that have a class.

  Args:
    root: the file, or the folder of the files.
    members: files in the shards.
    passed: members that are skipped already.

  Raises:
    UsageError: no image has a class.
  """
  visible = [member for member in members if not is_hidden(member.name)]
  found: list[tuple[str, Member]] = []
  left_out: PassedOver = defaultdict(list, passed)
  for example, name in _examples(visible):
    image, *others = example.images
    if name is None:
      left_out["without a class"].append(image.name)
    else:
      found.append((name, image))
    for other in others:
      left_out["not the first image of their key"].append(other.name)
  if not found:
    raise UsageError(
      f"{root} has no image with a class; expected KEY.jpg with KEY.cls or KEY.json."
    )
  return ImageList(
    root,
    [image.name for _, image in found],
    [(name,) for name, _ in found],
    [(image.archive.parent, image.archive.name) for _, image in found],
    list(range(len(found))),
    lambda index: found[index][1].read(),
    tuple(notes_on(left_out)),
    tuple(dict.fromkeys(name for name, _ in found)),
  )


def _class_name(parts: dict[str, Member]) -> str | None:
  """Return the class of an example: a name from its JSON, otherwise the content of `.cls`, a name or an index."""
  about = _json(parts.get(".json"))
  values = {k: v[0] if isinstance(v, list) and v else v for k, v in about.items()}
  given = [k for k, v in values.items() if isinstance(v, (str, int)) and str(v).strip()]
  if (column := column_among(given, CLASS_COLUMNS)) is not None:
    return str(values[column]).strip()
  if ".cls" in parts and parts[".cls"].size <= _MOST_TEXT:
    text = parts[".cls"].read().decode("utf-8", "replace").strip()
    # Of several space-separated class indices, the first one is used.
    return text.split()[0] if re.fullmatch(r"[\d\s]+", text) else text or None
  return None


def _json(member: Member | None) -> dict[str, Any]:
  if member is None or member.size > _MOST_TEXT:
    return {}
  try:
    value = json.loads(member.read())
  except (ValueError, RecursionError):
    return {}
  return value if isinstance(value, dict) else {}
