"""A work folder in an object store (`gs://`, `s3://`, whatever fsspec knows), copied to a local folder and back.

The work is done on the local copy, in files that are whole as soon as they have their name (`store.files`); objects too
appear whole. So it is enough to send what has appeared, oldest first, again and again: whoever takes the bucket up, on
another machine, finds a work folder that was stopped a few seconds earlier. One run at a time may write (`lease`).

A bucket that goes away is told within a minute and tried again every ten seconds, while the work goes on. After
`OUTAGE_SECONDS`, or `LAST_SECONDS` after the work is done, the run ends with status 1: what it has made is in the copy, and
the same command on this machine sends it. Where several processes share a bucket, each has
a copy; before they wait for each other they send, and afterwards they fetch (`parallel.hosts`).
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
# A machine that dies loses what it made since it sent last.
SECONDS_BETWEEN_SENDING = 10
# After so long without the bucket: a line; the end of the run; the end of a run that has nothing else left to do.
NOTICE_SECONDS, OUTAGE_SECONDS, LAST_SECONDS = 30.0, 900.0, 60.0
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
def work_folder(
  given: str, process: int = 0, wait: Callable[[str], None] = lambda what: None
) -> Iterator[Path]:
  """The local folder of what `--workdir` names: itself, or a copy, brought in line before, meanwhile and in the end.

  Args:
    given: a path or URL.
    process: of several; the first holds the lease of the bucket for all.
    wait: for the other processes.

  Raises:
    UsageError: no package at hand can reach the URL, it can't be read, or another run is using it.
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
  """The bucket and its copy, in line and leased."""
  mirror = Mirror(given, local)
  say(f"the work is done in a copy of {given}, {local}")
  lease = None
  try:
    if process == 0:
      lease = mirror.leased()
    wait("the lease of the bucket")
    mirror.fetch()
    # Written here, sent now: whether the store takes anything is known before the work begins.
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
  """Hold the copy before anything in it is touched: another run on this machine may be at work in it."""
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
  """A name of this machine and account that no other has, drawn once."""
  path = COPIES.expanduser().with_name("machine")
  if not path.exists():
    files.write_text(path, secrets.token_hex(16))
  return path.read_text(encoding="utf-8")


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
    self._lease: Lease | None = None
    # Since when it has been tried to send, without success so far.
    self._tried_since: float | None = None
    self._told, self._reason = False, ""
    # Name -> version in the store, and stamp of the file, when both were last the same. What has gone from the copy
    # while nobody looked is forgotten, so that it is fetched again, not deleted from the store.
    self._same: dict[str, tuple[str, Stamp]] = {}
    state = local / _STATE
    stamps = self._stamps()
    for name, (version, *stamp) in (files.read_json(state) if state.exists() else {}).items():
      if name in stamps:
        self._same[name] = (version, Stamp(*stamp))

  def leased(self) -> Lease:
    """Take the lease of the bucket; nothing is sent from then on once it is lost.

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
    """Bring to the store what has changed in the copy, in the order in which it did.

    Raises:
      RunError: the store can't be written to, or another run has taken the bucket over.
    """
    self._tried_since = self._tried_since or time.monotonic()
    with self._turn:
      self._send()
    if self._told:
      say(f"{self.url} is back")
    self._tried_since, self._told = None, False

  def send_at_last(self) -> None:
    """Send, and try again for a while: there is nothing else left to do.

    Raises:
      RunError: the store is away. What is in the copy can be sent by the same command.
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
    return (
      f"What is complete is in {self.local}: the same command on this machine goes on and sends it."
    )

  def _tell_outage(self, reason: str) -> None:
    """Say once that the store is away, and why as far as it is known."""
    if not self._told:
      self._told = True
      say(
        f"{reason or f'{self.url} does not answer'}. It is tried again every {SECONDS_BETWEEN_SENDING} s."
      )

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
          del stamps[name]  # deleted since it was listed: the next time tells
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
    watcher = threading.Thread(target=self._watch, args=(stop,), name="outage", daemon=True)
    sender.start()
    watcher.start()
    try:
      with around_waits(self.send, self.fetch):
        yield
    finally:
      stop.set()
      # A store that does not answer may hold it for minutes: the last sending waits for its turn anyhow.
      sender.join(timeout=LAST_SECONDS)
      watcher.join()

  def _keep_sending(self, stop: threading.Event) -> None:
    while not stop.wait(SECONDS_BETWEEN_SENDING):
      try:
        self.send()
        self._reason = ""
      except RunError as error:  # tried again next time
        self._reason = str(error)

  def _watch(self, stop: threading.Event) -> None:
    """Tell of an outage and end the run by it, also where the store's package waits for minutes without a word."""
    while not stop.wait(1.0):
      away = time.monotonic() - (self._tried_since or time.monotonic())
      if away > NOTICE_SECONDS:
        self._tell_outage(self._reason)
      if away > OUTAGE_SECONDS:
        reason = self._reason or f"{self.url} does not answer"
        fail_at_next_look(
          RunError(f"{reason}. So for {away / 60:.0f} minutes. {self._how_to_go_on()}")
        )
        return

  def _appeared(self, name: str) -> int:
    """When a file got its name; at no time if it has gone."""
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


def _is_final(error: RunError) -> bool:
  """Whether trying again is of no use: there is no permission, or another run has taken the bucket over."""
  return error.__cause__ is None or isinstance(error.__cause__, PermissionError)


def _is_sent(name: str) -> bool:
  """Not the copy's own business, nor what is being written."""
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
  """The file system that fsspec has for a URL, and the folder's path in it."""
  import fsspec

  options: dict[str, Any] = {"auto_mkdir": True} if url.startswith("file://") else {}
  if url.startswith("s3://"):  # its own patience is ten minutes an object
    patience = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 2}}
    options["config_kwargs"] = patience
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
