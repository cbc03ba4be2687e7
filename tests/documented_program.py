"""Program of `test_documented_commands`: run commands of the package in one process on one device.

An input line is `[module, [argument, ...]]` as JSON; an output line is `[exit status, output]`.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import os
import sys
import traceback


def run(module: str, arguments: list[str]) -> tuple[int, str]:
  """Run like `python -m module`, reusing compiled programs and loaded modules."""
  said = io.StringIO()
  with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
    try:
      status = main_of(module)(arguments)
    except SystemExit as error:
      status = error.code if isinstance(error.code, int) else 1
    except BaseException:
      traceback.print_exc()
      status = 1
  return status, said.getvalue()


def main_of(module: str):
  spec = importlib.util.find_spec(module)
  inner = f"{module}.__main__" if spec.submodule_search_locations else module
  main = importlib.import_module(inner).main
  # Only this command takes its own name first, as absl does.
  return (lambda words: main([module, *words])) if module == "genbench_jax.main" else main


def serve() -> None:
  lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
  for line in sys.stdin:
    print(json.dumps(run(*json.loads(line))), file=lines)


if __name__ == "__main__":
  serve()
