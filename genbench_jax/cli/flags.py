"""The options of the commands that take a config: `run`, `plan`, `pins` and `prompts`."""

import argparse
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from genbench_jax.cli.built_in import config_file, configs
from genbench_jax.cli.subcommand import Parser, dashed
from genbench_jax.config import STAGES, check_setting
from genbench_jax.errors import UsageError
from genbench_jax.runtime.address import Address

SETTINGS = "\n--config.SECTION.NAME=VALUE overrides a setting of the config; docs/configuration.md lists them."


def add_config(parser: argparse.ArgumentParser) -> None:
  """Add the config, by its place or as `--config`; `with_config` reads it."""
  parser.epilog = SETTINGS
  parser.add_argument(
    "name", nargs="?", metavar="CONFIG", help="a built-in config, or a file `path.py:arguments`"
  )
  parser.add_argument("--config", metavar="CONFIG", help="the same")


def add_run(parser: argparse.ArgumentParser) -> None:
  """Add the options of `genbench run`."""
  add_config(parser)
  parser.add_argument("--workdir", metavar="DIR", help="work folder: a path or gs://BUCKET/FOLDER")
  parser.add_argument(
    "--stages",
    type=lambda text: text.split(","),
    default=list(STAGES),
    help=f"stages to run, comma-separated; default: {','.join(STAGES)}",
  )
  parser.add_argument(
    "--keep-going",
    action="store_true",
    help="continue after a failed cell; list failures at the end",
  )
  parser.add_argument("--plan", action="store_true", help="print what the run will cost, and stop")
  parser.add_argument(
    "--machine", default="v5e-8", help="for --plan: v5e-8, h100, a100x4 ...; default %(default)s"
  )
  parser.add_argument("--price", type=float, help="for --plan: USD a chip-hour")
  parser.add_argument(
    "--machines", default="", metavar="FILE", help="for --plan: your machines.yaml"
  )
  _add_address(parser)


def _add_address(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--coordinator",
    default="",
    metavar="HOST:PORT",
    help="address of process 0, if the environment does not give it",
  )
  parser.add_argument("--num-processes", type=int, default=-1, help="processes of the run")
  parser.add_argument("--process-id", type=int, default=-1, help="number of this process, from 0")


def address_in(words: Sequence[str]) -> Address:
  """Return the address in the words of a command line whose other words may be wrong.

  Raises:
    UsageError: the address is incomplete or invalid.
  """
  parser = Parser(prog="genbench run", add_help=False)
  _add_address(parser)
  options, _ = parser.parse_known_args([dashed(word) for word in words])
  return Address(options.coordinator, options.num_processes, options.process_id).check()


def with_config(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
  """Parse words that give a config and overrides of its settings.

  Args:
    parser: parser with the options of `add_config`.
    words: words of the command line, without the name of the command.

  Returns:
    The options, with the ConfigDict in `config`.

  Raises:
    UsageError: an unknown option or setting, one that cannot be read, or no config.
  """
  words, settings = _without_settings(words)
  options = parser.options(words)
  if options.config and options.name:
    parser.error(f"unexpected argument {options.name!r}. Give settings as --config.a.b=value")
  options.config = _read_config(options.config or options.name, settings)
  return options


def _without_settings(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
  """Return the other words, and path -> text of the settings; the last of a repeated one wins.

  ml_collections would join repeated tuples.
  """
  others: list[str] = []
  settings: dict[str, str] = {}
  left = iter(words)
  for word in left:
    if word.startswith("--config."):
      path, equals, text = word.removeprefix("--config.").partition("=")
      settings[path] = text if equals else next(left, "")
    else:
      others.append(word)
  return others, settings


def _read_config(given: str | None, settings: dict[str, str]) -> ConfigDict:
  """The config of a file with its settings overridden, read by ml_collections."""
  if not given:
    raise UsageError(f"no config given. Try --config demo. {_known_configs()}")
  for path in settings:
    check_setting(path)
  words = [f"--config={config_file(given)}", *(f"--config.{k}={v}" for k, v in settings.items())]
  values = flags.FlagValues()
  config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=["genbench", *words])
  try:
    values(["genbench", *words])
  except UsageError:
    raise
  except FileNotFoundError as error:
    raise UsageError(f"there is no config file {error.filename!r}. {_known_configs()}") from error
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
    raise UsageError(" ".join(str(error).split())) from error
  except Exception as error:  # the config file is a program
    told = " ".join(f"{type(error).__name__}: {error}".split())
    raise UsageError(f"the config {given!r} cannot be read: {told}") from error
  if not isinstance(values.config, ConfigDict):
    missing = config_flags.get_config_filename(values["config"])
    raise UsageError(f"there is no config file {missing!r}. {_known_configs()}")
  return values.config


def _known_configs() -> str:
  return f"Built in: {', '.join(configs())}."
