"""A config that is a pipe or a broken program ends with one line."""

import os

import pytest

from genbench_jax.cli.genbench import main


@pytest.mark.parametrize("command", ["plan", "run", "pins"])
def test_a_pipe_is_not_a_config(tmp_path, command, capsys):
  os.mkfifo(tmp_path / "pipe.py")
  assert main([command, str(tmp_path / "pipe.py"), *_workdir(command, tmp_path)]) == 2
  assert "pipe.py' is not a regular file" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("program", "said"),
  [
    ("x = (", "SyntaxError"),
    ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    ("raise RuntimeError('line\\nerror: fake')", "RuntimeError: line error: fake"),
    ("def get_config(): return f()\ndef f(): return f()", "RecursionError"),
    ("def get_config(): return 1 / 0", "ZeroDivisionError"),
  ],
)
def test_a_broken_config_is_one_line(tmp_path, program, said, capsys):
  (tmp_path / "broken.py").write_text(program)
  assert main(["plan", str(tmp_path / "broken.py")]) == 2
  err = capsys.readouterr().err
  assert said in err and err.count("\n") == 1


def _workdir(command, tmp_path):
  return [f"--workdir={tmp_path / 'run'}"] if command == "run" else []
