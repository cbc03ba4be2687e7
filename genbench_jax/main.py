"""The command that reads the config, starts JAX and runs the stages.

    python -m genbench_jax.main --config configs/demo.py --workdir demo
    python -m genbench_jax.main --config configs/demo.py --workdir demo --config.generation.steps=20
    python -m genbench_jax.main --config configs/demo.py --workdir demo --stages=score,report
    python -m genbench_jax.main --config configs/full.py --plan --machine v5e-64

Exit status: 0 for success; 1 if the run or some of its cells failed; 2 for a usage error; 130 if
interrupted; 143 if stopped by SIGTERM. On several hosts, run the same command on each, with a work
folder that all of them see; see launch/README.md.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from genbench_jax import __version__
from genbench_jax.cli.flags import add_run, address_in, with_config
from genbench_jax.cli.subcommand import Parser, subcommand
from genbench_jax.config import STAGES, Config, make_config
from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.runtime.address import Address, one_of_several
from genbench_jax.runtime.jax_start import start_jax
from genbench_jax.runtime.progress import show
from genbench_jax.runtime.rendezvous import errors_told, meet
from genbench_jax.runtime.stopping import leave, look
from genbench_jax.runtime.supervision import supervised

# Variables of the environment that change numbers.
_SHARED_VARIABLES = "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION"


def _read(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
  """Parse the words; tell the other processes, which would wait, about an error in them."""
  with errors_told(address_in(words)):
    return with_config(parser, words)


@subcommand("run", add_run, __doc__, _read)
def run(options: argparse.Namespace) -> int:
  """Run the stages, or print the plan."""
  if options.plan:
    _stages(options.stages)
    return _plan(options)
  address = _address(options)
  with errors_told(address):
    stages, given = _stages(options.stages), _workdir(options.workdir)
    config = make_config(options.config)
  common = _common(config, stages, options)
  if address.is_given:
    # Before the import of JAX, which takes seconds, so that errors of a launch script are reported
    # within a minute.
    meet(address, common)
  start_jax()
  look()  # the import takes seconds without a check for signals
  from genbench_jax.pipeline.stages import run_stages
  from genbench_jax.runtime.hosts import processes
  from genbench_jax.store.mirror import work_folder
  from genbench_jax.store.workdir import locked

  look()
  several = address.is_given or one_of_several((), os.environ)
  with (
    processes(address, several, common) as hosts,
    work_folder(given, hosts.number, hosts.wait) as workdir,
    locked(workdir, hosts),
    _tracking(config, workdir) if hosts.is_first else contextlib.nullcontext(),
  ):
    run_stages(config, workdir, stages, options.command, options.keep_going)
  return 0


def main(argv: Sequence[str]) -> int:
  """Run the command; return its exit status, see `runtime.command.run_command`.

  Args:
    argv: name of the program, then the words of the command line.
  """
  program = argv[0] if argv[0].startswith("genbench ") else "python -m genbench_jax.main"
  return run(argv[1:], program)


def _common(
  config: Config, stages: Sequence[str], options: argparse.Namespace
) -> dict[str, object]:
  """Return what all processes of a run must share, by its user-visible names."""
  common: dict[str, object] = {
    "version": __version__,
    "jax": metadata.version("jax"),
    "--stages": ",".join(stages),
    "--keep-going": options.keep_going,
    # Paths of one folder may differ between hosts.
    "--workdir": options.workdir if "://" in options.workdir else "a folder",
    **{name: os.environ.get(name, "") for name in _SHARED_VARIABLES},
  }
  waiting: list[tuple[str, Any]] = [("--config", dataclasses.asdict(config))]
  for name, value in waiting:
    if isinstance(value, dict):
      waiting += [(f"{name}.{key}", inner) for key, inner in value.items()]
    elif name != "--config.data_dir":  # paths of the same data may differ between hosts
      common[name] = value
  return common


def _tracking(config: Config, workdir: Path) -> contextlib.AbstractContextManager[None]:
  """Return the trackers of the config."""
  from genbench_jax.report.trackers import tracking

  return tracking(config.report.trackers, json.loads(config.as_json()), workdir)


def _stages(given: Sequence[str]) -> list[str]:
  for name in given:
    if name not in STAGES:
      raise unknown_name("stage", name, STAGES)
  return list(given)


def _workdir(given: str | None) -> str:
  if not given:
    raise UsageError("no work folder given. Say where the results go: --workdir DIR.")
  return given


def _plan(options: argparse.Namespace) -> int:
  """Print the plan of a run, without a device or the network."""
  os.environ["JAX_PLATFORMS"] = "cpu"
  from genbench_jax.planning.machines import machine
  from genbench_jax.planning.overview import overview
  from genbench_jax.store.mirror import local_copy

  chosen = machine(options.machine, options.machines, options.price)
  workdir = local_copy(options.workdir) if options.workdir else None
  show(overview(make_config(options.config), workdir, chosen, options.machines), end="")
  return 0


def _address(options: argparse.Namespace) -> Address:
  return Address(options.coordinator, options.num_processes, options.process_id).check()


def as_process(argv: Sequence[str]) -> int:
  """Run the command as the main program.

  If there are several processes, each is supervised by a parent, because the death of another
  process ends it from inside.
  """
  if one_of_several(argv, os.environ):
    return supervised(lambda: main(argv))
  return main(argv)


if __name__ == "__main__":
  leave(as_process(sys.argv))
