"""TFDS builders for the six datasets that TFDS lacks. Importing a builder registers it with TFDS."""

import importlib
from typing import Any

# Name, which is also the module's, -> class.
BUILDERS = {
  "country211": "Country211",
  "fer2013": "Fer2013",
  "fgvc_aircraft": "FgvcAircraft",
  "gtsrb": "Gtsrb",
  "hateful_memes": "HatefulMemes",
  "rendered_sst2": "RenderedSst2",
}


def builder_class(name: str) -> Any:
  """Return the builder class of one of `BUILDERS`."""
  return getattr(importlib.import_module(f"{__name__}.{name}"), BUILDERS[name])
