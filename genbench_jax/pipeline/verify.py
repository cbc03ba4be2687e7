"""Verification of a work folder: every seal, checksum, fingerprint and format version.

Nothing is changed and no model or dataset is loaded. Artifacts of other settings are valid, because
a work folder may hold many configs.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from genbench_jax.diffusion.inversion.embeddings import FILE_NAME, load_embedding
from genbench_jax.errors import RunError, UsageError
from genbench_jax.pipeline.inspection import (
  DAMAGED,
  MISSING,
  NOT_NEEDED,
  ORPHANED,
  Inspection,
  VerificationResult,
)
from genbench_jax.pipeline.recognize import SUMMARY
from genbench_jax.report.from_disk import MADE_FROM, RUN
from genbench_jax.retrieval.build import NAMES, shard_file
from genbench_jax.retrieval.pool import MANIFEST as POOL_MANIFEST
from genbench_jax.runtime.progress import Progress
from genbench_jax.store import class_values, embedding_set, files, hits, rows
from genbench_jax.store.image_set import LABELS, MANIFEST, TFDS_FILES, ImageSet, layout_of
from genbench_jax.store.reading import regular

# Files with the same names as files of rows.
BESIDE_ROWS: tuple[tuple[str, str, Callable[[Path], object]], ...] = (
  ("classes", "files of class values", class_values.read),
  ("hits", "files of recognized test images", hits.read),
)
# Suffix of the rows of an image set with a failed cell.
PARTIAL = ".partial.jsonl"
# Internal files of a run in the root.
_OWN = frozenset(
  {".lock", ".holder", ".url", ".mirror.json", "results.jsonl", "results.csv", "results.about.json"}
)
# Places of JSON files: folders, and the list of sources of `genbench evaluate`.
_WITH_JSON = frozenset(
  {"runs", "retrieved", "prompts", "sentences", "textual_inversion", "sources.json"}
)
# Folders that others fill: TensorBoard, TFDS, and files whose damage a run notices.
_UNCHECKED = frozenset({"tensorboard", "stand_ins", "folders", "digests", "inputs"})


def verify(workdir: Path) -> VerificationResult:
  """Read every file of a work folder and report what differs from what was written.

  Raises:
    UsageError: the folder does not exist, is not a work folder, or is in use.
  """
  if not workdir.is_dir():
    raise UsageError(f"the work folder {str(workdir)!r} does not exist.")
  with _undisturbed(workdir):
    total = sum(1 for path in workdir.rglob("*") if path.is_file())
    with Progress(f"verify {workdir}", total, "files") as progress:
      inspection = Inspection(workdir, progress.advance)
      for part in (
        _image_sets,
        _features,
        _rows,
        _results,
        _recognizers,
        _pools,
        _copies,
        _report,
        _json_files,
      ):
        part(inspection)
  if not inspection.counts:
    raise UsageError(f"{workdir} is not a work folder: no run has written to it.")
  _orphans(inspection)
  return VerificationResult(inspection.counts, tuple(inspection.faults))


@contextlib.contextmanager
def _undisturbed(workdir: Path) -> Iterator[None]:
  """Hold the folder's lock if it can be locked; a read-only folder needs no lock."""
  from filelock import FileLock, Timeout

  if not (workdir / ".lock").is_file():
    yield
    return
  lock = FileLock(workdir / ".lock", timeout=0)
  try:
    lock.acquire()
  except Timeout as error:
    raise UsageError(
      f"a run is using {str(workdir)!r}. Wait until it ends, then verify again."
    ) from error
  except OSError:
    yield
    return
  try:
    yield
  finally:
    lock.release()


# ---- the kinds of artifacts ---------------------------------------------------------------------


def _image_sets(inspection: Inspection) -> None:
  for folder in sorted(path for path in inspection.workdir.glob("images/*/*") if path.is_dir()):
    if (folder / MANIFEST).is_file():
      with inspection.noting(folder / MANIFEST):
        _image_set(inspection, ImageSet(folder))
    else:
      _unfinished_set(inspection, folder)


def _image_set(inspection: Inspection, images: ImageSet) -> None:
  folder, manifest = images.folder, images.manifest
  tfds = [folder / name for name in TFDS_FILES]
  inspection.saw("image sets", folder / MANIFEST, folder / LABELS, *tfds)
  inspection.known.update(folder.glob("*.labels.txt"))
  anew = f"delete {(folder / MANIFEST).relative_to(inspection.workdir)} and run again: damaged shards are made again"
  if not folder.name.endswith(f"-{layout_of(manifest).fingerprint}"):
    inspection.fault(
      folder / MANIFEST, DAMAGED, "the folder's name does not match the fingerprint of its manifest"
    )
  for path in tfds:
    if not path.is_file():
      inspection.fault(path, MISSING, "the set cannot be opened without it", anew)
    elif files.sha256(path) != manifest.get("metadata_sha256", {}).get(
      path.name, files.sha256(path)
    ):
      inspection.fault(path, DAMAGED, "its checksum differs", anew)
  with inspection.noting(folder / LABELS, anew):
    if len(images.labels) != sum(shard["images"] for shard in manifest["shards"]):
      raise RunError("the number of images in the shards differs from the manifest")
  for shard, path in enumerate(images.shard_paths()):
    seal = folder / "seals" / f"{shard:05d}.json"
    inspection.saw("shards", path, seal)
    with inspection.noting(path, anew):
      images.verify_shard(shard)
    with inspection.noting(seal, anew):
      if files.read_json(seal)["sha256"] != manifest["shards"][shard]["sha256"]:
        raise RunError("its shard is not the one in the manifest")


def _unfinished_set(inspection: Inspection, folder: Path) -> None:
  """Check the sealed shards of a set without manifest; the next run makes the rest."""
  for seal in sorted(folder.glob("seals/*.json")):
    shard = next(iter(folder.glob(f"*.array_record-{seal.stem}-of-*")), None)
    inspection.saw("shards of unfinished sets", seal, *([shard] if shard else []))
    with inspection.noting(seal):
      if shard is None or files.read_json(seal)["sha256"] != files.sha256(shard):
        raise RunError("its shard is missing or differs; the next run makes it again")
  inspection.known.update(path for path in folder.iterdir() if path.is_file())


def _features(inspection: Inspection) -> None:
  for path in sorted(inspection.workdir.glob("embeddings/**/*.safetensors")):
    inspection.saw("files of features", path)
    with inspection.noting(path):
      found = embedding_set.load(path)
      if not len(found.features) == len(found.labels) == len(found.ids) == len(found.valid):
        raise RunError("its arrays differ in length")


def _rows(inspection: Inspection) -> None:
  for path in sorted(inspection.workdir.glob("rows/*/*.jsonl")):
    inspection.saw("files of rows", path)
    with inspection.noting(path):
      rows.read_rows([path])
  for beside in BESIDE_ROWS:
    _beside_rows(inspection, *beside)


def _beside_rows(
  inspection: Inspection, folder: str, kind: str, read: Callable[[Path], object]
) -> None:
  """Check files that belong to rows: complete, with rows, and present for all rows."""
  named = {
    path.relative_to(inspection.workdir / "rows").as_posix().replace(PARTIAL, ".jsonl")
    for path in inspection.workdir.glob("rows/*/*.jsonl")
  }
  for path in sorted(inspection.workdir.glob(f"{folder}/*/*.jsonl")):
    inspection.saw(kind, path)
    with inspection.noting(path):
      read(path)
    name = path.relative_to(inspection.workdir / folder).as_posix()
    if name not in named:
      inspection.fault(
        path, ORPHANED, "there are no rows with its name", "run the same command again"
      )
    named.discard(name)
  for name in sorted(named):
    path = inspection.workdir / folder / name
    inspection.fault(path, MISSING, f"of the {kind} behind rows", "run the same command again")


def _results(inspection: Inspection) -> None:
  """Check the rows for people: each must be a row of a stage, and the CSV must match."""
  path = inspection.workdir / "results.jsonl"
  if not path.is_file():
    if any(inspection.workdir.glob("rows/*/*.jsonl")):
      inspection.fault(path, MISSING, "the rows of all cells", "run the same command again")
    return
  inspection.saw("results", path)
  about = inspection.workdir / rows.ABOUT_RESULTS
  if about.is_file():
    with inspection.noting(about):
      files.read_json(about)
  if not rows.results_run(inspection.workdir)[1]:
    inspection.fault(path, DAMAGED, "it was edited after the run wrote it")
  with inspection.noting(path):
    found = files.read_json_lines(path)
    sealed = set()
    for file in inspection.workdir.glob("rows/*/*.jsonl"):
      with contextlib.suppress(RunError, OSError):  # already reported
        sealed |= {_key(row) for row in rows.read_rows([file])}
    if not found:
      raise RunError("it is empty")
    if odd := [row for row in found if _key(row) not in sealed]:
      raise RunError(
        f"{len(odd)} of its {len(found)} rows are in no file of rows: it was edited, or files of rows were deleted"
      )
    csv = inspection.workdir / "results.csv"
    if not csv.is_file():
      inspection.fault(csv, MISSING, "the rows as CSV", "run the same command again")
    elif csv.read_bytes() != files.csv_text(found, rows.COLUMNS).encode():
      inspection.fault(csv, DAMAGED, "its rows differ from results.jsonl")
    _about_results(inspection)


def _about_results(inspection: Inspection) -> None:
  """Check the file that says which run the rows belong to."""
  path = inspection.workdir / rows.ABOUT_RESULTS
  if not path.is_file():
    inspection.fault(path, MISSING, "the run of the results", "run the same command again")
    return
  with inspection.noting(path, "run the same command again"):
    about = files.read_json(path)
    name = about.get("run") if isinstance(about, dict) else None
    is_known = name == "" or (inspection.workdir / "runs" / f"{name}.json").is_file()
    if not is_known or about != rows.described_results(inspection.workdir, str(name)):
      raise RunError("it belongs to other rows, or to no run")


def _key(row: dict[str, Any]) -> str:
  return json.dumps(row, sort_keys=True)


def _recognizers(inspection: Inspection) -> None:
  for path in sorted(inspection.workdir.glob(f"recognizers/*/*/*/{SUMMARY}")):
    inspection.saw("recognized cells", path)
    with inspection.noting(path):
      _listed_files(
        inspection, path.parent, files.read_json(path).get("files", {}), "recognizer files"
      )


def _listed_files(inspection: Inspection, folder: Path, listed: dict[str, str], kind: str) -> None:
  """Check files whose checksums are in another file."""
  for name, checksum in listed.items():
    path = folder / name
    inspection.saw(kind, path)
    if not path.is_file():
      inspection.fault(
        path,
        MISSING,
        "it is listed with a checksum",
        f"delete {folder.relative_to(inspection.workdir)} and run again",
      )
    elif files.sha256(path) != checksum:
      inspection.fault(
        path,
        DAMAGED,
        "its checksum differs",
        f"delete {folder.relative_to(inspection.workdir)} and run again",
      )


def _pools(inspection: Inspection) -> None:
  for manifest in sorted(inspection.workdir.glob(f"pool*/**/{POOL_MANIFEST}")):
    inspection.saw("pools", manifest)
    with inspection.noting(manifest):
      files.read_json(manifest)
    inspection.known.update(
      path for path in (manifest.parent / "collection").glob("*") if path.is_file()
    )
    for seal in sorted(manifest.parent.glob("seals/*.json")):
      inspection.saw("shards of pools", seal)
      with inspection.noting(seal):
        for name, checksum in files.read_json(seal).get("sha256", {}).items():
          path = manifest.parent / shard_file(name, int(seal.stem), dict(NAMES)[name])
          inspection.known.add(path)
          if files.sha256(path) != checksum:
            raise RunError(f"{path.name} does not match its seal")


def _copies(inspection: Inspection) -> None:
  """Check the copies of inputs that can't be read in place."""
  for seal in sorted(inspection.workdir.glob("folders/*-*.json")):
    if not seal.name.startswith("digests-"):
      inspection.saw("seals of copies", seal)
      with inspection.noting(seal):
        listed = files.read_json(seal)["files"]
        _listed_files(inspection, seal.parent, listed, "copies of inputs")


def _report(inspection: Inspection) -> None:
  folder = inspection.workdir / "report"
  if not folder.is_dir():
    return
  path = folder / RUN
  inspection.known.add(folder / MADE_FROM)
  if not path.is_file():
    inspection.fault(
      path, MISSING, "the page cannot be checked without it", "delete report/ and run again"
    )
    return
  inspection.saw("pages", path)
  with inspection.noting(path, "delete report/ and run again"):
    about = files.read_json(path)
    _listed_files(inspection, folder, about.get("files", {}), "files of the page")
    for name in about.get("image_sets", ()):
      if not (inspection.workdir / name / MANIFEST).is_file():
        inspection.fault(
          inspection.workdir / name,
          MISSING,
          "the page shows its images",
          "run the same command again",
        )


def _json_files(inspection: Inspection) -> None:
  """Check other JSON files: ledgers, choices, sentences."""
  for path in sorted(inspection.workdir.glob("**/*.json")):
    if path in inspection.known or _top(inspection, path) in _UNCHECKED or path.name in _OWN:
      continue
    if _top(inspection, path) in _WITH_JSON:
      inspection.saw("other files", path)
      with inspection.noting(path):
        files.read_json(path)
  for name in ("prompts", "textual_inversion"):
    for path in inspection.workdir.glob(f"{name}/**/*"):
      if path.is_file() and not files.is_part(path.name):
        inspection.known.add(path)
  for path in inspection.workdir.glob("textual_inversion/**/*.safetensors"):
    with inspection.noting(path):
      (load_embedding if path.name == FILE_NAME else _open_safetensors)(path)
  for path in inspection.workdir.glob("dataset-*.yaml"):  # of `genbench evaluate`
    inspection.saw("other files", path)
    with inspection.noting(path):
      # JSON is YAML; the name has the digest of the content.
      if path.stem != f"dataset-{files.digest(json.loads(files.read_text(path)))}":
        raise RunError("its name does not match its content")


def _open_safetensors(path: Path) -> None:
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(regular(path), framework="numpy") as file:
      for name in file.keys():  # noqa: SIM118
        if not np.isfinite(file.get_tensor(name).astype(np.float32)).all():
          raise RunError(f"{name} contains NaN or infinity")
  except (SafetensorError, OSError) as error:
    raise RunError(f"not safetensors: {error}") from error


def _orphans(inspection: Inspection) -> None:
  for path in sorted(inspection.workdir.rglob("*")):
    if path.is_dir() and not path.is_symlink():
      if path.name.startswith(".") and path.name.endswith(".parts"):
        inspection.known.update(path.glob("*"))  # unfinished features
      continue
    if files.is_part(path.name):
      inspection.fault(
        path,
        ORPHANED,
        "incomplete: a run was killed while it wrote the file",
        "the next run removes it",
      )
    elif (
      path not in inspection.known
      and path.name not in _OWN
      and _top(inspection, path) not in _UNCHECKED
    ):
      inspection.fault(path, ORPHANED, "it belongs to no artifact", NOT_NEEDED)


def _top(inspection: Inspection, path: Path) -> str:
  return path.relative_to(inspection.workdir).parts[0]
