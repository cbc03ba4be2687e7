"""Settings of prompts."""

import dataclasses
from typing import Annotated

from genbench_jax.runtime.protocol import PROTOCOLS
from genbench_jax.runtime.settings import OneOf


@dataclasses.dataclass(frozen=True)
class Prompts:
  """How prompts of generated images are written.

  Attributes:
    protocol: `strict`, or `reference` for the published code's choices.
    sentence_model: folder or hub id of a keyword-to-sentence T5 for Category Enhancement; empty for the
      built-in grammar.
    sentence_revision: hub revision of the model, a commit; empty for local folders.
    sentence_sha256: checksum of the model.
    sentence_file: JSON file `{"class name": ["sentence", ...]}` to use instead of a model; `{dataset}` in its
      path is replaced by the dataset's name.
  """

  protocol: Annotated[str, OneOf("protocol", PROTOCOLS)] = "strict"
  sentence_model: str = ""
  sentence_revision: str = ""
  sentence_sha256: str = ""
  sentence_file: str = ""
