"""Features of images and texts: fixed batches sharded over the mesh, one program per shape."""

import functools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Shaped

from genbench_jax.errors import RunError, UsageError
from genbench_jax.models.image_encoder import ImageEncoder, TextEncoder
from genbench_jax.runtime.kept import kept
from genbench_jax.runtime.mesh import batch_sharding, data_mesh, pad_rows, replicated

# Concurrent batches: the device computes one while the next is decoded and transferred.
IN_FLIGHT = 2

logger = logging.getLogger(__name__)


class ImageEmbedder:
  """Image encoder on a mesh, with replicated parameters and a single compiled program.

  Args:
    encoder: CLIP or any other image encoder.
    mesh: devices that share every batch; None for all devices of this host.
    batch_per_device: images per device and batch.
  """

  def __init__(self, encoder: ImageEncoder, mesh: Mesh | None = None, batch_per_device: int = 32):
    self.encoder = encoder
    self.mesh = _local_mesh() if mesh is None else mesh
    self.batch_size = batch_per_device * self.mesh.size
    self._program = _program(encoder, "embed_pixels", self.mesh)
    self._params = params_on(encoder, self.mesh)

  def dispatch(self, pixels: Float[np.ndarray, "n h w 3"]) -> Float[Array, "b d"]:
    """Start computing the features of at most `batch_size` images, without waiting for the result.

    The result has `batch_size` rows; those from `n` on are padding.

    Raises:
      UsageError: the shape of the pixels does not fit.
    """
    side = self.encoder.input.size
    if pixels.shape[1:] != (side, side, 3) or len(pixels) > self.batch_size:
      raise UsageError(
        f"pixels have shape {pixels.shape}, expected [n, {side}, {side}, 3], n at most {self.batch_size}."
      )
    return _run(self._program, self._params, pixels, self.batch_size, self.mesh)

  def stream(
    self, batches: Iterable[Float32[np.ndarray, "n h w 3"]]
  ) -> Iterator[Float32[np.ndarray, "n d"]]:
    """Yield the features of each batch in order, not normalized.

    The next batch is pulled from `batches` while earlier ones are computed, so decode in the
    iterator.
    """
    return _pipelined((self.dispatch(pixels), len(pixels)) for pixels in batches)

  def __call__(self, pixels: Float32[np.ndarray, "n h w 3"]) -> Float32[np.ndarray, "n d"]:
    """Return the features of all images, not normalized."""
    return _joined(self.stream(_chunks(pixels, self.batch_size)), self.encoder.width)


class TextEmbedder:
  """Text tower on a mesh, with replicated parameters and one program per power of two of rows.

  Args:
    encoder: a CLIP, SigLIP or any other model that embeds texts.
    mesh: devices that share every batch; None for all devices of this host.
    batch_per_device: maximal number of texts per device and batch.
  """

  def __init__(self, encoder: TextEncoder, mesh: Mesh | None = None, batch_per_device: int = 64):
    self.encoder = encoder
    self.mesh = _local_mesh() if mesh is None else mesh
    self.batch_per_device = batch_per_device
    self._program = _program(encoder, "embed_tokens", self.mesh)
    self._params = params_on(encoder, self.mesh)

  def __call__(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
    """Return the features of all texts, not normalized."""
    size = fitting_batch(len(texts), self.mesh.size, self.batch_per_device)
    chunks = (self.encoder.tokenize(chunk) for chunk in _chunks(texts, size))
    run = functools.partial(_run, self._program, self._params, size=size, mesh=self.mesh)
    return _joined(_pipelined((run(tokens), len(tokens)) for tokens in chunks), self.encoder.width)


def image_features(
  encoder: ImageEncoder,
  pixels: Float[np.ndarray, "n h w 3"],
  mesh: Mesh | None = None,
  batch_per_device: int = 32,
) -> Float32[np.ndarray, "n d"]:
  """Compute the features of preprocessed images, not normalized.

  Args:
    encoder: CLIP or any other image encoder.
    pixels: preprocessed images.
    mesh: devices that share every batch; None for all devices of this host.
    batch_per_device: images per device and batch.
  """
  mesh = _local_mesh() if mesh is None else mesh
  rows = fitting_batch(len(pixels), mesh.size, batch_per_device) // mesh.size
  return ImageEmbedder(encoder, mesh, rows)(np.asarray(pixels, np.float32))


def text_features(
  encoder: TextEncoder, texts: Sequence[str], mesh: Mesh | None = None
) -> Float32[np.ndarray, "n d"]:
  """Compute the features of texts, not normalized; texts that exceed the context are truncated.

  Args:
    encoder: a CLIP, SigLIP or any other model that embeds texts.
    texts: texts to embed.
    mesh: devices that share every batch; None for all devices of this host.
  """
  return TextEmbedder(encoder, mesh)(texts)


def text_prototypes(
  encoder: TextEncoder,
  class_names: Sequence[str],
  templates: Sequence[str],
  mesh: Mesh | None = None,
) -> Float32[np.ndarray, "k d"]:
  """Compute text prototypes: the mean over templates of unit-norm features, normalized.

  Sigmoid models (SigLIP) have the same prototypes: scale and bias of the sigmoid are the same for
  all classes, so the largest cosine is the largest probability.

  Args:
    encoder: a CLIP, SigLIP or any other model that embeds texts.
    class_names: one name per class.
    templates: texts with one `{}` for the class name.
    mesh: devices that share every batch.

  Returns:
    Unit-norm prototypes, [k, d].

  Raises:
    RunError: two classes have the same prototype.

  Reference:
    Radford et al., CLIP, section 3.1.4 (arXiv 2103.00020).
  """
  texts = [template.replace("{}", name) for name in class_names for template in templates]
  # Synonyms and templates may give equal texts; each is embedded once.
  distinct = list(dict.fromkeys(texts))
  row = {text: index for index, text in enumerate(distinct)}
  features = unit_norm(text_features(encoder, distinct, mesh))
  by_class = features[[row[text] for text in texts]].reshape(len(class_names), len(templates), -1)
  prototypes = unit_norm(by_class.mean(axis=1))
  _look_at_equal(encoder, prototypes, class_names, templates)
  return prototypes


def _look_at_equal(
  encoder: TextEncoder,
  prototypes: Float32[np.ndarray, "k d"],
  class_names: Sequence[str],
  templates: Sequence[str],
) -> None:
  """Warn of classes with equal prototypes: the first of a pair gets all images of both.

  Published lists have such pairs (ImageNet has two classes `missile`), and a short context cuts
  long names to the same tokens. If different tokens give the same feature, the tokenizer and the
  text tower do not belong together.

  Raises:
    RunError: two prototypes of different tokens are equal up to rounding; the message names their
      classes.
  """
  places: dict[bytes, int] = {}
  alike: list[str] = []
  for index, prototype in enumerate(prototypes):
    # Different words change a unit-norm feature far more than the fifth digit; rounding errors
    # change it less.
    first = places.setdefault(np.round(prototype, 5).tobytes(), index)
    if first == index:
      continue
    pair = f"{class_names[first]!r} and {class_names[index]!r}"
    earlier, later = (
      np.asarray(encoder.tokenize([t.replace("{}", class_names[k]) for t in templates]))
      for k in (first, index)
    )
    if not np.array_equal(earlier, later):
      raise RunError(
        f"the classes {pair} have the same text feature: rename one of them,"
        " or check that the checkpoint's tokenizer matches its text tower."
      )
    alike.append(f"{first} and {index} ({class_names[index]!r})")
  if alike:
    logger.warning(
      "%d classes read like an earlier one to the text tower, by name or because they are cut: %s.",
      len(alike), "; ".join(alike[:5]) + ("; ..." if len(alike) > 5 else ""),
    )  # fmt: skip


def unit_norm(features: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
  """Divide rows by their Euclidean norm."""
  return features / np.linalg.norm(features, axis=-1, keepdims=True)


def fitting_batch(rows: int, devices: int, per_device: int) -> int:
  """Return a batch size for a number of rows: a power of two per device, at most `per_device`.

  Powers of two need few compiled programs for any number of rows.

  Args:
    rows: number of rows to process.
    devices: number of devices that share a batch.
    per_device: maximal number of rows per device.
  """
  wanted = max(1, -(-rows // devices))
  return devices * min(per_device, 1 << (wanted - 1).bit_length())


@kept(16)
def _program(encoder: ImageEncoder, method: str, mesh: Mesh) -> Callable[..., Array]:
  rows = batch_sharding(mesh)
  return jax.jit(
    getattr(encoder, method), in_shardings=(replicated(mesh), rows), out_shardings=rows
  )


@kept(2)
def params_on(encoder: ImageEncoder, mesh: Mesh) -> dict[str, Array]:
  """Return an encoder's parameters, replicated on a mesh; cached."""
  return jax.device_put(encoder.params, replicated(mesh))


def _local_mesh() -> Mesh:
  return data_mesh(jax.local_devices())


def _run(
  program: Callable[..., Array],
  params: dict[str, Array],
  rows: Shaped[np.ndarray, "n ..."],
  size: int,
  mesh: Mesh,
) -> Float[Array, "b d"]:
  return program(params, jax.device_put(pad_rows(rows, size), batch_sharding(mesh)))


def _pipelined(started: Iterable[tuple[Array, int]]) -> Iterator[Float32[np.ndarray, "n d"]]:
  """Yield results in order; fetch one only after `IN_FLIGHT` later ones have been started."""
  waiting: deque[tuple[Array, int]] = deque()
  for item in started:
    waiting.append(item)
    if len(waiting) > IN_FLIGHT:
      features, count = waiting.popleft()
      yield np.asarray(features)[:count]
  for features, count in waiting:
    yield np.asarray(features)[:count]


def _chunks(rows: Any, size: int) -> Iterator[Any]:
  return (rows[start : start + size] for start in range(0, len(rows), size))


def _joined(
  features: Iterable[Float32[np.ndarray, "n d"]], width: int
) -> Float32[np.ndarray, "n d"]:
  # np.concatenate needs at least one array: no images give [0, d].
  none = np.zeros((0, width), np.float32)
  return np.concatenate([none, *features])
