"""Removal of machine-specific text: paths, users and host names."""

import functools
import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genbench_jax.runtime.printable import storable

# Absolute POSIX, home-folder or Windows paths, up to a character that ends a path in commands or
# sentences. Matches after a letter or slash are part of a URL, a fraction or a relative path.
_PATH = re.compile(
  r"""(?<![\w./~…\\-])(?:file://)?(?:~[\w.-]*(?=/)|[A-Za-z]:(?=[\\/])|(?=/[^\s/'"()<>,;]))[\\/]?(?P<rest>[^\s'"()<>,;|:]*)"""
)
# A quoted word of a command, and a value of a config, are one path, whose folders may contain blanks.
_START = r"(?:file://)?(?:~[\w.-]*(?=/)|[A-Za-z]:(?=[\\/])|\\\\(?=\w)|(?=/))"
_QUOTED = re.compile(
  rf"""(?P<before>(?P<quote>['"])(?:[\w.-]*[=:])?){_START}(?P<rest>[^'"\n]*)(?=(?P=quote))"""
)
_WHOLE = re.compile(rf"(?P<before>(?:[\w.-]*[=:])?){_START}(?P<rest>[^'\"\n]*)")
_SHORTEST_HOST = 3


def public(value: Any) -> Any:
  """Return a JSON value without the machine's name and with paths reduced to their last component."""
  if isinstance(value, Mapping):
    return {str(name): public(item) for name, item in value.items()}
  if isinstance(value, list | tuple):
    return [public(item) for item in value]
  return public_text(value) if isinstance(value, str) else value


def public_text(text: str) -> str:
  """Return a text with absolute paths reduced to their last component, without the machine's name.

  Text that is JSON, such as a config, stays JSON.
  """
  if text.startswith(("{", "[")):
    try:
      return json.dumps(_public_settings(json.loads(text)), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
      pass  # text with brackets that is not JSON
  shortened = _PATH.sub(_last_part, _QUOTED.sub(_last_part, _without_home(text)))
  host = _host()
  return storable(host.sub("HOST", shortened) if host else shortened)


def _public_settings(value: Any) -> Any:
  """Return a config as `public` does; a text that begins with a path is one path."""
  if isinstance(value, Mapping):
    return {str(name): _public_settings(item) for name, item in value.items()}
  if isinstance(value, list):
    return [_public_settings(item) for item in value]
  if isinstance(value, str) and (match := _WHOLE.fullmatch(value)):
    return _last_part(match)
  return public(value)


def _last_part(match: re.Match[str]) -> str:
  parts = [part for part in re.split(r"[\\/]", match["rest"]) if part]
  before = match.groupdict().get("before", "")
  return f"{before}…/{parts[-1]}" if parts else f"{before}…"


def _without_home(text: str) -> str:
  """Shorten paths in the home folder first, because they may contain spaces."""
  home = str(Path.home())
  return text.replace(f"{home}/", "~/") if len(home) > 1 else text


@functools.cache
def _host() -> re.Pattern[str] | None:
  name = socket.gethostname().split(".")[0]
  if len(name) < _SHORTEST_HOST:
    return None
  return re.compile(rf"\b{re.escape(name)}(?:\.[\w.-]+)?\b")
