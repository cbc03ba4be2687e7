"""Shared code of the subcommands: parser, error handling and exit status."""

import argparse
import difflib
import functools
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol, runtime_checkable

from genbench_jax.errors import UsageError
from genbench_jax.runtime.command import run_command
from genbench_jax.runtime.progress import show

Run = Callable[[argparse.Namespace], int | None]


@runtime_checkable
class Main(Protocol):
  """A command: a function of words, by default those of the process, that returns an exit status."""

  def __call__(self, words: Sequence[str] | None = None, program: str = ...) -> int: ...

  def parse(self, words: Sequence[str]) -> argparse.Namespace:
    """Return the options, without running the command."""


class Parser(argparse.ArgumentParser):
  """A parser whose errors are `UsageError`s with one line and a suggestion."""

  def __init__(self, **settings: object) -> None:
    settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
    super().__init__(allow_abbrev=False, **settings)  # type: ignore[arg-type]

  def error(self, message: str) -> NoReturn:
    """Raise the message that argparse would print.

    Raises:
      UsageError: always.
    """
    end = "" if message.endswith("?") else "."
    raise UsageError(f"{message}{end} See `{self.prog} --help`.")

  def options(self, words: Sequence[str]) -> argparse.Namespace:
    """Parse the words; `--keep_going` is `--keep-going`, and an unknown option is named with the nearest known one."""
    options, unknown = self.parse_known_args([dashed(word) for word in words])
    for word in unknown:
      near = difflib.get_close_matches(word.partition("=")[0], self._option_string_actions, n=1)
      self.error(f"unexpected argument {word!r}" + (f". Did you mean {near[0]}?" if near else ""))
    return options


def dashed(word: str) -> str:
  """Return a word of the command line with `-` for `_` in the name of its option."""
  name, equals, value = word.partition("=")
  return f"{name.replace('_', '-')}{equals}{value}" if word.startswith("--") else word


def subcommand(
  name: str,
  arguments: Callable[[argparse.ArgumentParser], None],
  description: str | None,
  read: Callable[[Parser, Sequence[str]], argparse.Namespace] = Parser.options,
) -> Callable[[Run], Main]:
  """Turn a function of parsed options into a subcommand.

  The command always ends with one line and a status: `UsageError` 2, `RunError` 1, Ctrl-C 130,
  SIGTERM 143, a closed pipe 0. `options.command` is the command line as text.

  Args:
    name: name of the subcommand, such as `show`.
    arguments: function that adds the options to a parser.
    description: text of `--help`.
    read: function that parses the words with the parser.
  """
  own_program = f"genbench {name}"

  def decorate(run: Run) -> Main:
    def parser(program: str) -> Parser:
      made = Parser(prog=program, description=description)
      made.add_argument("--debug", action="store_true", help="show the traceback of an error")
      arguments(made)
      return made

    def parse(words: Sequence[str], program: str = own_program) -> argparse.Namespace:
      options = read(parser(program), words)
      options.command = f"{program} {shlex.join(words)}"
      return options

    @functools.wraps(run)
    def main(words: Sequence[str] | None = None, program: str = own_program) -> int:
      given = list(sys.argv[1:] if words is None else words)
      if {"--help", "-h"} & set(given):
        show(parser(program).format_help(), end="")
        return 0

      def work() -> int:
        status = run(parse(given, program)) or 0
        sys.stdout.flush()  # a closed pipe is detected here, not at exit
        return status

      return run_command(work, debug="--debug" in given)

    main.parse = parse  # type: ignore[attr-defined]
    return main  # type: ignore[return-value]  # mypy does not see the attribute

  return decorate
