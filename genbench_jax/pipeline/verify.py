"""Whether a work folder is what its runs have written: every seal, checksum, fingerprint and format version.

Nothing is changed, no model and no dataset is loaded. What a later run of the same config would not use, such as the images
of other settings, is in order too: a work folder may hold many configs.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from genbench_jax.errors import RunError, UsageError
from genbench_jax.pipeline.recognize import SUMMARY
from genbench_jax.report.from_disk import MADE_FROM, RUN
from genbench_jax.retrieval.build import NAMES, shard_file
from genbench_jax.retrieval.pool import MANIFEST as POOL_MANIFEST
from genbench_jax.runtime.progress import Progress
from genbench_jax.store import class_values, embedding_set, files, hits, rows
from genbench_jax.store.image_set import LABELS, MANIFEST, TFDS_FILES, ImageSet, layout_of

DAMAGED, MISSING, ORPHANED = "damaged", "missing", "orphaned"
RUN_AGAIN = "delete it, then run the same command again"
NOT_NEEDED = "no run has written it, or none needs it: delete it if it is not yours"
# What stands beside the rows of the same name.
BESIDE_ROWS: tuple[tuple[str, str, Callable[[Path], object]], ...] = (
  ("classes", "files of class values", class_values.read),
  ("hits", "files of recognized test images", hits.read),
)
# How the rows of an image set end of which a cell has failed.
PARTIAL = ".partial.jsonl"
# Files that a run keeps for itself in the root.
_OWN = frozenset(
  {".lock", ".holder", ".url", ".mirror.json", "results.jsonl", "results.csv", "results.about.json"}
)
# Folders that others fill: TensorBoard, TFDS, and files that a run reads and others can't damage unnoticed.
_UNCHECKED = frozenset({"tensorboard", "stand_ins", "folders", "digests", "inputs"})


@dataclasses.dataclass(frozen=True)
class Fault:
  """Something that is not as it was written.

  Attributes:
    path: inside the work folder.
    kind: `damaged`, `missing` or `orphaned`.
    why: what was found.
    advice: what to do.
  """

  path: str
  kind: str
  why: str
  advice: str


@dataclasses.dataclass(frozen=True)
class VerificationResult:
  """What was looked at: how many files of each kind, and what is wrong."""

  counts: dict[str, int]
  faults: tuple[Fault, ...]


class _Look:
  """A look at a work folder that remembers which files belong to something, and what is wrong.

  Args:
    workdir: the folder.
    advance: called after each file.
  """

  def __init__(self, workdir: Path, advance: Callable[[int], None]) -> None:
    self.workdir, self._advance = workdir, advance
    self.known: set[Path] = set()
    self.counts: dict[str, int] = {}
    self.faults: list[Fault] = []

  def saw(self, kind: str, *paths: Path) -> None:
    """Files that belong to the work folder."""
    self.known.update(paths)
    self.counts[kind] = self.counts.get(kind, 0) + 1
    self._advance(1)

  def fault(self, path: Path, kind: str, why: str, advice: str = RUN_AGAIN) -> None:
    """Note a fault."""
    self.faults.append(Fault(self._name(path), kind, why, advice))

  @contextlib.contextmanager
  def noting(self, path: Path, advice: str = RUN_AGAIN) -> Iterator[None]:
    """Note whatever reading a file raises, and go on."""
    try:
      yield
    except (RunError, UsageError, OSError) as error:
      self.fault(path, DAMAGED, _short(error, self.workdir), advice)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
      self.fault(path, DAMAGED, f"it does not hold what it should ({type(error).__name__})", advice)

  def _name(self, path: Path) -> str:
    return path.relative_to(self.workdir).as_posix()


def verify(workdir: Path) -> VerificationResult:
  """Read every file of a work folder again and say what is not as it was written.

  Raises:
    UsageError: there is no such folder, no run has written to it, or one is writing to it now.
  """
  if not workdir.is_dir():
    raise UsageError(f"there is no work folder {str(workdir)!r}.")
  with _undisturbed(workdir):
    total = sum(1 for path in workdir.rglob("*") if path.is_file())
    with Progress(f"verify {workdir}", total, "files") as progress:
      look = _Look(workdir, progress.advance)
      for part in (
        _image_sets,
        _features,
        _rows,
        _results,
        _recognizers,
        _pools,
        _report,
        _json_files,
      ):
        part(look)
  if not look.counts:
    raise UsageError(f"{workdir} is not a work folder: no run has written anything there.")
  _orphans(look)
  return VerificationResult(look.counts, tuple(look.faults))


@contextlib.contextmanager
def _undisturbed(workdir: Path) -> Iterator[None]:
  """Hold the folder's lock where there is one that can be held; a folder that can't be written to needs none."""
  from filelock import FileLock, Timeout

  if not (workdir / ".lock").is_file():
    yield
    return
  lock = FileLock(workdir / ".lock", timeout=0)
  try:
    lock.acquire()
  except Timeout as error:
    raise UsageError(f"a run is using {str(workdir)!r}. Wait for it, then verify again.") from error
  except OSError:
    yield
    return
  try:
    yield
  finally:
    lock.release()


# ---- the kinds of artifacts ---------------------------------------------------------------------


def _image_sets(look: _Look) -> None:
  for folder in sorted(path for path in look.workdir.glob("images/*/*") if path.is_dir()):
    if (folder / MANIFEST).is_file():
      with look.noting(folder / MANIFEST):
        _image_set(look, ImageSet(folder))
    else:
      _unfinished_set(look, folder)


def _image_set(look: _Look, images: ImageSet) -> None:
  folder, manifest = images.folder, images.manifest
  tfds = [folder / name for name in TFDS_FILES]
  look.saw("image sets", folder / MANIFEST, folder / LABELS, *tfds)
  look.known.update(folder.glob("*.labels.txt"))
  anew = f"delete {(folder / MANIFEST).relative_to(look.workdir)}, then run again: what is damaged is made anew"
  if not folder.name.endswith(f"-{layout_of(manifest).fingerprint}"):
    look.fault(
      folder / MANIFEST, DAMAGED, "the folder's name is not the fingerprint of what it says"
    )
  for path in tfds:
    if not path.is_file():
      look.fault(path, MISSING, "the set can't be opened without it", anew)
    elif files.sha256(path) != manifest.get("metadata_sha256", {}).get(
      path.name, files.sha256(path)
    ):
      look.fault(path, DAMAGED, "its checksum differs", anew)
  with look.noting(folder / LABELS, anew):
    if len(images.labels) != sum(shard["images"] for shard in manifest["shards"]):
      raise RunError("the shards hold another number of images")
  for shard, path in enumerate(images.shard_paths()):
    seal = folder / "seals" / f"{shard:05d}.json"
    look.saw("shards", path, seal)
    with look.noting(path, anew):
      images.verify_shard(shard)
    with look.noting(seal, anew):
      if files.read_json(seal)["sha256"] != manifest["shards"][shard]["sha256"]:
        raise RunError("it seals another shard than the manifest names")


def _unfinished_set(look: _Look, folder: Path) -> None:
  """A set without manifest is being made: its sealed shards are checked, and the rest is made by the next run."""
  for seal in sorted(folder.glob("seals/*.json")):
    shard = next(iter(folder.glob(f"*.array_record-{seal.stem}-of-*")), None)
    look.saw("shards of unfinished sets", seal, *([shard] if shard else []))
    with look.noting(seal):
      if shard is None or files.read_json(seal)["sha256"] != files.sha256(shard):
        raise RunError("its shard is missing or differs; the next run makes it anew")
  look.known.update(path for path in folder.iterdir() if path.is_file())


def _features(look: _Look) -> None:
  for path in sorted(look.workdir.glob("embeddings/**/*.safetensors")):
    look.saw("files of features", path)
    with look.noting(path):
      found = embedding_set.load(path)
      if not len(found.features) == len(found.labels) == len(found.ids) == len(found.valid):
        raise RunError("its arrays differ in length")


def _rows(look: _Look) -> None:
  for path in sorted(look.workdir.glob("rows/*/*.jsonl")):
    look.saw("files of rows", path)
    with look.noting(path):
      rows.read_rows([path])
  for beside in BESIDE_ROWS:
    _beside_rows(look, *beside)


def _beside_rows(look: _Look, folder: str, kind: str, read: Callable[[Path], object]) -> None:
  """What stands beside rows: whole, of rows that are there, and there for all rows."""
  named = {
    path.relative_to(look.workdir / "rows").as_posix().replace(PARTIAL, ".jsonl")
    for path in look.workdir.glob("rows/*/*.jsonl")
  }
  for path in sorted(look.workdir.glob(f"{folder}/*/*.jsonl")):
    look.saw(kind, path)
    with look.noting(path):
      read(path)
    name = path.relative_to(look.workdir / folder).as_posix()
    if name not in named:
      look.fault(path, ORPHANED, "there are no rows of its name", "run the same command again")
    named.discard(name)
  for name in sorted(named):
    path = look.workdir / folder / name
    look.fault(path, MISSING, f"of the {kind} behind rows", "run the same command again")


def _results(look: _Look) -> None:
  """The rows for people: each must be one of a stage's, and the CSV must be the same rows."""
  path = look.workdir / "results.jsonl"
  if not path.is_file():
    if any(look.workdir.glob("rows/*/*.jsonl")):
      look.fault(path, MISSING, "the rows of all cells", "run the same command again")
    return
  look.saw("results", path)
  about = look.workdir / rows.ABOUT_RESULTS
  if about.is_file():
    with look.noting(about):
      files.read_json(about)
  if not rows.results_run(look.workdir)[1]:
    look.fault(path, DAMAGED, "it is not what the run has written: it was edited")
  with look.noting(path):
    found = files.read_json_lines(path)
    sealed = set()
    for file in look.workdir.glob("rows/*/*.jsonl"):
      with contextlib.suppress(RunError, OSError):  # told already
        sealed |= {_key(row) for row in rows.read_rows([file])}
    if not found:
      raise RunError("it is empty")
    if odd := [row for row in found if _key(row) not in sealed]:
      raise RunError(
        f"{len(odd)} of its {len(found)} rows are in no file of rows: it was edited, or those were deleted"
      )
    csv = look.workdir / "results.csv"
    if not csv.is_file():
      look.fault(csv, MISSING, "the rows as CSV", "run the same command again")
    elif csv.read_bytes() != files.csv_text(found, rows.COLUMNS).encode():
      look.fault(csv, DAMAGED, "it does not hold the rows of results.jsonl")
    _about_results(look)


def _about_results(look: _Look) -> None:
  """Whose rows they are."""
  path = look.workdir / rows.ABOUT_RESULTS
  if not path.is_file():
    look.fault(path, MISSING, "whose rows the results are", "run the same command again")
    return
  with look.noting(path, "run the same command again"):
    about = files.read_json(path)
    name = about.get("run") if isinstance(about, dict) else None
    is_known = name == "" or (look.workdir / "runs" / f"{name}.json").is_file()
    if not is_known or about != rows.described_results(look.workdir, str(name)):
      raise RunError("it is of other rows, or of no run")


def _key(row: dict[str, Any]) -> str:
  return json.dumps(row, sort_keys=True)


def _recognizers(look: _Look) -> None:
  for path in sorted(look.workdir.glob(f"recognizers/*/*/*/{SUMMARY}")):
    look.saw("recognized cells", path)
    with look.noting(path):
      _listed_files(look, path.parent, files.read_json(path).get("files", {}), "recognizer files")


def _listed_files(look: _Look, folder: Path, listed: dict[str, str], kind: str) -> None:
  """Files whose checksums another file holds."""
  for name, checksum in listed.items():
    path = folder / name
    look.saw(kind, path)
    if not path.is_file():
      look.fault(
        path,
        MISSING,
        "it is listed with a checksum",
        f"delete {folder.relative_to(look.workdir)}, then run again",
      )
    elif files.sha256(path) != checksum:
      look.fault(
        path,
        DAMAGED,
        "its checksum differs",
        f"delete {folder.relative_to(look.workdir)}, then run again",
      )


def _pools(look: _Look) -> None:
  for manifest in sorted(look.workdir.glob(f"pool*/**/{POOL_MANIFEST}")):
    look.saw("pools", manifest)
    with look.noting(manifest):
      files.read_json(manifest)
    look.known.update(path for path in (manifest.parent / "collection").glob("*") if path.is_file())
    for seal in sorted(manifest.parent.glob("seals/*.json")):
      look.saw("shards of pools", seal)
      with look.noting(seal):
        for name, checksum in files.read_json(seal).get("sha256", {}).items():
          path = manifest.parent / shard_file(name, int(seal.stem), dict(NAMES)[name])
          look.known.add(path)
          if files.sha256(path) != checksum:
            raise RunError(f"{path.name} differs from what is sealed")


def _report(look: _Look) -> None:
  folder = look.workdir / "report"
  if not folder.is_dir():
    return
  path = folder / RUN
  look.known.add(folder / MADE_FROM)
  if not path.is_file():
    look.fault(
      path, MISSING, "the page can't be checked without it", "delete report/, then run again"
    )
    return
  look.saw("pages", path)
  with look.noting(path, "delete report/, then run again"):
    about = files.read_json(path)
    _listed_files(look, folder, about.get("files", {}), "files of the page")
    for name in about.get("image_sets", ()):
      if not (look.workdir / name / MANIFEST).is_file():
        look.fault(
          look.workdir / name, MISSING, "the page shows its images", "run the same command again"
        )


def _json_files(look: _Look) -> None:
  """What is JSON and in no other kind: ledgers, choices, sentences."""
  for path in sorted(look.workdir.glob("**/*.json")):
    if path in look.known or _top(look, path) in _UNCHECKED or path.name in _OWN:
      continue
    if _top(look, path) in ("runs", "retrieved", "prompts", "selection", "inversion"):
      look.saw("other files", path)
      with look.noting(path):
        files.read_json(path)
  for name in ("prompts", "inversion", "selection"):
    for path in look.workdir.glob(f"{name}/**/*"):
      if path.is_file() and not files.is_part(path.name):
        look.known.add(path)
  for path in look.workdir.glob("inversion/**/*.safetensors"):
    with look.noting(path):
      _open_safetensors(path)


def _open_safetensors(path: Path) -> None:
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(path, framework="numpy") as file:
      for name in file.keys():  # noqa: SIM118
        if not np.isfinite(file.get_tensor(name).astype(np.float32)).all():
          raise RunError(f"{name} holds NaN or infinity")
  except SafetensorError as error:
    raise RunError(f"no safetensors: {error}") from error


def _orphans(look: _Look) -> None:
  for path in sorted(look.workdir.rglob("*")):
    if path.is_dir() and not path.is_symlink():
      if path.name.startswith(".") and path.name.endswith(".parts"):
        look.known.update(path.glob("*"))  # features in the making
      continue
    if files.is_part(path.name):
      look.fault(path, ORPHANED, "half written by a run that was killed", "the next run removes it")
    elif path not in look.known and path.name not in _OWN and _top(look, path) not in _UNCHECKED:
      look.fault(path, ORPHANED, "it belongs to nothing here", NOT_NEEDED)


def _top(look: _Look, path: Path) -> str:
  return path.relative_to(look.workdir).parts[0]


def _short(error: Exception, workdir: Path) -> str:
  """An error's first sentence, without the work folder's place: paths are told beside it."""
  told = " ".join(str(error).split()).replace(f"{workdir}/", "")
  return told[:300]
