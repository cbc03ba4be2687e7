"""The command `genbench`: subcommands, errors and exit status, configs by name."""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import genbench_jax
from genbench_jax.cli import built_in
from genbench_jax.cli.argument_types import numbers
from genbench_jax.cli.genbench import COMMANDS, main
from genbench_jax.cli.subcommand import subcommand
from genbench_jax.errors import RunError, UsageError
from genbench_jax.main import run

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_has_help(name, capsys):
  assert main([name, "--help"]) == 0
  told = capsys.readouterr().out
  assert (len(told.splitlines()) > 4 and "config" in told) or "--" in told


@pytest.mark.parametrize("name", ["evaluate", "report", "show", "export", "embed", "leaks"])
def test_a_usage_error_is_one_line_and_status_2(name, capsys):
  assert main([name]) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ") and error.count("\n") == 1
  assert f"genbench {name} --help" in error


def test_the_main_help_lists_all_subcommands(capsys):
  assert main(["--help"]) == 0
  told = capsys.readouterr().out
  assert all(f"  {name} " in told for name in COMMANDS)
  assert main([]) == 2
  assert main(["--version"]) == 0
  assert genbench_jax.__version__ in capsys.readouterr().out.splitlines()[-1]


def test_misspelled_names_get_a_suggestion(capsys):
  assert main(["evalute"]) == 2
  assert "Did you mean 'evaluate'?" in capsys.readouterr().err
  assert main(["evaluate", "x", "--dataset", "digits", "--shot", "1"]) == 2
  assert "Did you mean --shots?" in capsys.readouterr().err
  assert main(["evaluate", "x", "--dataset", "digits", "--shots", "1,many"]) == 2
  assert "'1,many' is not a comma-separated list of whole numbers" in capsys.readouterr().err


def _ending(error):
  @subcommand("try", lambda parser: None, "Try.")
  def run(options: argparse.Namespace) -> int:
    if error:
      raise error
    return 0

  return run([])


@pytest.mark.parametrize(
  ("error", "status"),
  [
    (None, 0),
    (RunError("the disk is full."), 1),
    (UsageError("no such thing."), 2),
    (KeyboardInterrupt(), 130),
  ],
)
def test_every_error_is_one_line_and_a_status(error, status, capsys):
  assert _ending(error) == status
  assert capsys.readouterr().err.count("\n") == (error is not None)


def test_debug_shows_the_traceback():
  @subcommand("try", lambda parser: None, "Try.")
  def run(options: argparse.Namespace) -> int:
    raise UsageError("no such thing.")

  with pytest.raises(UsageError):
    run(["--debug"])


def test_comma_separated_numbers():
  assert numbers("1,4,16") == [1, 4, 16]


@pytest.mark.parametrize("given", ["demo", "demo.py", "configs/demo.py", "demo:quick"])
def test_a_built_in_config_is_found_from_anywhere(given, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  file, _, arguments = built_in.config_file(given).partition(":")
  assert Path(file).samefile(ROOT / "configs" / "demo.py")
  assert arguments == given.partition(":")[2]
  assert run.parse(["--config", given]).config.datasets


def test_an_existing_file_is_preferred_to_a_built_in_config(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "configs").mkdir()
  own = tmp_path / "configs" / "demo.py"
  own.write_text("from genbench_jax.config import default_config as get_config\n")
  assert built_in.config_file("configs/demo.py") == "configs/demo.py"
  assert built_in.config_file("other/demo.py") == "other/demo.py"


def test_an_unknown_config_is_rejected_with_the_known_ones(capsys):
  assert main(["run", "dem", "--workdir", "x"]) == 2
  error = capsys.readouterr().err
  assert "there is no config file 'dem'" in error and "Built in: demo, " in error


def test_help_and_import_take_less_than_a_second():
  """Measured in CPU seconds, independent of the load of the machine."""
  code = (
    "import resource, sys; from genbench_jax.cli.genbench import main; import genbench_jax;"
    "main(['--help']); used = resource.getrusage(resource.RUSAGE_SELF);"
    "sys.exit(used.ru_utime + used.ru_stime > 1)"
  )
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)


def test_a_closed_pipe_and_ctrl_c_end_without_a_traceback(tmp_path):
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  command = f"{sys.executable} -m genbench_jax benchmark show imagenet2012 | head -1"
  done = subprocess.run(
    ["bash", "-c", command], env=environment, capture_output=True, text=True, check=False
  )
  assert done.stdout and not done.stderr
  pipe = tmp_path / "pipe"
  os.mkfifo(pipe)
  child = subprocess.Popen(
    [sys.executable, "-c", _WAITING, str(pipe)], env=environment, stderr=subprocess.PIPE, text=True
  )
  pipe.read_text()  # until it works
  time.sleep(0.1)
  child.send_signal(signal.SIGINT)
  _, error = child.communicate(timeout=60)
  assert child.returncode == 130
  assert "Traceback" not in error and error.count("\n") == 1


_WAITING = """
import signal, sys, time
from pathlib import Path
from genbench_jax.cli.subcommand import subcommand
from genbench_jax.runtime.stopping import look

# It is ignored if the tests run in the background of a shell.
signal.signal(signal.SIGINT, signal.default_int_handler)

@subcommand("wait", lambda parser: None, "Wait.")
def main(options):
  Path(sys.argv[1]).write_text("ready")
  while True:
    time.sleep(0.01)
    look()

sys.exit(main([]))
"""
