"""YAML that others have written: a bounded file without tricks, or one short line."""

import errno
from pathlib import Path
from typing import Any

from genbench_jax.runtime.printable import printable
from genbench_jax.store.reading import read_file

MOST_BYTES = 1 << 20
DEEPEST = 16
_LONGEST_REASON = 200


class YamlError(ValueError):
  """The file holds no YAML, or YAML that is refused; says why in one short line."""


def read_yaml(path: Path, follow: bool = False) -> Any:
  """Read a YAML file.

  Anchors are refused: a file of some hundred bytes can stand for 10^9 values by them, or for one that holds itself.

  Args:
    path: of the file.
    follow: whether the file may be a link, as one that the user named.

  Raises:
    OSError: there is no such regular file.
    YamlError: it is too large, too deep, has anchors, or is no YAML.
  """
  try:
    text = read_file(path, MOST_BYTES, follow).decode("utf-8-sig")
  except OSError as error:
    if error.errno == errno.EFBIG:
      raise YamlError(f"larger than {MOST_BYTES >> 20} MB") from error
    raise
  except UnicodeDecodeError as error:
    raise YamlError("no UTF-8 text") from error
  return parse_yaml(text)


def parse_yaml(text: str) -> Any:
  """Return the value that a YAML text stands for; see `read_yaml`."""
  import yaml

  loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
  try:
    _refuse_tricks(yaml, text, loader)
    return yaml.load(text, loader)
  except YamlError:
    raise
  # YAML's own errors; numbers of 5,000 digits, dates that there are not, unhashable keys.
  except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
    raise YamlError(printable(" ".join(str(error).split()))[:_LONGEST_REASON]) from error


def _refuse_tricks(yaml: Any, text: str, loader: Any) -> None:
  """Look at the events of the parser, which needs no stack and no memory for what they stand for."""
  depth = 0
  for event in yaml.parse(text, loader):
    if getattr(event, "anchor", None):
      raise YamlError("anchors and aliases (&, *) are not taken")
    depth += isinstance(event, yaml.CollectionStartEvent)
    depth -= isinstance(event, yaml.CollectionEndEvent)
    if depth > DEEPEST:
      raise YamlError(f"nested more than {DEEPEST} deep")
