"""Writing in the background: in order, bounded, and errors surface."""

import threading

import pytest

from genbench_jax.store.background import AHEAD, BackgroundWriter


def test_everything_is_written_in_order_when_the_block_ends():
  written = []
  with BackgroundWriter() as background:
    for piece in range(20):
      background.submit(written.append, piece)
  assert written == list(range(20))


def test_no_more_than_a_few_pieces_wait():
  may_go_on, submitted = threading.Event(), []

  def submit_many():
    with BackgroundWriter() as background:
      for piece in range(10):
        background.submit(may_go_on.wait)
        submitted.append(piece)

  thread = threading.Thread(target=submit_many)
  thread.start()
  thread.join(0.2)
  assert len(submitted) <= AHEAD + 1
  may_go_on.set()
  thread.join()
  assert len(submitted) == 10


def test_an_error_surfaces_and_nothing_is_written_after_it():
  written = []

  def fail():
    raise OSError("disk full")

  with pytest.raises(OSError, match="disk full"), BackgroundWriter() as background:
    background.submit(fail)
    for piece in range(20):
      background.submit(written.append, piece)
  assert not written


def test_after_an_error_in_the_block_what_waits_is_dropped():
  started = threading.Event()

  def slow():
    started.set()

  with pytest.raises(KeyError), BackgroundWriter() as background:
    background.submit(slow)
    started.wait()
    raise KeyError
