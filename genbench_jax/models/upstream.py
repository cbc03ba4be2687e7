"""The upstream libraries, quiet about the one thing that we know: that their Flax classes are the last of their kind."""

import importlib
import logging
import os

# What diffusers and transformers log at every Flax class and every module's setup, dozens of times a model.
KNOWN_SENTENCES = (
  "Flax classes are deprecated and will be removed in Diffusers",
  "TensorFlow and JAX classes are deprecated and will be removed in Transformers",
)


def _is_news(record: logging.LogRecord) -> bool:
  """False for the known deprecation sentences, True for every other record."""
  return not str(record.msg).startswith(KNOWN_SENTENCES)


def silence(library: str = "transformers") -> None:
  """Keeps transformers from importing TensorFlow, and the known deprecation sentences from the log.

  Call it before the first import of a Flax class of the library, `transformers` or `diffusers` (which imports
  the other, and torch where that is installed). Other warnings stay. Calling it again does nothing.
  """
  os.environ.setdefault("USE_TF", "0")
  # It attaches its handlers when imported.
  importlib.import_module(f"{library}.utils.logging")
  for handler in logging.getLogger(library).handlers:
    # Handlers, not loggers: a filter on a logger isn't asked about the records of its children.
    if _is_news not in handler.filters:
      handler.addFilter(_is_news)
