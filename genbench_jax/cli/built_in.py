"""The configs that ship with the package, by name: `demo`, `full:mock`, `configs/full.py`."""

from pathlib import Path

import genbench_jax
from genbench_jax.errors import UsageError

_PACKAGE = Path(genbench_jax.__file__).parent


def configs() -> dict[str, Path]:
  """Return the built-in configs by name, of the package or of the checkout's configs/."""
  for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
    if found := {path.stem: path for path in sorted(folder.glob("*.py"))}:
      return found
  return {}


def config_file(given: str) -> str:
  """Return the file of a config, with its arguments.

  An existing file is used as given. Otherwise, the name of a built-in config is accepted, with or
  without `configs/` and `.py`.

  Args:
    given: `path.py`, `path.py:arguments`, `name` or `name:arguments`.

  Raises:
    UsageError: it is a pipe or another special file, which may never end.
  """
  path, colon, arguments = given.partition(":")
  if Path(path).is_file():
    return given
  if Path(path).exists() and not Path(path).is_dir():
    raise UsageError(f"the config {path!r} is not a regular file.")
  name = Path(path).name.removesuffix(".py")
  if str(Path(path).parent) in (".", "configs") and name in configs():
    return f"{configs()[name]}{colon}{arguments}"
  return given
