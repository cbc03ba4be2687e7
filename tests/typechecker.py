"""How annotations are enforced while the tests run: jaxtyping's import hook passes every function to `checked`."""

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

# PEP 484's numeric tower: an int passes for a float, as in every static type checker.
_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(function):
  """Return the function with its annotations enforced, unless one is `Self`.

  beartype understands `Self` only where it decorates the whole class, and jaxtyping decorates the methods.
  """
  try:
    return _checked(function)
  except BeartypeDecorHintPep673Exception:
    return function
