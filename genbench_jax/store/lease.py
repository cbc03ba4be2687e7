"""A lease that lets one run at a time use a bucket, from any machine.

Leases are numbered objects, and the highest number counts. The holder rewrites its lease every few seconds.
Another run that finds a lease watches whether it changes. If it does, the bucket is in use. If it does not
change for a minute (on the finder's clock), the holder is presumed dead, and the finder creates the next
number. The store's conditional write lets only one of several contenders create an object, and no run
overwrites another run's lease. A holder that resumes after a minute finds a higher number, and stops.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.printable import printable
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.stopping import look

FOLDER = ".lease"
BEAT_SECONDS = 8.0
SILENT_SECONDS = 60.0
LOOK_SECONDS = 2.0


class LeaseRecord(NamedTuple):
  """A lease as read from the store."""

  number: int
  token: str
  machine: str
  holder: str
  beat: int


class Lease:
  """The lease of a bucket folder.

  Args:
    store: an fsspec file system.
    root: the folder's path in it.
    url: the folder's URL, for messages.
    machine: id of this machine. Leases left by killed runs on the same machine are taken over at once.
  """

  def __init__(self, store: Any, root: str, url: str, machine: str) -> None:
    self._store, self._folder, self._url, self._machine = store, f"{root}/{FOLDER}", url, machine
    self._token, self._number, self._beat = secrets.token_hex(8), 0, 0
    self._stop = threading.Event()
    self._thread: threading.Thread | None = None

  def acquire(self) -> None:
    """Acquire the lease; wait until it is clear whether another holder is alive.

    Raises:
      UsageError: another run holds it.
    """
    seen, since, told = None, time.monotonic(), False
    while True:
      look()
      found = self._newest()
      if found != seen:
        if seen and found and (found.number, found.token) == (seen.number, seen.token):
          raise UsageError(
            f"--workdir is {self._url!r}: it is in use by another run ({printable(found.holder)[:120]})."
            " Wait for it, or give another --workdir."
          )
        seen, since = found, time.monotonic()
      silent = time.monotonic() - since
      if found is None or found.machine == self._machine or silent >= SILENT_SECONDS:
        if self._created((found.number if found else 0) + 1):
          return
        continue
      if not told:
        told = True
        say(
          f"{self._url} is held by {printable(found.holder)[:120]}: waiting up to {SILENT_SECONDS:g} s to see whether it is alive"
        )
      time.sleep(LOOK_SECONDS)

  def keep(self, lost: Callable[[RunError], None]) -> None:
    """Renew the lease every few seconds in a thread; call `lost` if another run has taken it."""
    self._thread = threading.Thread(target=self._keep, args=(lost,), name="lease", daemon=True)
    self._thread.start()

  def check(self) -> None:
    """Check that the lease is still held. Call this before every write.

    Raises:
      RunError: another run has taken it.
    """
    found = self._newest()
    if found is None or found.token != self._token:
      who = f" ({printable(found.holder)[:120]})" if found else ""
      raise RunError(
        f"{self._url} has been taken over by another run{who}, because this run did not renew its lease for a minute."
        " Complete files in the bucket are kept; nothing more is written to it."
      )

  def release(self) -> None:
    """Stop renewing the lease and delete it; if it can't be deleted, it expires."""
    self._stop.set()
    if self._thread:
      self._thread.join(timeout=BEAT_SECONDS)
    with contextlib.suppress(Exception):  # stores raise many types
      self.check()
      self._store.rm_file(self._path(self._number))

  def _keep(self, lost: Callable[[RunError], None]) -> None:
    while not self._stop.wait(BEAT_SECONDS):
      try:
        self.check()
        self._beat += 1
        self._store.pipe_file(self._path(self._number), self._content())
      except RunError as error:
        lost(error)
        return
      except Exception:  # the store is unreachable, which `send` reports
        continue

  def _created(self, number: int) -> bool:
    """Try to create the lease with this number; only one of several contenders succeeds."""
    self._number = number
    try:
      self._store.pipe_file(self._path(number), self._content(), mode="create")
    except Exception:  # stores raise different types if the object exists
      found = self._newest()
      if found is None or found.number < number:
        raise
    found = self._newest()
    if found is None or found.token != self._token:
      return False
    for older in self._numbers():
      if older < number:
        with contextlib.suppress(Exception):
          self._store.rm_file(self._path(older))
    return True

  def _newest(self) -> LeaseRecord | None:
    """Return the lease with the highest number; one that can't be read counts like any other."""
    numbers = self._numbers()
    if not numbers:
      return None
    number = max(numbers)
    try:
      about = json.loads(self._store.cat_file(self._path(number)))
      token, machine, holder = (str(about[key]) for key in ("token", "machine", "holder"))
      return LeaseRecord(number, token, machine, holder, int(about["beat"]))
    except FileNotFoundError:  # released since it was listed
      return None
    except (ValueError, LookupError, TypeError):
      return LeaseRecord(number, "", "", "somebody", 0)

  def _numbers(self) -> list[int]:
    self._store.invalidate_cache()
    try:
      names = self._store.find(self._folder)
    except FileNotFoundError:
      return []
    lasts = (name.rpartition("/")[2] for name in names)
    return [int(last) for last in lasts if last.isdecimal() and len(last) <= 12]

  def _path(self, number: int) -> str:
    return f"{self._folder}/{number:08d}"

  def _content(self) -> bytes:
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    about = {"token": self._token, "machine": self._machine, "holder": holder, "beat": self._beat}
    return json.dumps(about).encode()
