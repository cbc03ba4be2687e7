"""Lists of prompts for images by other programs, and the import of these images.

A line of the list describes one image: class, index, prompt, negative prompt, seed and file. Any
program on any machine can generate them, in any order and in several sessions. The import checks
the images against the list.
"""

import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from genbench_jax.cells import ImageSetKey, image_sets
from genbench_jax.config import Config
from genbench_jax.errors import UsageError
from genbench_jax.run import Run
from genbench_jax.runtime.printable import listed
from genbench_jax.runtime.progress import Progress
from genbench_jax.sources import prompting
from genbench_jax.sources.generative import with_negatives
from genbench_jax.sources.index_space import class_shot, image_keys
from genbench_jax.store import files
from genbench_jax.store.image_files import MOST_BYTES, ImageWalk, image_formats, image_suffixes
from genbench_jax.store.image_pixels import to_rgb
from genbench_jax.store.reading import read_beneath, read_file

METADATA = "metadata.jsonl"
_MOST_LIST_BYTES = 1 << 32
_NAME = re.compile(r"[A-Za-z0-9_+-]+")
_KEYS = (
  "file",
  "dataset",
  "set",
  "index",
  "class",
  "class_index",
  "prompt",
  "negative_prompt",
  "seed",
)


def wanted_images(config: Config, workdir: Path) -> Iterator[dict[str, Any]]:
  """Yield the description of every image that a config generates, set by set in index order.

  Prompts are not truncated, since text encoders of other programs may differ. The seed of an image
  is derived from its key and does not depend on the number of images.

  Args:
    config: a config with the source `generative`; sets with learned tokens are skipped, because no
      other program has these tokens.
    workdir: folder for sentences that a model writes.

  Raises:
    UsageError: the config generates nothing.
  """
  run = Run(config, workdir)
  keys = [key for key in image_sets(config) if key.source == "generative" and not key.references]
  if not keys:
    raise UsageError("the config generates no images: 'generative' is not among its sources.")
  for key in keys:
    yield from _of_set(run.of(key), key)


def _of_set(run: Run, key: ImageSetKey) -> Iterator[dict[str, Any]]:
  spec = run.config.spec(key.dataset)
  prompting.write_class_sentences(run, key)
  sentences = prompting.class_sentences(run, key)
  written = prompting.prompts_of_set(
    run.config, key, run.per_class, lambda text: True, sentences, spec.names
  )
  prompts = with_negatives(written, run.config.generation)
  places = [
    class_shot(index, spec.num_classes) for index in range(run.per_class * spec.num_classes)
  ]
  strategy = prompting.prompt_strategy(key)
  # 31 bits, which every library accepts as a seed.
  seeds = image_keys(key.seed, key.dataset, strategy, places)[:, 1] & 0x7FFFFFFF
  name = "-".join(filter(None, (key.generator, key.strategy, f"seed{key.seed}")))
  for index, (label, shot) in enumerate(places):
    yield {
      "file": f"{key.dataset}/{name}/{index:08d}.png",
      "dataset": key.dataset,
      "set": name,
      "index": index,
      "class": spec.names[label],
      "class_index": label,
      "prompt": prompts[label][shot].text,
      "negative_prompt": prompts[label][shot].negative,
      "seed": int(seeds[index]),
    }


def read_manifest(file: Path) -> list[dict[str, Any]]:
  """Return the lines of a list of wanted images.

  Raises:
    UsageError: the file cannot be read, or a line is not one of `genbench prompts`.
  """
  try:
    text = read_file(file, _MOST_LIST_BYTES, follow=True).decode("utf-8")
    lines = [json.loads(line) for line in text.split("\n") if line.strip()]
  except (OSError, ValueError, RecursionError) as error:
    raise UsageError(f"cannot read {str(file)!r} as a list of prompts: {error}.") from error
  for number, line in enumerate(lines, 1):
    if not isinstance(line, dict) or not set(_KEYS) <= set(line) or not _is_safe(line):
      raise UsageError(f"{file}, line {number} is not a line of `genbench prompts`.")
  return lines


def _is_safe(line: dict[str, Any]) -> bool:
  """Return whether the names in a line stay inside their folders and its numbers are numbers."""
  file = line["file"]
  is_inside = isinstance(file, str) and not file.startswith("/") and ".." not in file.split("/")
  are_names = all(_NAME.fullmatch(str(line[key])) for key in ("dataset", "set"))
  return is_inside and are_names and all(type(line[key]) is int for key in ("index", "class_index"))


@dataclasses.dataclass
class IntakeReport:
  """Result of an import.

  Attributes:
    folders: folders of the image sets, which `genbench evaluate` accepts.
    count: number of imported images, including those of earlier calls.
    missing: wanted files that do not exist.
    unreadable: files that cannot be decoded, each with the reason.
    twice: files with the same content as another one.
    strange: images that are not wanted.
    notes: other files that were left out, a sentence for each reason.
  """

  folders: list[Path] = dataclasses.field(default_factory=list)
  count: int = 0
  missing: list[str] = dataclasses.field(default_factory=list)
  unreadable: list[str] = dataclasses.field(default_factory=list)
  twice: list[str] = dataclasses.field(default_factory=list)
  strange: list[str] = dataclasses.field(default_factory=list)
  notes: list[str] = dataclasses.field(default_factory=list)

  @property
  def is_whole(self) -> bool:
    """Whether all wanted images exist, are readable and differ."""
    return not (self.missing or self.unreadable or self.twice)

  def words(self) -> list[str]:
    """Return a line per kind of problem."""
    found = (
      (self.missing, "missing"),
      (self.unreadable, "cannot be decoded"),
      (self.twice, "the same as another image"),
      (self.strange, "not wanted, and left out"),
    )
    words = [f"{len(names)} {what}: {listed(names)}." for names, what in found if names]
    return [*words, *self.notes]


def take_images(folder: Path, wanted: Sequence[dict[str, Any]], out: Path) -> IntakeReport:
  """Copy the wanted images from a folder, each set into its own folder with its list.

  Another call adds images that were generated since and keeps those it has.

  Args:
    folder: files with the names of the list and any image suffix.
    wanted: the list, see `read_manifest`.
    out: destination; sets go to `out/DATASET/SET`.

  Raises:
    UsageError: the folder does not exist.
  """
  if not folder.is_dir():
    raise UsageError(f"the folder {str(folder)!r} does not exist.")
  walk = ImageWalk(folder, beside=(".jsonl", ".txt", ".json"))
  there = _by_stem(walk, wanted)
  taken, rows, seen = IntakeReport(), dict[Path, list[dict[str, Any]]](), dict[str, str]()
  with Progress("import", len(wanted), "images") as progress:
    for line in wanted:
      path = there.pop(str(PurePosixPath(line["file"]).with_suffix("")), None)
      target = out / line["dataset"] / line["set"]
      if row := _take(folder, path, line, target, taken, seen):
        rows.setdefault(target, []).append(row)
      progress.advance(1)
  for target, lines in rows.items():
    files.write_json_lines(target / METADATA, lines)
  taken.strange, taken.notes = sorted(there.values()), walk.notes()
  taken.folders = list(rows)
  taken.count = sum(map(len, rows.values()))
  return taken


def _by_stem(walk: ImageWalk, wanted: Sequence[dict[str, Any]]) -> dict[str, str]:
  """Return name without suffix -> path. The images of a single set may be in the folder itself."""
  sets = {str(PurePosixPath(line["file"]).parent) for line in wanted}
  paths: dict[str, str] = {}
  for path in walk.images():
    stem = str(PurePosixPath(path).with_suffix(""))
    stem = f"{next(iter(sets))}/{stem}" if len(sets) == 1 and "/" not in stem else stem
    if stem in paths:
      walk.leave_out(f"for the same image as {paths[stem]!r}", path)
    else:
      paths[stem] = path
  return paths


def _take(
  folder: Path,
  path: str | None,
  line: dict[str, Any],
  target: Path,
  taken: IntakeReport,
  seen: dict[str, str],
) -> dict[str, Any] | None:
  """Copy one image; return its line of the set's list, or None if it is rejected."""
  kept = _kept(target, line["index"])
  if path is None and kept is None:
    taken.missing.append(line["file"])
    return None
  try:
    content = (
      kept.read_bytes() if path is None and kept else read_beneath(folder, str(path), MOST_BYTES)
    )
    with Image.open(io.BytesIO(content), formats=image_formats()) as image:
      to_rgb(image)
  except Exception as error:  # Pillow's decoders raise arbitrary exceptions
    taken.unreadable.append(f"{line['file']} ({type(error).__name__})")
    return None
  content_digest = hashlib.sha256(content).hexdigest()
  if content_digest in seen:
    taken.twice.append(f"{line['file']} = {seen[content_digest]}")
    return None
  seen[content_digest] = line["file"]
  name = f"{line['index']:08d}{PurePosixPath(path).suffix.lower() if path else kept.suffix if kept else ''}"
  if path is not None and not (
    (target / name).exists() and (target / name).read_bytes() == content
  ):
    if kept is not None and kept.name != name:
      kept.unlink()
    files.write_bytes(target / name, content)
  about = {key: line[key] for key in ("index", "class_index", "prompt", "negative_prompt", "seed")}
  return {"file_name": name, "class_name": line["class"], **about}


def _kept(target: Path, index: int) -> Path | None:
  """Return the image of an earlier call."""
  return next(
    (path for path in target.glob(f"{index:08d}.*") if path.suffix.lower() in image_suffixes()),
    None,
  )
