"""Read untrusted YAML files, with limits, and errors of one short line."""

import errno
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from genbench_jax.runtime.printable import printable
from genbench_jax.store.reading import read_file

MOST_BYTES = 1 << 20
DEEPEST = 16
_LONGEST_REASON = 200
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


class YamlError(ValueError):
  """A file is not YAML, or YAML that is rejected; the message is one short line."""


def read_yaml(path: Path, follow: bool = False) -> Any:
  """Read a YAML file.

  Anchors are rejected: with them, a few hundred bytes can expand to 10^9 values, or to a value that contains
  itself.

  Args:
    path: path of the file.
    follow: whether the file may be a link, as for files that the user named.

  Raises:
    OSError: there is no such regular file.
    YamlError: the file is too large, nested too deeply, has anchors, or is not YAML.
  """
  try:
    text = read_file(path, MOST_BYTES, follow).decode("utf-8-sig")
  except OSError as error:
    if error.errno == errno.EFBIG:
      raise YamlError(f"larger than {MOST_BYTES >> 20} MB") from error
    raise
  except UnicodeDecodeError as error:
    raise YamlError("not UTF-8 text") from error
  return parse_yaml(text)


def as_yaml(value: Any) -> str:
  """Return a JSON value as JSON text that is YAML, too.

  YAML breaks lines at some characters that JSON allows in strings, rejects others, and reads no pairs of
  surrogates; these characters are escaped.
  """
  text = json.dumps(value, ensure_ascii=False, indent=1)
  return _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def parse_yaml(text: str) -> Any:
  """Return the value of a YAML text; see `read_yaml`.

  Raises:
    YamlError: see `read_yaml`.
  """
  import yaml

  loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
  try:
    _refuse_tricks(yaml, text, loader)
    _refuse_twice(yaml, text, loader)
    return yaml.load(text, loader)
  except YamlError:
    raise
  # YAML's own errors; numbers of 5,000 digits, invalid dates, unhashable keys.
  except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
    raise YamlError(printable(" ".join(str(error).split()))[:_LONGEST_REASON]) from error


def _refuse_tricks(yaml: Any, text: str, loader: Any) -> None:
  """Check the parser's events, which take no memory for what anchors expand to."""
  depth = 0
  for event in yaml.parse(text, loader):
    if getattr(event, "anchor", None):
      raise YamlError("anchors and aliases (&, *) are not supported")
    depth += isinstance(event, yaml.CollectionStartEvent)
    depth -= isinstance(event, yaml.CollectionEndEvent)
    if depth > DEEPEST:
      raise YamlError(f"nested more than {DEEPEST} deep")


def _refuse_twice(yaml: Any, text: str, loader: Any) -> None:
  """Check that no mapping has a key twice; YAML would silently take the last."""
  waiting = [yaml.compose(text, loader)]
  while waiting:
    node = waiting.pop()
    if isinstance(node, yaml.SequenceNode):
      waiting += node.value
    elif isinstance(node, yaml.MappingNode):
      keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
      if twice := [value for (_, value), count in Counter(keys).items() if count > 1]:
        raise YamlError(f"the key {twice[0][:80]!r} is given twice")
      waiting += [inner for _, inner in node.value]
