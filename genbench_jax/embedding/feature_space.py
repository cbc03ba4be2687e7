"""An encoder with its fingerprint, loaded when it is first needed."""

import functools
from collections.abc import Callable

from genbench_jax.embedding.embedder import ImageEmbedder


class FeatureSpace:
  """An encoder of the run's images. The model is loaded when it is first needed.

  Args:
    name: name of its checkpoint.
    fingerprint: function that returns the checkpoint's checksum and rejects another than the pinned
      one.
    embedder: function that returns the loaded model on its devices.
  """

  def __init__(
    self, name: str, fingerprint: Callable[[], str], embedder: Callable[[], ImageEmbedder]
  ) -> None:
    self.name, self._fingerprint, self._embedder = name, fingerprint, embedder

  @functools.cached_property
  def fingerprint(self) -> str:
    return self._fingerprint()

  @functools.cached_property
  def embedder(self) -> ImageEmbedder:
    _ = self.fingerprint  # rejects another checkpoint than the pinned one
    return self._embedder()
