"""Signal handling during imports: a signal ends the process with one line, not a traceback.

The package imports this module first. `runtime.stopping` takes over when there is work to keep.
"""

import itertools
import os
import signal
import sys
from pathlib import Path
from types import FrameType

_ENDS = {
  signal.SIGINT: (130, b"stopped by Ctrl-C. Status 130.\n"),
  signal.SIGTERM: (143, b"stopped by SIGTERM. Status 143.\n"),
}


def _is_our_program() -> bool:
  """Return whether the process is a command of this package, not a notebook or test."""
  # While Python imports the package of `-m MODULE`, `sys.argv` does not name the module yet.
  words = sys.orig_argv[1:]
  by_module = any(a == "-m" and b.startswith("genbench_jax") for a, b in itertools.pairwise(words))
  return by_module or Path(sys.argv[0]).name == "genbench"


def _end(number: int, frame: FrameType | None) -> None:
  status, words = _ENDS[signal.Signals(number)]
  os.write(2, words)
  os._exit(status)


if _is_our_program():
  for _number in _ENDS:
    if signal.getsignal(_number) in (signal.default_int_handler, signal.SIG_DFL):
      signal.signal(_number, _end)
