"""Training of many new tokens, group by group; each is saved as soon as it is learned.

A group is a fixed run of concepts that one device trains together. The result for a token depends
neither on which other tokens remained to be learned nor, up to rounding, on the number of devices.
"""

import dataclasses
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, UInt8
from PIL import Image

from genbench_jax.diffusion.inversion.embeddings import save_embedding, tokenize_with
from genbench_jax.diffusion.inversion.loss import (
  Learner,
  References,
  encoding_program,
  initial_row,
  start,
  training_program,
)
from genbench_jax.diffusion.inversion.references import reference_views, views_per_reference
from genbench_jax.diffusion.inversion.settings import Training
from genbench_jax.diffusion.program import params_on
from genbench_jax.diffusion.text import text_params_on
from genbench_jax.embedding.embedder import text_features, unit_norm
from genbench_jax.errors import RunError
from genbench_jax.models.diffusion_model import StableDiffusion
from genbench_jax.models.image_encoder import TextEncoder
from genbench_jax.runtime.mesh import batch_sharding, replicated
from genbench_jax.store import files
from genbench_jax.store.reading import regular

# Steps per program call; the host reports progress between calls.
STEPS_AT_ONCE = 50


@dataclasses.dataclass(frozen=True, eq=False)
class Concept:
  """A new token and its training images.

  Attributes:
    placeholder: name of the token, such as `<shapes-pentagon>`.
    class_names: name of the class, or names of all classes that share the token.
    labels: index into `class_names` of each reference.
    images: reads the references, in the order of `labels`.
    path: path of the token's file.
  """

  placeholder: str
  class_names: tuple[str, ...]
  labels: tuple[int, ...]
  images: Callable[[], Sequence[Image.Image]]
  path: Path


class _Group(NamedTuple):
  """Concepts that a device trains together, and the file name of their state."""

  name: str
  concepts: tuple[Concept, ...]


class Trainer:
  """Learns new tokens of a model; tokens that have a file already are kept.

  Args:
    model: a model from `load_stable_diffusion`.
    mesh: devices; each trains one group of concepts at a time.
    training: settings.
    templates: prompts with one `{}` for the placeholder and the class name.
    height, width: in pixels; None for the size that the model was trained on.
    seed: of all random numbers.
    guide: encoder of the guided loss, used if `training.clip_weight` is positive.
  """

  def __init__(
    self,
    model: StableDiffusion,
    mesh: Mesh,
    training: Training,
    templates: Sequence[str] = ("{}",),
    height: int | None = None,
    width: int | None = None,
    seed: int = 0,
    guide: TextEncoder | None = None,
  ):
    self.model, self.mesh, self.training = model, mesh, training
    self.templates, self.seed = tuple(templates), seed
    self.height, self.width = height or model.image_size, width or model.image_size
    self.guide = guide if training.clip_weight else None
    self._program = training_program(model, mesh, training, self.guide)

  def learn(
    self,
    concepts: Sequence[Concept],
    state_folder: Path,
    owns: Callable[[int], bool] = lambda group: True,
  ) -> Iterator[int]:
    """Learn the concepts without a file; yield from time to time how many token-steps were done.

    Args:
      concepts: concepts in a fixed order; neighbors train together.
      state_folder: folder for saved states.
      owns: whether this process learns a group, by the group's index.

    Raises:
      RunError: an embedding became NaN or infinite.
    """
    numbered = enumerate(self._groups(concepts))
    groups = [group for number, group in numbered if owns(number) and not _done(group)]
    shape = max((len(c.labels) for c in concepts), default=0)
    for begin in range(0, len(groups), self.mesh.size):
      yield from self._learn_together(groups[begin : begin + self.mesh.size], shape, state_folder)

  def _groups(self, concepts: Sequence[Concept]) -> list[_Group]:
    size = self._group_size(len(concepts))
    return [
      _Group(f"state-{begin:05d}.safetensors", tuple(concepts[begin : begin + size]))
      for begin in range(0, len(concepts), size)
    ]

  def _group_size(self, count: int) -> int:
    return max(1, min(self.training.categories_per_device, count))

  def _learn_together(
    self, groups: Sequence[_Group], most_references: int, folder: Path
  ) -> Iterator[int]:
    """Train one group per device, resuming from disk if all have a state of the same step."""
    filled = _filled(groups, self.mesh.size)
    concepts = [concept for group in filled for concept in group.concepts]
    references = self._put(self._references(concepts, most_references))
    first, learners = self._saved(filled, folder) or (0, self._start(concepts))
    learners, params = self._put(learners), self._params()
    tokens = sum(len(group.concepts) for group in groups)
    if first:
      yield tokens * first
    while first < self.training.steps:
      last = min(first + STEPS_AT_ONCE, self._next_save(first), self.training.steps)
      learners = self._program(params, learners, references, np.int32(first), np.int32(last))
      jax.block_until_ready(learners)
      yield tokens * (last - first)
      first = last
      if first % self.training.save_every == 0 and first < self.training.steps:
        self._save_states(groups, jax.device_get(learners), first, folder)
    self._finish(groups, np.asarray(learners.row), folder)

  def _next_save(self, step: int) -> int:
    return (step // self.training.save_every + 1) * self.training.save_every

  def _finish(
    self, groups: Sequence[_Group], rows: Float32[np.ndarray, "t 1 d"], folder: Path
  ) -> None:
    concepts = [concept for group in groups for concept in group.concepts]
    # Padding repeats concepts at the end; only the first rows belong to these groups.
    bad = [c.placeholder for c, row in zip(concepts, rows, strict=False) if not _finite(row)]
    if bad:
      raise RunError(
        f"the embedding of {bad[0]} became NaN or infinite. Lower textual_inversion.learning_rate."
      )
    for concept, row in zip(concepts, rows, strict=False):
      if not concept.path.exists():
        widths = [tower.width for tower in self.model.towers]
        save_embedding(concept.path, concept.placeholder, row[0], widths)
    for group in groups:
      (folder / group.name).unlink(missing_ok=True)

  # ---- inputs ------------------------------------------------------------------------------------

  def _start(self, concepts: Sequence[Concept]) -> Learner:
    rows = [
      initial_row(self.model, concept.class_names, self.training.initializer)
      for concept in concepts
    ]
    return _stack([jax.device_get(start(jnp.asarray(row), self.training)) for row in rows])

  def _references(self, concepts: Sequence[Concept], most: int) -> References:
    views = np.stack([self._views(concept, most) for concept in concepts])
    parts = self.model.params["vae"]
    # References are encoded once; the decoder is not needed.
    params = {name: parts[name] for name in ("encoder", "quant_conv") if name in parts}
    params = jax.device_put(params, replicated(self.mesh))
    mean, deviation = encoding_program(self.model, self.mesh)(params, self._put(views))
    # Concepts may have different numbers of references; labels repeat up to the largest.
    labels = [np.resize(np.asarray(concept.labels, np.int32), most) for concept in concepts]
    return References(
      mean=mean,
      deviation=deviation if self.training.sample_latents else None,
      num_references=jnp.array([len(concept.labels) for concept in concepts], jnp.int32),
      label=jnp.stack(labels),
      tokens=jnp.stack([self._tokens(concept) for concept in concepts]),
      text_features=self._text_features(concepts),
      key=jnp.stack([self._key(concept) for concept in concepts]),
    )

  def _views(self, concept: Concept, most: int) -> UInt8[np.ndarray, "r v H W 3"]:
    shape = (most, views_per_reference(self.training), self.height, self.width, 3)
    views = np.zeros(shape, np.uint8)
    # Python's own hash differs between processes.
    name = zlib.crc32(concept.placeholder.encode())
    for row, image in enumerate(concept.images()):
      seed = (self.seed, name, row)
      views[row] = reference_views(image, self.height, self.width, self.training, seed)
    return views

  def _tokens(self, concept: Concept) -> Int32[np.ndarray, "k p t l"]:
    texts = [
      template.replace("{}", f"{concept.placeholder} {name}")
      for name in concept.class_names
      for template in self.templates
    ]
    length = self.model.max_tokens
    by_tower = [
      tokenize_with(tower.tokenizer, {concept.placeholder: [tower.vocabulary]}, texts, length)
      for tower in self.model.towers
    ]
    shape = (len(concept.class_names), len(self.templates), len(by_tower), length)
    return np.stack(by_tower, axis=1).reshape(shape)

  def _text_features(self, concepts: Sequence[Concept]) -> Float32[Array, "t k d"] | None:
    """Return the features of the class names alone: the guide does not know the new tokens."""
    if self.guide is None:
      return None
    names = [f"a photo of a {name}" for concept in concepts for name in concept.class_names]
    features = unit_norm(text_features(self.guide, names))
    return jnp.asarray(features.reshape(len(concepts), -1, features.shape[1]))

  def _key(self, concept: Concept) -> np.ndarray:
    name = zlib.crc32(concept.placeholder.encode())
    return np.asarray(jax.random.key_data(jax.random.fold_in(jax.random.key(self.seed), name)))

  def _params(self) -> Any:
    params = {**params_on(self.model, self.mesh), **text_params_on(self.model, self.mesh)}
    if self.guide is not None:
      params["clip"] = jax.device_put(self.guide.params, replicated(self.mesh))
    return params

  def _put(self, tree: Any) -> Any:
    return jax.device_put(tree, batch_sharding(self.mesh))

  # ---- saved states ------------------------------------------------------------------------------

  def _save_states(
    self, groups: Sequence[_Group], learners: Learner, step: int, folder: Path
  ) -> None:
    from safetensors.numpy import save

    leaves = jax.tree.leaves(learners)
    size = len(leaves[0]) // self.mesh.size
    for index, group in enumerate(groups):
      rows = slice(index * size, (index + 1) * size)
      arrays = {f"leaf{i:03d}": np.ascontiguousarray(leaf[rows]) for i, leaf in enumerate(leaves)}
      files.write_bytes(folder / group.name, save(arrays, {"about": json.dumps({"step": step})}))

  def _saved(self, groups: Sequence[_Group], folder: Path) -> tuple[int, Learner] | None:
    """Return the step that all groups have reached and their state; None if they differ."""
    like = self._start(groups[0].concepts)
    found = [_read_state(folder / group.name, like) for group in groups]
    whole = [state for state in found if state is not None]
    if len(whole) < len(found) or len({step for step, _ in whole}) != 1:
      return None
    return whole[0][0], jax.tree.map(lambda *x: np.concatenate(x), *(state for _, state in whole))


def _read_state(path: Path, like: Learner) -> tuple[int, Learner] | None:
  """Return a group's step and state; None, which restarts it, if it is missing or damaged."""
  from safetensors import SafetensorError, safe_open

  leaves, tree = jax.tree.flatten(like)
  try:
    with safe_open(regular(path), framework="numpy") as file:
      arrays = [file.get_tensor(f"leaf{i:03d}") for i in range(len(leaves))]
      step = json.loads((file.metadata() or {})["about"])["step"]
  except (SafetensorError, OSError, LookupError, TypeError, ValueError):
    return None
  if type(step) is not int or [a.shape for a in arrays] != [leaf.shape for leaf in leaves]:
    return None
  return step, jax.tree.unflatten(tree, arrays)


def _done(group: _Group) -> bool:
  return all(concept.path.exists() for concept in group.concepts)


def _filled(groups: Sequence[_Group], devices: int) -> list[_Group]:
  """Pad to one group per device, all of one size, by repeating concepts and groups."""
  size = max(len(group.concepts) for group in groups)
  even = [
    group._replace(concepts=(group.concepts * size)[:size]) if len(group.concepts) < size else group
    for group in groups
  ]
  return [*even, *[even[0]] * (devices - len(even))]


def _finite(row: Float32[np.ndarray, "1 d"]) -> bool:
  return bool(np.isfinite(row).all())


def _stack(trees: Sequence[Learner]) -> Learner:
  return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
