"""Prompt layouts with slots for learned context, and their division into blocks of classes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from genbench_jax.errors import UsageError
from genbench_jax.runtime.mesh import DATA_AXIS, padded_size

NOT_CONTEXT = -1


class PromptLayout(NamedTuple):
  """Token ids of each class's prompt, and the slots of the context.

  Attributes:
    tokens: start, context slots, class name with full stop, end; slots have id 0.
    slots: index of the context vector at each position; -1 where the token itself is used.
    ends: position of the end-of-text token.
  """

  tokens: Int[np.ndarray, "k l"]
  slots: Int[np.ndarray, "k l"]
  ends: Int[np.ndarray, "k"]


def prompt_layout(
  names: Sequence[Sequence[int]],
  context_length: int,
  position: str,
  start: int,
  end: int,
  max_tokens: int,
) -> PromptLayout:
  """Lay out `start context name end`, or the name between two halves of the context.

  Args:
    names: token ids of each class name, without start and end; the last one is the full stop.
    context_length: number of context vectors.
    position: `end` (the name follows the context) or `middle`.
    start, end: ids of the start and end tokens.
    max_tokens: length of every prompt; long names lose their last tokens.

  Raises:
    UsageError: the context leaves no room for a class name, or the position is unknown.
  """
  if position not in ("end", "middle"):
    raise UsageError(f"the context's position must be 'end' or 'middle', got {position!r}.")
  # Two positions are for the start and end tokens.
  room = max_tokens - context_length - 2
  if room < 1 or context_length < 1:
    raise UsageError(f"a context of {context_length} does not fit into {max_tokens} tokens.")
  tokens = np.full((len(names), max_tokens), end, np.int32)
  slots = np.full((len(names), max_tokens), NOT_CONTEXT, np.int32)
  ends = np.zeros(len(names), np.int32)
  before = context_length if position == "end" else context_length // 2
  for row, name in enumerate(names):
    word, stop = list(name[:-1])[: room - 1], name[-1]
    places = [
      NOT_CONTEXT,
      *range(before),
      *[NOT_CONTEXT] * len(word),
      *range(before, context_length),
    ]
    ids = [start, *[0] * before, *word, *[0] * (context_length - before), stop, end]
    tokens[row, : len(ids)], slots[row, : len(places)], ends[row] = ids, places, len(ids) - 1
  return PromptLayout(tokens, slots, ends)


def name_tokens(clip: Any, class_names: Sequence[str]) -> list[list[int]]:
  """Return the token ids of `name.` for each class, without start and end."""
  return clip.tokenizer([f"{name}." for name in class_names], add_special_tokens=False)["input_ids"]


def class_prompts(
  clip: Any, class_names: Sequence[str], length: int, position: str
) -> PromptLayout:
  """Return the prompts of the classes, with slots for the context.

  Args:
    clip: CLIP with its tokenizer.
    class_names: one name per class.
    length: number of context vectors.
    position: `end` or `middle`, see `prompt_layout`.
  """
  tokenizer = clip.tokenizer
  return prompt_layout(
    name_tokens(clip, class_names), length, position, tokenizer.bos_token_id, tokenizer.eos_token_id,
    clip.max_tokens,
  )  # fmt: skip


class Blocks(NamedTuple):
  """Layout in blocks [blocks, classes, ...]; the last block is filled up with class 0."""

  tokens: Int[Array, "n c l"]
  slots: Int[Array, "n c l"]
  ends: Int[Array, "n c"]
  classes: Int[Array, "n c"]


def class_blocks(layout: PromptLayout, classes_at_once: int, mesh: Mesh) -> Blocks:
  """Divide a layout into blocks of equal size, each split over the devices.

  Args:
    layout: tokens of all classes.
    classes_at_once: most classes of a block.
    mesh: devices.
  """
  count = len(layout.tokens)
  size = min(classes_at_once * mesh.size, padded_size(count, mesh.size))
  padded = np.arange(padded_size(count, size), dtype=np.int32)
  # [blocks, classes]; padding repeats class 0 and is cut off after the text tower.
  rows = np.where(padded < count, padded, 0).reshape(-1, size)
  split = NamedSharding(mesh, PartitionSpec(None, DATA_AXIS))
  arrays = (layout.tokens[rows], layout.slots[rows], layout.ends[rows], rows)
  return Blocks(*jax.device_put(arrays, split))
