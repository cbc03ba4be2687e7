"""The command: reads the config, starts JAX, runs the stages asked for.

python -m genbench_jax.main --config configs/demo.py --workdir demo
python -m genbench_jax.main --config configs/demo.py --workdir demo --config.generation.steps=20
python -m genbench_jax.main --config configs/demo.py --workdir demo --stages=score,report
python -m genbench_jax.main --config configs/full.py --plan --machine v5e-64

Exit status: 0 done; 1 the run or some of its cells failed; 2 a mistake in usage; 130 interrupted; 143 stopped by SIGTERM.
On several hosts the same command runs on each, on a work folder that all of them see; see launch/README.md.
"""

import contextlib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from genbench_jax.config import STAGES, check_setting, make_config
from genbench_jax.errors import RunError, UsageError, unknown_name
from genbench_jax.parallel.address import Address, one_of_several
from genbench_jax.progress import say
from genbench_jax.stopping import STATUS, WORDS, Stopped, stops_on_sigterm
from genbench_jax.supervision import supervised

CACHE = Path("~/.cache/genbench_jax/compiled")


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns its exit status: 0, 1 for a failed run, 2 for a mistake in usage."""
  if {"--help", "-h", "--helpfull"} & set(argv[1:]):
    print(_help())
    return 0
  debug = "--debug" in argv
  try:
    values = parse(argv)
    stages = _stages(values.stages)
    if values.plan:
      return _plan(values)
    given = _workdir(values.workdir)
    config = make_config(values.config)
    with stops_on_sigterm():
      start_jax()
      from genbench_jax.parallel.hosts import processes
      from genbench_jax.stages import run_stages
      from genbench_jax.store.mirror import work_folder
      from genbench_jax.store.workdir import locked
      from genbench_jax.trackers import tracking

      several = one_of_several(argv, os.environ)
      command = shlex.join(["python", "-m", "genbench_jax.main", *argv[1:]])
      with (
        processes(_address(values), several) as hosts,
        work_folder(given, hosts.number) as workdir,
        locked(workdir, hosts),
        tracking(config, workdir) if hosts.is_first else contextlib.nullcontext(),
      ):
        run_stages(config, workdir, stages, command, values.keep_going)
  except Stopped:
    say(WORDS)
    return STATUS
  except (UsageError, RunError) as error:
    if debug:
      raise
    say(f"error: {error}")
    return 2 if isinstance(error, UsageError) else 1
  except KeyboardInterrupt:
    say("interrupted. What is complete is kept: the same command goes on from there.")
    return 130
  return 0


def _flags(argv: Sequence[str] = ()) -> flags.FlagValues:
  values = flags.FlagValues()
  config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file, `path.py` or `path.py:arguments`.",
    flag_values=values,
    sys_argv=list(argv),
  )
  flags.DEFINE_string(
    "workdir",
    None,
    "Folder of all that the run makes: a path, or gs://BUCKET/FOLDER.",
    flag_values=values,
  )
  flags.DEFINE_list("stages", list(STAGES), "Stages to run, by comma.", flag_values=values)
  flags.DEFINE_bool(
    "plan", False, "Say what the run will cost, and do nothing.", flag_values=values
  )
  flags.DEFINE_string("machine", "v5e-8", "For --plan: v5e-8, h100, a100x4 ...", flag_values=values)
  flags.DEFINE_float("price", None, "For --plan: USD a chip and hour.", flag_values=values)
  flags.DEFINE_string("machines", "", "For --plan: your own machines.yaml.", flag_values=values)
  flags.DEFINE_bool("debug", False, "Show the traceback of an error.", flag_values=values)
  flags.DEFINE_bool(
    "keep_going",
    False,
    "Go on after a failed cell; list those that failed at the end.",
    flag_values=values,
  )
  flags.DEFINE_string(
    "coordinator",
    "",
    "HOST:PORT of process 0, where the environment doesn't say.",
    flag_values=values,
  )
  flags.DEFINE_integer("num_processes", -1, "Processes of the run.", flag_values=values)
  flags.DEFINE_integer("process_id", -1, "Which of them this is, from 0.", flag_values=values)
  return values


def parse(argv: Sequence[str]) -> flags.FlagValues:
  """The command's flags and its config.

  Raises:
    UsageError: a flag or setting that there is not, or that can't be read.
  """
  argv = _last_of_each([_underscored(argument) for argument in argv])
  values = _flags(argv)
  for override in (arg.removeprefix("--config.") for arg in argv if arg.startswith("--config.")):
    check_setting(override.partition("=")[0])
  try:
    rest = values(list(argv))[1:]
  except UsageError:
    raise
  except FileNotFoundError as error:
    raise UsageError(f"there is no config file {error.filename!r}.") from error
  except (
    flags.Error,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    SyntaxError,
    ImportError,
  ) as error:
    raise UsageError(" ".join(str(error).split())) from error
  if rest:
    raise UsageError(f"unexpected argument {rest[0]!r}. Settings are given as --config.a.b=value.")
  if values.config is None:
    raise UsageError("no config given. Try --config configs/demo.py.")
  if not isinstance(values.config, ConfigDict):
    missing = config_flags.get_config_filename(values["config"])
    raise UsageError(f"there is no config file {missing!r}. Try --config configs/demo.py.")
  return values


def _underscored(argument: str) -> str:
  """Both ways of writing a flag: `--keep-going` is `--keep_going`."""
  name, equals, value = argument.partition("=")
  return (
    f"{name.replace('-', '_').replace('__', '--', 1)}{equals}{value}"
    if name[:2] == "--"
    else argument
  )


def _last_of_each(argv: Sequence[str]) -> list[str]:
  """Without the settings that are given again further on: ml_collections would join tuples."""
  last = {argument.partition("=")[0]: at for at, argument in enumerate(argv)}
  return [
    argument
    for at, argument in enumerate(argv)
    if not argument.startswith("--config.") or at == last[argument.partition("=")[0]]
  ]


def _stages(given: Sequence[str]) -> list[str]:
  for name in given:
    if name not in STAGES:
      raise unknown_name("stage", name, STAGES)
  return list(given)


def _workdir(given: str | None) -> str:
  if not given:
    raise UsageError("no work folder given. Say where the results go: --workdir DIR.")
  return given


def _plan(values: flags.FlagValues) -> int:
  """Prints what a run would do and cost, without touching a device or the network."""
  os.environ["JAX_PLATFORMS"] = "cpu"
  from genbench_jax.planning.machines import machine
  from genbench_jax.planning.overview import overview
  from genbench_jax.store.mirror import local_copy

  chosen = machine(values.machine, values.machines, values.price)
  workdir = local_copy(values.workdir) if values.workdir else None
  print(overview(make_config(values.config), workdir, chosen, values.machines), end="")
  return 0


def _address(values: flags.FlagValues) -> Address:
  return Address(values.coordinator, values.num_processes, values.process_id).check()


def start_jax() -> None:
  """Starts JAX with a compilation cache on disk, unless the environment names another one."""
  # Where they are installed, transformers would spend half a minute on importing them.
  os.environ.setdefault("USE_TF", "0")
  os.environ.setdefault("USE_TORCH", "0")
  import jax

  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", str(CACHE.expanduser()))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _help() -> str:
  return f"{__doc__}\nFlags:\n{_flags().get_help()}"


def _command() -> int:
  """The command as a process: one of several is supervised, since the death of another one ends it from inside."""
  if one_of_several(sys.argv, os.environ):
    return supervised(lambda: main(sys.argv))
  return main(sys.argv)


if __name__ == "__main__":
  sys.exit(_command())
