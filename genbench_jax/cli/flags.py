"""The flags and the config of `genbench run`."""

from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from genbench_jax.cli.built_in import config_file, configs
from genbench_jax.config import STAGES, check_setting
from genbench_jax.errors import UsageError


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
  argv = _with_built_in(_last_of_each([_underscored(argument) for argument in argv]))
  values = _flags(argv)
  for override in (arg.removeprefix("--config.") for arg in argv if arg.startswith("--config.")):
    check_setting(override.partition("=")[0])
  try:
    rest = values(list(argv))[1:]
  except UsageError:
    raise
  except FileNotFoundError as error:
    raise UsageError(f"there is no config file {error.filename!r}. {_known_configs()}") from error
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
    raise UsageError(f"no config given. Try --config demo. {_known_configs()}")
  if not isinstance(values.config, ConfigDict):
    missing = config_flags.get_config_filename(values["config"])
    raise UsageError(f"there is no config file {missing!r}. {_known_configs()}")
  return values


def _known_configs() -> str:
  return f"Built in: {', '.join(configs())}."


def _with_built_in(argv: Sequence[str]) -> list[str]:
  """Replaces the name of a built-in config by its file."""
  words, is_config = [], False
  for word in argv:
    if is_config:
      word = config_file(word)
    elif word.startswith("--config="):
      word = f"--config={config_file(word.removeprefix('--config='))}"
    is_config = word == "--config"
    words.append(word)
  return words


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
