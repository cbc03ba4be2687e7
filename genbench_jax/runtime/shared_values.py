"""Values that are made when first needed and then shared."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class SharedValues:
  """Values that runs of several configs on one work folder share: models, labels, digests.

  A key contains every setting that determines the value, so no run gets a value of another config.
  """

  def __init__(self) -> None:
    self._values: dict[Hashable, Any] = {}

  def get(self, key: Hashable, make: Callable[[], T]) -> T:
    """Return the value of a key; make it if it does not exist."""
    if key not in self._values:
      self._values[key] = make()
    return self._values[key]

  def only(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
    """Return the value of a key and drop the others of its kind.

    A device has no memory for several large models.

    Args:
      kind: kind of the value.
      key: settings that determine it.
      make: function that makes it.
    """
    if (kind, key) not in self._values:
      for other in [
        encoder for encoder in self._values if isinstance(encoder, tuple) and encoder[:1] == (kind,)
      ]:
        del self._values[other]
    return self.get((kind, key), make)
