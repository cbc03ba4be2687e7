"""Values that live as long as the object that they are made from.

`functools.lru_cache` would keep the last models of a process in memory, gigabytes each, even after the
run that loaded them has ended.
"""

import functools
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar, cast

Arguments = ParamSpec("Arguments")
T = TypeVar("T")

_KEPT = "_kept_values"


def kept(most: int) -> Callable[[Callable[Arguments, T]], Callable[Arguments, T]]:
  """Cache a function's values in the object that is its first argument.

  The further arguments must be hashable. An object that cannot hold attributes gets a new value at
  every call.

  Args:
    most: number of values that are kept over all objects; the least recently used one is dropped.
  """

  def decorate(make: Callable[..., Any]) -> Callable[..., Any]:
    lock, latest = threading.Lock(), list[tuple[weakref.ref[Any], Hashable]]()

    @functools.wraps(make)
    def get(owner: Any, *others: Hashable, **named: Hashable) -> Any:
      key = (make, others, tuple(sorted(named.items())))
      values = _values_of(owner)
      if key not in values:
        values[key] = make(owner, *others, **named)
      value = values[key]
      with lock:
        _note(latest, owner, key, most)
      return value

    return get

  return cast("Callable[[Callable[Arguments, T]], Callable[Arguments, T]]", decorate)


def _values_of(owner: Any) -> dict[Hashable, Any]:
  try:
    return vars(owner).setdefault(_KEPT, {})
  except TypeError:  # no __dict__
    return {}


def _note(
  latest: list[tuple[weakref.ref[Any], Hashable]], owner: Any, key: Hashable, most: int
) -> None:
  """Move a value to the end of the list, and drop the first one if there are too many."""
  if _KEPT not in getattr(owner, "__dict__", ()):
    return
  latest[:] = [
    (ref, old)
    for ref, old in latest
    if (other := ref()) is not None and (other is not owner or old != key)
  ]
  latest.append((weakref.ref(owner), key))
  if len(latest) > most:
    ref, old = latest.pop(0)
    _values_of(ref()).pop(old, None)
