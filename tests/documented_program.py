"""Program of `test_documented_commands`: run commands of the package in one process on one device.

An input line is `[module, [argument, ...], {setting: value}]` as JSON; an output line is `[exit
status, output]`. The settings are defaults of `genbench evaluate`, which has no flags for them.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import os
import sys
import traceback
from typing import Any
from unittest import mock


def run(module: str, arguments: list[str], settings: dict[str, Any]) -> tuple[int, str]:
  """Run like `python -m module`, reusing compiled programs and loaded modules."""
  said = io.StringIO()
  with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), with_defaults(settings):
    try:
      status = main_of(module)(arguments)
    except SystemExit as error:
      status = error.code if isinstance(error.code, int) else 1
    except BaseException:
      traceback.print_exc()
      status = 1
  return status, said.getvalue()


def with_defaults(settings: dict[str, Any]):
  """Give an evaluation other defaults."""
  from genbench_jax.pipeline import evaluate

  usual = evaluate.default_config

  def config():
    found = usual()
    # JSON has no tuples.
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    found.update_from_flattened_dict(values)
    return found

  return mock.patch.object(evaluate, "default_config", config)


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
