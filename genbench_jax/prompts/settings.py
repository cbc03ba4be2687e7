"""The settings of prompts."""

import dataclasses
from typing import Annotated

from genbench_jax.runtime.protocol import PROTOCOLS
from genbench_jax.runtime.settings import OneOf


@dataclasses.dataclass(frozen=True)
class Prompts:
  """How the prompts of generated images are written.

  Attributes:
    protocol: `strict`, or `reference` with the published code's choices.
    sentence_model: a keyword-to-sentence T5 for Category Enhancement, folder or hub id; empty takes the small
      built-in grammar.
    sentence_revision: its hub revision, a commit; empty for local folders.
    sentence_sha256: its checksum.
    sentence_file: a JSON file `{"class name": ["sentence", ...]}` in place of a model; `{dataset}` in its path stands
      for the name of the dataset.
  """

  protocol: Annotated[str, OneOf("protocol", PROTOCOLS)] = "strict"
  sentence_model: str = ""
  sentence_revision: str = ""
  sentence_sha256: str = ""
  sentence_file: str = ""
