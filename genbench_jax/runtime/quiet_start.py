"""Until a command stands, Ctrl-C just ends it: Python's own answer is a traceback through the imports.

To be imported first of all by what is run as a program. `runtime.stopping` takes over as soon as there is work to keep.
"""

import signal
import sys
from pathlib import Path


def _is_our_program() -> bool:
  """Whether the process is a command of this package, not a notebook or a test that imports it."""
  spec = getattr(sys.modules.get("__main__"), "__spec__", None)
  return Path(sys.argv[0]).name == "genbench" or getattr(spec, "name", "").startswith(
    "genbench_jax"
  )


if _is_our_program() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
  signal.signal(signal.SIGINT, signal.SIG_DFL)
