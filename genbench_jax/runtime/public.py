"""Removal of machine-specific text: paths, users and host names."""

import functools
import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Absolute POSIX, home-folder or Windows paths, up to a character that ends a path in commands or
# sentences. Matches after a letter or slash are part of a URL, a fraction or a relative path.
_PATH = re.compile(
  r"""(?<![\w./~\\-])(?:file://)?(?:~[\w.-]*(?=/)|[A-Za-z]:(?=[\\/])|(?=/[^\s/'"()<>,;]))[\\/]?(?P<rest>[^\s'"()<>,;|:]*)"""
)
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
      return json.dumps(public(json.loads(text)), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
      pass  # text with brackets that is not JSON
  shortened = _PATH.sub(_last_part, _without_home(text))
  host = _host()
  return host.sub("HOST", shortened) if host else shortened


def _last_part(match: re.Match[str]) -> str:
  parts = [part for part in re.split(r"[\\/]", match["rest"]) if part]
  return f"…/{parts[-1]}" if parts else "…"


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
