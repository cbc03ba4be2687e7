"""Write docs/configuration.md from the typed configuration: python tools/config_reference.py"""

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from pathlib import Path

from genbench_jax.config import Config
from genbench_jax.runtime.settings import plain_type

OUT = Path(__file__).parent.parent / "docs" / "configuration.md"
HEAD = """# Settings

Every setting with its type and default. A config file is Python that starts from
`genbench_jax.config.default_config()`. Any setting can be overridden on the command line with
`--config.SECTION.NAME=value`. `tools/config_reference.py` writes this page from the types in
`genbench_jax/config.py`.
"""


def main() -> None:
  OUT.write_text(page(), encoding="utf-8")


def page() -> str:
  """Return the page as Markdown."""
  return HEAD + "".join(_sections(Config, "", Config()))


def _sections(section: type, name: str, default: object) -> Iterator[str]:
  """Yield a section and its subsections."""
  yield _section(section, name, default)
  hints = typing.get_type_hints(section)
  for field in dataclasses.fields(section):
    if dataclasses.is_dataclass(hints[field.name]):
      inner = ".".join(filter(None, (name, field.name)))
      yield from _sections(hints[field.name], inner, getattr(default, field.name))


def _section(section: type, name: str, default: object) -> str:
  """Return a table of a section's settings, without subsections."""
  hints = typing.get_type_hints(section)
  bases = [_documented(base.__doc__ or "") for base in section.__mro__[-2::-1]]
  summary, about = (
    bases[-1][0],
    {name: words for _, of_base in bases for name, words in of_base.items()},
  )
  lines = [f"\n## {name or 'The benchmark'}\n\n{summary}\n"]
  lines += ["| setting | type | default | |", "|---|---|---|---|"]
  for field in dataclasses.fields(section):
    if not dataclasses.is_dataclass(hints[field.name]):
      setting = ".".join(filter(None, ("config", name, field.name)))
      value = _cell(repr(getattr(default, field.name)))
      kind = _cell(_kind(hints[field.name]))
      lines.append(f"| `{setting}` | {kind} | `{value}` | {_cell(about.get(field.name, ''))} |")
  return "\n".join(lines) + "\n"


def _documented(text: str) -> tuple[str, dict[str, str]]:
  """Return the summary of a docstring, and its text for each attribute; a line may list several."""
  # Python 3.13 stores docstrings without their indentation.
  summary, _, attributes = inspect.cleandoc(text).partition("Attributes:")
  about: dict[str, str] = {}
  for entry in re.split(r"\n  (?=\w)", attributes):
    names, found, words = " ".join(entry.split()).partition(": ")
    if found:
      about |= dict.fromkeys(names.split(", "), words)
  return " ".join(summary.split()), about


def _kind(hint: typing.Any) -> str:
  hint = plain_type(hint)
  if typing.get_origin(hint) is tuple:
    return f"{typing.get_args(hint)[0].__name__}, any number"
  return hint.__name__


def _cell(text: str) -> str:
  return text.replace("|", "\\|")


if __name__ == "__main__":
  main()
