"""Mirror a work folder in an object store (`gs://`, `s3://`, any URL of fsspec) to a local folder and back.

Work is done on the local copy, whose files are complete as soon as they exist (`store.files`), and so are
objects in a bucket. It is therefore enough to send new files repeatedly, oldest first: another machine that
continues from the bucket finds a work folder that was stopped a few seconds earlier. Only one run at a time
may write (`lease`).

If the bucket becomes unreachable, the run reports it within a minute, keeps working, and retries every ten
seconds. After `OUTAGE_SECONDS`, or `LAST_SECONDS` after the work is done, the run ends with status 1. Its
results are in the copy, and the same command on this machine sends them. If several processes share a
bucket, each has its own copy; they send before waiting for each other, and fetch afterwards
(`runtime.hosts`).
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.stopping import fail_at_next_look, look
from genbench_jax.store import files
from genbench_jax.store.lease import FOLDER, Lease

COPIES = Path("~/.cache/genbench_jax/workdirs")
# A machine that dies loses what it made since it last sent.
SECONDS_BETWEEN_SENDING = 10
# Seconds without the bucket until a notice, the end of the run, and the end of a run whose work is done.
NOTICE_SECONDS, OUTAGE_SECONDS, LAST_SECONDS = 30.0, 900.0, 60.0
_STATE, _URL, _LOCK, _UNFINISHED = ".mirror.json", ".url", ".lock", "orbax-checkpoint-tmp"


class Stamp(NamedTuple):
  """Size and time that distinguish versions of a local file."""

  size: int
  changed: int  # nanoseconds


def is_remote(workdir: str) -> bool:
  """Return whether a work folder is a URL rather than a path."""
  return "://" in workdir


def local_copy(workdir: str, process: int = 0) -> Path:
  """Return the local folder for `--workdir`, for one process of a run."""
  if not is_remote(workdir):
    return Path(workdir).expanduser()
  return COPIES.expanduser() / f"{files.digest(workdir)}-{process}"


@contextlib.contextmanager
def work_folder(
  given: str, process: int = 0, wait: Callable[[str], None] = lambda what: None
) -> Iterator[Path]:
  """Yield the local folder for `--workdir`: the folder itself, or a copy that is kept in sync.

  Args:
    given: a path or URL.
    process: index of the process; the first one holds the bucket's lease for all.
    wait: waits for the other processes.

  Raises:
    UsageError: no installed package supports the URL, it can't be read, or another run is using it.
    RunError: an object can't be written.
  """
  local = local_copy(given, process)
  if not is_remote(given):
    yield local
    return
  with _only_user_of_copy(local, given), _bucket(given, local, process, wait) as mirror:
    try:
      with mirror.kept_in_line():
        yield local
    except BaseException:
      with contextlib.suppress(RunError):  # the first error counts
        mirror.send()
      raise
    mirror.send_at_last()


@contextlib.contextmanager
def _bucket(
  given: str, local: Path, process: int, wait: Callable[[str], None]
) -> Iterator["Mirror"]:
  """Yield the mirror of a bucket, in sync and leased."""
  mirror = Mirror(given, local)
  say(f"the work is done in a copy of {given}, {local}")
  lease = None
  try:
    if process == 0:
      lease = mirror.leased()
    wait("the lease of the bucket")
    mirror.fetch()
    # Sent now, so that a store that is not writable is noticed before the work begins.
    if process == 0 and not (local / _URL).exists():
      files.write_text(local / _URL, f"{given}\n")
    mirror.send()
  except RunError as error:
    if lease:
      lease.release()
    raise UsageError(f"--workdir is {given!r}: {error}") from error
  try:
    yield mirror
  finally:
    if lease:
      lease.release()


@contextlib.contextmanager
def _only_user_of_copy(local: Path, given: str) -> Iterator[None]:
  """Lock the copy before anything in it is touched, since another run on this machine may be using it."""
  from filelock import FileLock, Timeout

  local.parent.mkdir(parents=True, exist_ok=True)
  lock = FileLock(local.with_name(f"{local.name}.lock"), timeout=0)
  try:
    lock.acquire()
  except Timeout as error:
    raise UsageError(
      f"--workdir is {given!r}: another run on this machine is using it. Wait for it, or give another --workdir."
    ) from error
  try:
    yield
  finally:
    lock.release()


def _machine() -> str:
  """Return a random id of this machine and account, created once."""
  path = COPIES.expanduser().with_name("machine")
  if not path.exists():
    files.write_text(path, secrets.token_hex(16))
  return files.read_text(path)


class Mirror:
  """Synchronize a URL and a local folder.

  Args:
    url: URL of a folder, which need not exist.
    local: the copy; may contain an older version.
  """

  def __init__(self, url: str, local: Path) -> None:
    self.url, self.local = url, local
    self._store, self._root = _opened(url)
    self._turn = threading.RLock()
    self._lease: Lease | None = None
    # Start of the current attempts to send, if none has succeeded since.
    self._tried_since: float | None = None
    self._told, self._reason = False, ""
    # Name -> (version in the store, stamp of the file) when both were last in sync. Files deleted from the
    # copy between runs are dropped here, so that they are fetched again, not deleted from the store.
    self._same: dict[str, tuple[str, Stamp]] = {}
    state = local / _STATE
    stamps = self._stamps()
    for name, (version, *stamp) in (files.read_json(state) if state.exists() else {}).items():
      if name in stamps:
        self._same[name] = (version, Stamp(*stamp))

  def leased(self) -> Lease:
    """Acquire the bucket's lease; if it is lost later, nothing more is sent.

    Raises:
      UsageError: another run holds it.
      RunError: the store can't be written to.
    """
    with _named(f"can't use {self.url}"):
      lease = Lease(self._store, self._root, self.url, _machine())
      lease.acquire()
    lease.keep(fail_at_next_look)
    self._lease = lease
    return lease

  def send(self) -> None:
    """Send files that changed in the copy, in the order of their changes.

    Raises:
      RunError: the store can't be written to, or another run has taken over the bucket.
    """
    self._tried_since = self._tried_since or time.monotonic()
    with self._turn:
      self._send()
    if self._told:
      say(f"{self.url} is reachable again")
    self._tried_since, self._told = None, False

  def send_at_last(self) -> None:
    """Send, and retry for a while if necessary. For the end of a run.

    Raises:
      RunError: the store is unreachable. The same command can send the copy later.
    """
    until = time.monotonic() + LAST_SECONDS
    while True:
      try:
        return self.send()
      except RunError as error:
        if time.monotonic() >= until or _is_final(error):
          raise RunError(f"{error}. {self._how_to_go_on()}") from error
        self._tell_outage(str(error))
      time.sleep(min(SECONDS_BETWEEN_SENDING, max(0.1, until - time.monotonic())))
      look()

  def _how_to_go_on(self) -> str:
    return f"Complete results are in {self.local}; the same command on this machine continues and sends them."

  def _tell_outage(self, reason: str) -> None:
    """Report once that the store is unreachable, with the reason if known."""
    if not self._told:
      self._told = True
      say(f"{reason or f'{self.url} does not answer'}. Retrying every {SECONDS_BETWEEN_SENDING} s.")

  def _send(self) -> None:
    with _named(f"can't write to {self.url}"):
      stamps = self._stamps()
      changed = [name for name, stamp in stamps.items() if self._stamp_at_last(name) != stamp]
      if self._lease and (changed or self._same.keys() - stamps.keys()):
        self._lease.check()
      for name in sorted(changed, key=self._appeared):
        try:
          self._store.put_file(str(self.local / name), f"{self._root}/{name}")
        except FileNotFoundError:
          if (self.local / name).exists():
            raise
          del stamps[name]  # deleted since it was listed; the next call handles it
      changed = [name for name in changed if name in stamps]
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
    """Fetch objects that changed in the store, after sending unsent files of the copy."""
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
            continue  # deleted by another process since it was listed
          self._same[name] = (version, _stamp(self.local / name))
      for name in self._same.keys() - versions.keys():
        (self.local / name).unlink(missing_ok=True)
        del self._same[name]
      self._remember()

  @contextlib.contextmanager
  def kept_in_line(self) -> Iterator[None]:
    """Send every few seconds, and send and fetch where processes wait for each other."""
    from genbench_jax.runtime.hosts import around_waits

    stop = threading.Event()
    sender = threading.Thread(target=self._keep_sending, args=(stop,), name="send", daemon=True)
    watcher = threading.Thread(target=self._watch, args=(stop,), name="outage", daemon=True)
    sender.start()
    watcher.start()
    try:
      with around_waits(self.send, self.fetch):
        yield
    finally:
      stop.set()
      # An unresponsive store may block the sender for minutes; the last `send` waits for its turn anyway.
      sender.join(timeout=LAST_SECONDS)
      watcher.join()

  def _keep_sending(self, stop: threading.Event) -> None:
    while not stop.wait(SECONDS_BETWEEN_SENDING):
      try:
        self.send()
        self._reason = ""
      except RunError as error:  # retried next time
        self._reason = str(error)

  def _watch(self, stop: threading.Event) -> None:
    """Report an outage, and end the run if it lasts, even while the store's package blocks silently."""
    while not stop.wait(1.0):
      away = time.monotonic() - (self._tried_since or time.monotonic())
      if away > NOTICE_SECONDS:
        self._tell_outage(self._reason)
      if away > OUTAGE_SECONDS:
        reason = self._reason or f"{self.url} does not answer"
        fail_at_next_look(
          RunError(f"{reason}. This has lasted for {away / 60:.0f} minutes. {self._how_to_go_on()}")
        )
        return

  def _appeared(self, name: str) -> int:
    """Return when a file got its name; 0 if it has been deleted."""
    try:
      return (self.local / name).stat().st_ctime_ns
    except FileNotFoundError:
      return 0

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
    """Return name -> version of all objects. A version is a digest of all metadata that the store gives."""
    self._store.invalidate_cache()
    try:
      listed: dict[str, Any] = self._store.find(self._root, detail=True)
    except FileNotFoundError:
      return {}
    found = {}
    for path, about in listed.items():
      name = path.removeprefix(self._root).lstrip("/")
      if not name or name.endswith("/"):
        continue  # an empty object that represents a folder
      if {"", ".", ".."} & set(name.split("/")) or "\\" in name or "\0" in name:
        raise RunError(f"it contains {name!r}, which is not a valid file name.")
      if _is_sent(name):
        found[name] = files.digest({key: str(value) for key, value in about.items()})
    return found

  def _remember(self) -> None:
    kept = {name: [version, *stamp] for name, (version, stamp) in self._same.items()}
    files.write_json(self.local / _STATE, kept)


def _is_final(error: RunError) -> bool:
  """Return whether retrying is pointless: permission is denied, or another run has taken over the bucket."""
  return error.__cause__ is None or isinstance(error.__cause__, PermissionError)


def _is_sent(name: str) -> bool:
  """Return whether to send a file: not the copy's own state, and not a temporary file."""
  *_, last = name.split("/")
  return (
    not name.startswith(f"{FOLDER}/")
    and last not in (_STATE, _LOCK)
    and not files.is_part(last)
    and _UNFINISHED not in name
  )


def _stamp(path: Path) -> Stamp:
  stat = path.stat()
  return Stamp(stat.st_size, stat.st_mtime_ns)


def _opened(url: str) -> tuple[Any, str]:
  """Return fsspec's file system for a URL, and the folder's path in it."""
  import fsspec

  options: dict[str, Any] = {"auto_mkdir": True} if url.startswith("file://") else {}
  if url.startswith("s3://"):  # the default timeout is ten minutes per object
    patience = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}
    options["config_kwargs"] = patience
  try:
    store, root = fsspec.core.url_to_fs(url, **options)
  except ImportError as error:
    raise UsageError(f"--workdir is {url!r}: {error}") from error
  except ValueError as error:
    raise UsageError(f"--workdir is {url!r}: {error}. Give a path, gs:// or s3://.") from error
  return store, root.rstrip("/")


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
  """Turn any error of a store's package into a one-line `RunError`."""
  try:
    yield
  except (RunError, UsageError):
    raise
  except Exception as error:
    message = " ".join(str(error).split())[:200]
    raise RunError(f"{what}: {type(error).__name__}: {message}") from error
