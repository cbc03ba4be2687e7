"""CLIP's tokenizer: text to token ids of one fixed length."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from genbench_jax.errors import RunError
from genbench_jax.models import upstream


def load_tokenizer(folder: Path) -> Any:
  """The `CLIPTokenizer` whose files stand in `folder`.

  Raises:
    RunError: `vocab.json` or `merges.txt` is missing or broken.
  """
  for name in ("vocab.json", "merges.txt"):
    if not (folder / name).is_file():
      raise RunError(f"{folder / name} is missing from the checkpoint.")
  upstream.silence()
  from transformers import CLIPTokenizer

  try:
    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
  except (OSError, ValueError, KeyError, IndexError) as error:
    raise RunError(f"the tokenizer in {folder} can't be read: {error}.") from error


def tokenize(tokenizer: Any, texts: Sequence[str], length: int) -> Int32[np.ndarray, "n l"]:
  """Token ids with start and end of text, cut and padded to `length`."""
  ids = tokenizer(list(texts), max_length=length, padding="max_length", truncation=True)[
    "input_ids"
  ]
  return np.asarray(ids, np.int32).reshape(len(texts), length)
