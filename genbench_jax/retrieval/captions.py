"""Captions: files beside an image, or components of the same key in a tar."""

import contextlib
import json

CAPTION_SUFFIXES = (".txt", ".caption", ".json")
MAX_CAPTION_BYTES = 2**20


def caption_of(beside: dict[str, bytes]) -> tuple[str, str]:
  """Return caption and url from the files next to an image, by suffix; plain text precedes JSON."""
  texts = [_decoded(beside[suffix]).strip() for suffix in CAPTION_SUFFIXES[:2] if suffix in beside]
  about: object = {}
  with contextlib.suppress(ValueError, RecursionError):
    about = json.loads(_decoded(beside.get(".json", b"{}")))
  if not isinstance(about, dict):
    about = {}
  from_json = (str(about[key]).strip() for key in ("caption", "text") if about.get(key))
  return next(filter(None, (*texts, *from_json)), ""), str(about.get("url") or "")


def _decoded(content: bytes) -> str:
  return content.decode("utf-8", errors="replace")
