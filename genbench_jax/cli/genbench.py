"""The command `genbench`: finds the subcommand and hands it the words after its name."""

import importlib
import sys
from collections.abc import Sequence

from genbench_jax.errors import unknown_name
from genbench_jax.runtime.command import run_command
from genbench_jax.runtime.progress import show

# Name -> what it does. The module of a subcommand is `cli/NAME.py`, imported when it is asked for.
COMMANDS = {
  "run": "run a config: images, features, scores, recognition, page",
  "plan": "say what a run would make, take and cost, and do nothing",
  "evaluate": "score folders of images as training data, and compare them",
  "report": "make the page of a work folder again",
  "compare": "set runs side by side on one page",
  "show": "draw a contact sheet of an image set",
  "verify": "read every file of a work folder again, and name what is wrong",
  "export": "write an image set or features for other tools",
  "fid": "measure the FID and KID of two folders as papers quote them",
  "benchmark": "list, prepare and show the datasets",
  "embed": "make a pool for retrieval from images of your own",
  "leaks": "find images that may be test images",
  "pins": "print the settings that pin the checkpoints of a config",
  "prompts": "write a list of every image that a config wants, for any program to make",
  "import": "take in the images that another program has made of such a list",
  "sanity": "see which metric notices which fault of the images",
  "submit": "write the results of a work folder as one file for others",
  "selfcheck": "check the set-up: zero-shot recognition beside published figures",
}
# Where the name is a word of Python.
_MODULES = {"import": "import_images"}


def main(words: Sequence[str] | None = None) -> int:
  """Run a subcommand; return its exit status: 0, 1 for a failed run, 2 for a mistake in usage."""
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
      "`genbench COMMAND --help` says more. A first try, on data that ships with the package:",
      "",
      "  genbench run demo --workdir demo",
      "",
      "Exit status: 0 done; 1 failed; 2 a mistake in usage; 130 interrupted; 143 stopped by SIGTERM.",
    ]
  )
