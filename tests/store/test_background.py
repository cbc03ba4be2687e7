"""Background writing: in order, bounded, and with errors raised to the caller."""

import threading
import time

import pytest

from genbench_jax.store.background import BackgroundWriter


def test_everything_is_written_in_order_when_the_block_ends():
  written = []
  with BackgroundWriter() as background:
    for piece in range(20):
      background.submit(written.append, piece)
  assert written == list(range(20))


def test_the_queue_is_bounded():
  may_go_on, submitted = threading.Event(), []

  def submit_many():
    with BackgroundWriter() as background:
      for piece in range(10):
        background.submit(may_go_on.wait)
        submitted.append(piece)

  thread = threading.Thread(target=submit_many)
  thread.start()
  limit = time.monotonic() + 10
  while len(submitted) < 2 and time.monotonic() < limit:
    time.sleep(0.01)
  thread.join(0.2)  # must now be blocked: one call runs, and one waits
  assert len(submitted) == 2
  may_go_on.set()
  thread.join()
  assert len(submitted) == 10


def test_an_error_is_raised_and_nothing_is_written_after_it():
  written = []

  def fail():
    raise OSError("disk full")

  with pytest.raises(OSError, match="disk full"), BackgroundWriter() as background:
    background.submit(fail)
    for piece in range(20):
      background.submit(written.append, piece)
  assert not written


def test_an_error_in_the_block_drops_pending_values():
  started = threading.Event()

  may_go_on, written = threading.Event(), []

  def slow():
    started.set()
    may_go_on.wait()

  with pytest.raises(KeyError), BackgroundWriter() as background:
    background.submit(slow)
    background.submit(written.append, 1)
    started.wait()
    # By then the block has ended and pending values have been dropped.
    threading.Timer(0.2, may_go_on.set).start()
    raise KeyError
  assert not written


def test_values_submitted_before_the_error_are_not_written_either():
  may_fail, written = threading.Event(), []

  def fail():
    may_fail.wait()
    raise OSError("disk full")

  with pytest.raises(OSError, match="disk full"), BackgroundWriter() as background:
    background.submit(fail)
    background.submit(written.append, 1)
    may_fail.set()
  assert not written
