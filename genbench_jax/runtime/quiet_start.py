"""Signal handling during imports: a signal ends the process with one line, not a traceback.

Programs import this module first. `runtime.stopping` takes over when there is work to keep.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

_ENDS = {
  signal.SIGINT: (130, b"stopped by Ctrl-C before anything was begun. Status 130.\n"),
  signal.SIGTERM: (143, b"stopped by SIGTERM before anything was begun. Status 143.\n"),
}


def _is_our_program() -> bool:
  """Return whether the process is a command of this package, not a notebook or test."""
  spec = getattr(sys.modules.get("__main__"), "__spec__", None)
  return Path(sys.argv[0]).name == "genbench" or getattr(spec, "name", "").startswith(
    "genbench_jax"
  )


def _end(number: int, frame: FrameType | None) -> None:
  status, words = _ENDS[signal.Signals(number)]
  os.write(2, words)
  os._exit(status)


if _is_our_program():
  for _number in _ENDS:
    if signal.getsignal(_number) in (signal.default_int_handler, signal.SIG_DFL):
      signal.signal(_number, _end)
