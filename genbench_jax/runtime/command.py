"""Common behavior of all commands: start, exit status and error messages."""

import codecs
import os
import sys
from collections.abc import Callable

from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.disk import disk_reason
from genbench_jax.runtime.progress import say
from genbench_jax.runtime.stopping import StopSignal, stops_on_signals

# Characters of our output, with replacements for terminals that cannot show them.
_PLAIN = str.maketrans({
  "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u00d7": "x", "\u2026": "...", "\u2192": "->",
  "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00a0": " ", "\u202f": " ", "\u00b1": "+-",
})  # fmt: skip


def run_command(work: Callable[[], int], debug: bool = False) -> int:
  """Run a command and return its exit status. Only bugs end in a traceback.

  Args:
    work: the command; returns its status.
    debug: whether to raise errors of usage and runs, to show their traceback.

  Returns:
    The command's own status; 0 if the reader has closed the pipe, 1 for a failed run, 2 for a usage
      error, 130 after Ctrl-C, 143 after SIGTERM.
  """
  speak_plainly()
  try:
    with stops_on_signals():
      return work()
  except StopSignal as stopped:
    say(str(stopped))
    return stopped.status
  except KeyboardInterrupt:  # before our handler was installed, or with another handler
    say(str(StopSignal(2)))
    return 130
  except BrokenPipeError:  # `| head`: the reader has closed the pipe
    _close_output()
    return 0
  except (UsageError, RunError) as error:
    if debug:
      raise
    say_error(error)
    return 2 if isinstance(error, UsageError) else 1
  except (RecursionError, MemoryError) as error:
    if debug:
      raise
    why = "memory is full" if isinstance(error, MemoryError) else "the input is nested too deeply"
    say_error(RunError(f"{why}. Complete files are intact; --debug shows where."))
    return 1
  except (OSError, RuntimeError, ValueError) as error:
    reason = _full_device(error) or _unusable_file(error)
    if debug or not reason:
      raise
    say_error(RunError(f"{reason}. Complete files are intact."))
    return 1


def _unusable_file(error: Exception) -> str:
  """Return which file cannot be used and why, if that is what an error says; else an empty string."""
  where = f" {error.filename}" if isinstance(error, OSError) and error.filename else ""
  return f"cannot use{where}: {reason}" if (reason := disk_reason(error)) else ""


def _full_device(error: Exception) -> str:
  """Return that the memory of a device is full, if that is what an error of XLA says."""
  message = " ".join(str(error).split())
  if not (isinstance(error, RuntimeError) and message.startswith("RESOURCE_EXHAUSTED")):
    return ""
  return (
    f"the memory of a device is full ({message[:200].rstrip('.')}). Set a smaller batch_per_device"
    " or image size, or use more devices"
  )


def say_error(error: Exception) -> None:
  """Print an error in one line, or in several indented lines if it contains a list."""
  say(f"error: {error}")


def speak_plainly() -> None:
  """Replace characters that the terminal cannot show, instead of raising an error."""
  codecs.register_error("genbench_plain", _plain)
  for stream in (sys.stdout, sys.stderr):
    if reconfigure := getattr(stream, "reconfigure", None):
      reconfigure(errors="genbench_plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
  if not isinstance(error, UnicodeEncodeError):
    raise error
  letters = error.object[error.start : error.end].translate(_PLAIN)
  return letters.encode("ascii", "backslashreplace").decode("ascii"), error.end


def _close_output() -> None:
  """Close standard output without Python's message about a broken pipe at exit."""
  descriptor = os.open(os.devnull, os.O_WRONLY)
  os.dup2(descriptor, sys.stdout.fileno())
