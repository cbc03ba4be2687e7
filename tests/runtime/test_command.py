"""Exit status, messages and characters of every command."""

import errno
import io
import os
import sys

import pytest

from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.command import run_command, say_error, speak_plainly


def _ending(error, debug=False):
  def work():
    raise error

  return run_command(work, debug)


def test_the_status_of_the_work_is_returned():
  assert run_command(lambda: 3) == 3


@pytest.mark.parametrize(
  ("error", "status", "said"),
  [
    (UsageError("no such thing."), 2, "error: no such thing."),
    (RunError("lost a file."), 1, "error: lost a file."),
    (OSError(errno.ENOSPC, "No space left", "/d/f"), 1, "error: cannot use /d/f: "),
    (
      OSError(errno.EISDIR, "Is a directory", "/d"),
      1,
      "error: cannot use /d: Is a directory. Comp",
    ),
    (OSError(errno.EINVAL, "not a regular file", "/d/f"), 1, "error: cannot use /d/f: not a reg"),
    (RecursionError("maximum recursion depth"), 1, "error: the input is nested too deeply"),
    (MemoryError(), 1, "error: memory is full"),
    (
      RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\n[tf-allocator]"),
      1,
      "error: the memory of a device is full (RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.",
    ),
  ],
)
def test_an_error_is_one_line(error, status, said, capsys):
  assert _ending(error) == status
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(said)


@pytest.mark.parametrize("error", [UsageError("x"), OSError(errno.ENOSPC, "full"), ValueError("y")])
def test_debug_and_bugs_end_in_a_traceback(error):
  with pytest.raises(type(error)):
    _ending(error, debug=True)


def test_a_bug_is_not_taken_for_a_full_disk():
  with pytest.raises(ValueError, match="shapes differ"):
    _ending(ValueError("shapes differ"))


def test_names_from_outside_cannot_imitate_our_output(capsys):
  say_error(RunError("two files:\n  a\n  b\nerror: all is well"))
  assert capsys.readouterr().err.splitlines() == [
    "error: two files:",
    "  a",
    "  b\\nerror: all is well",
  ]


@pytest.mark.parametrize(
  ("text", "shown"), [("3 × 4 − 1…", b"3 x 4 - 1..."), ("naïve", b"na\\xefve"), ("a→b", b"a->b")]
)
def test_a_terminal_without_unicode_gets_replacements(text, shown, monkeypatch):
  raw = io.BytesIO()
  monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
  speak_plainly()
  sys.stdout.write(text)
  sys.stdout.flush()
  assert raw.getvalue() == shown


def test_a_closed_pipe_ends_with_status_0(monkeypatch):
  reader, writer = os.pipe()
  os.close(reader)
  with os.fdopen(writer, "w") as pipe:
    monkeypatch.setattr(sys, "stdout", pipe)
    assert run_command(lambda: bool(print("x", flush=True))) == 0
    print("more goes nowhere", flush=True)
