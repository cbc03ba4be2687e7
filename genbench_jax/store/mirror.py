"""A work folder in an object store (`gs://`, `s3://`, whatever fsspec knows), copied to a local folder and back.

The work is done on the local copy, in files that are whole as soon as they have their name (`store.files`); objects too
appear whole. So it is enough to send what has appeared, oldest first, again and again: whoever takes the bucket up, on
another machine, finds a work folder that was stopped a few seconds earlier. Where several processes share a bucket, each has
a copy; before they wait for each other they send, and afterwards they fetch (`parallel.hosts`).
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.progress import say
from genbench_jax.store import files

COPIES = Path("~/.cache/genbench_jax/workdirs")
# A machine that dies loses what it made since it sent last.
SECONDS_BETWEEN_SENDING = 10
_STATE, _URL, _LOCK, _UNFINISHED = ".mirror.json", ".url", ".lock", "orbax-checkpoint-tmp"


class Stamp(NamedTuple):
  """What tells one version of a local file from the next."""

  size: int
  changed: int  # nanoseconds


def is_remote(workdir: str) -> bool:
  """Whether a work folder is a URL rather than a path."""
  return "://" in workdir


def local_copy(workdir: str, process: int = 0) -> Path:
  """The local folder of what `--workdir` names, for one process of a run."""
  if not is_remote(workdir):
    return Path(workdir).expanduser()
  return COPIES.expanduser() / f"{files.digest(workdir)}-{process}"


@contextlib.contextmanager
def work_folder(given: str, process: int = 0) -> Iterator[Path]:
  """The local folder of what `--workdir` names: itself, or a copy, brought in line before, meanwhile and in the end.

  Raises:
    UsageError: no package at hand can reach the URL, or it can't be read.
    RunError: an object can't be written.
  """
  local = local_copy(given, process)
  if not is_remote(given):
    yield local
    return
  mirror = Mirror(given, local)
  say(f"the work is done in a copy of {given}, {local}")
  try:
    mirror.fetch()
    # Written here, sent now: whether the store takes anything is known before the work begins.
    if not (local / _URL).exists():
      files.write_text(local / _URL, f"{given}\n")
    mirror.send()
  except RunError as error:
    raise UsageError(f"--workdir is {given!r}: {error}") from error
  try:
    with mirror.kept_in_line():
      yield local
  except BaseException:
    with contextlib.suppress(RunError):  # the first error counts
      mirror.send()
    raise
  mirror.send()


class Mirror:
  """One URL and one local folder.

  Args:
    url: of a folder, which need not be there yet.
    local: its copy; may hold an older one.
  """

  def __init__(self, url: str, local: Path) -> None:
    self.url, self.local = url, local
    self._store, self._root = _opened(url)
    self._turn = threading.RLock()
    # Name -> version in the store, and stamp of the file, when both were last the same. What has gone from the copy
    # while nobody looked is forgotten, so that it is fetched again, not deleted from the store.
    self._same: dict[str, tuple[str, Stamp]] = {}
    state = local / _STATE
    stamps = self._stamps()
    for name, (version, *stamp) in (files.read_json(state) if state.exists() else {}).items():
      if name in stamps:
        self._same[name] = (version, Stamp(*stamp))

  def send(self) -> None:
    """Brings to the store what has changed in the copy, in the order in which it did."""
    with self._turn, _named(f"can't write to {self.url}"):
      stamps = self._stamps()
      changed = [name for name, stamp in stamps.items() if self._stamp_at_last(name) != stamp]
      for name in sorted(changed, key=lambda name: (self.local / name).stat().st_ctime_ns):
        self._store.put_file(str(self.local / name), f"{self._root}/{name}")
      gone = self._same.keys() - stamps.keys()
      for name in gone:
        with contextlib.suppress(FileNotFoundError):
          self._store.rm_file(f"{self._root}/{name}")
        del self._same[name]
      if changed:
        versions = self._versions()
        self._same |= {name: (versions[name], stamps[name]) for name in changed if name in versions}
      if changed or gone:
        self._remember()

  def fetch(self) -> None:
    """Brings to the copy what has changed in the store; what the copy has not sent yet is sent first."""
    self.local.mkdir(parents=True, exist_ok=True)
    self.send()
    with self._turn, _named(f"can't read from {self.url}"):
      versions = self._versions()
      for name, version in versions.items():
        if name not in self._same or self._same[name][0] != version:
          try:
            with files.atomic_path(self.local / name) as temporary:
              self._store.get_file(f"{self._root}/{name}", str(temporary))
          except FileNotFoundError:
            continue  # another process has deleted it since it was listed
          self._same[name] = (version, _stamp(self.local / name))
      for name in self._same.keys() - versions.keys():
        (self.local / name).unlink(missing_ok=True)
        del self._same[name]
      self._remember()

  @contextlib.contextmanager
  def kept_in_line(self) -> Iterator[None]:
    """Sends every few seconds, and sends and fetches where the processes wait for each other."""
    from genbench_jax.runtime.hosts import around_waits

    stop = threading.Event()
    sender = threading.Thread(target=self._keep_sending, args=(stop,), name="send", daemon=True)
    sender.start()
    try:
      with around_waits(self.send, self.fetch):
        yield
    finally:
      stop.set()
      sender.join()

  def _keep_sending(self, stop: threading.Event) -> None:
    while not stop.wait(SECONDS_BETWEEN_SENDING):
      with contextlib.suppress(RunError):  # tried again next time, and in the end where it is heard
        self.send()

  def _stamp_at_last(self, name: str) -> Stamp | None:
    return self._same[name][1] if name in self._same else None

  def _stamps(self) -> dict[str, Stamp]:
    found = {}
    for path in self.local.rglob("*"):
      name = path.relative_to(self.local).as_posix()
      if _is_sent(name) and path.is_file():
        with contextlib.suppress(FileNotFoundError):  # gone since it was listed
          found[name] = _stamp(path)
    return found

  def _versions(self) -> dict[str, str]:
    """Of all objects: whatever the store says of one changes when it is written again."""
    self._store.invalidate_cache()
    try:
      listed: dict[str, Any] = self._store.find(self._root, detail=True)
    except FileNotFoundError:
      return {}
    found = {}
    for path, about in listed.items():
      name = path.removeprefix(self._root).lstrip("/")
      if not name or name.endswith("/"):
        continue  # an empty object that stands for a folder
      if {"", ".", ".."} & set(name.split("/")) or "\\" in name or "\0" in name:
        raise RunError(f"it holds {name!r}, a name that is no file's in a folder.")
      if _is_sent(name):
        found[name] = files.digest({key: str(value) for key, value in about.items()})
    return found

  def _remember(self) -> None:
    kept = {name: [version, *stamp] for name, (version, stamp) in self._same.items()}
    files.write_json(self.local / _STATE, kept)


def _is_sent(name: str) -> bool:
  """Not the copy's own business, nor what is being written."""
  *_, last = name.split("/")
  return last not in (_STATE, _LOCK) and not files.is_part(last) and _UNFINISHED not in name


def _stamp(path: Path) -> Stamp:
  stat = path.stat()
  return Stamp(stat.st_size, stat.st_mtime_ns)


def _opened(url: str) -> tuple[Any, str]:
  """The file system that fsspec has for a URL, and the folder's path in it."""
  import fsspec

  options = {"auto_mkdir": True} if url.startswith("file://") else {}
  try:
    store, root = fsspec.core.url_to_fs(url, **options)
  except ImportError as error:
    raise UsageError(f"--workdir is {url!r}: {error}") from error
  except ValueError as error:
    raise UsageError(
      f"--workdir is {url!r}: {error}. A path, gs:// and s3:// are known."
    ) from error
  return store, root.rstrip("/")


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
  """Whatever a store's package raises, in one line."""
  try:
    yield
  except (RunError, UsageError):
    raise
  except Exception as error:
    said = " ".join(str(error).split())[:200]
    raise RunError(f"{what}: {type(error).__name__}: {said}") from error
