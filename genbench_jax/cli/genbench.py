"""The command `genbench`: imports the subcommand and passes the remaining words to it."""

import importlib
import sys
from collections.abc import Sequence

from genbench_jax.errors import unknown_name
from genbench_jax.runtime.command import run_command
from genbench_jax.runtime.progress import show

# Name -> summary. The module of a subcommand is `cli/NAME.py`, imported on demand.
COMMANDS = {
  "run": "run a config: images, features, scores, recognition, page",
  "plan": "estimate the work and cost of a run",
  "evaluate": "score folders of images as training data, and compare them",
  "report": "rebuild the page of a work folder",
  "compare": "compare runs on one page",
  "show": "draw a contact sheet of an image set",
  "verify": "check every file of a work folder",
  "export": "export an image set or features for other tools",
  "fid": "compute FID and KID between two folders",
  "benchmark": "list, prepare and show the datasets",
  "embed": "make a pool for retrieval from your images",
  "leaks": "find images that resemble test images",
  "pins": "print the settings that pin the checkpoints of a config",
  "prompts": "write the prompts of all images of a config, for other generators",
  "import": "import images that another program generated from these prompts",
  "sanity": "test which metrics detect which flaws of images",
  "submit": "write the results of a work folder to one file",
  "selfcheck": "compare zero-shot accuracy with published values",
}
# Subcommands whose names are Python keywords.
_MODULES = {"import": "import_images"}


def main(words: Sequence[str] | None = None) -> int:
  """Run a subcommand; return its exit status: 0, 1 for a failed run, 2 for a usage error."""
  given = list(sys.argv[1:] if words is None else words)
  if not given or given[0] in ("-h", "--help", "help"):
    show(_help())
    return 0 if given else 2
  if given[0] in ("-V", "--version"):
    from genbench_jax import __version__

    show(f"genbench {__version__}")
    return 0
  name = given[0]
  if name not in COMMANDS:
    return run_command(lambda: _refuse(name))
  module = importlib.import_module(f"genbench_jax.cli.{_MODULES.get(name, name)}")
  return module.main(given[1:])


def _refuse(name: str) -> int:
  raise unknown_name("command", name, COMMANDS)


def _help() -> str:
  width = max(map(len, COMMANDS))
  lines = [f"  {name.ljust(width)}  {what}" for name, what in COMMANDS.items()]
  return "\n".join(
    [
      "usage: genbench COMMAND ...",
      "",
      "How good are generated images as training data for recognition?",
      "",
      *lines,
      "",
      "Use `genbench COMMAND --help` for details. To try the package on its own data:",
      "",
      "  genbench run demo --workdir demo",
      "",
      "Exit status: 0 success; 1 failure; 2 usage error; 130 interrupted; 143 stopped by SIGTERM.",
    ]
  )
