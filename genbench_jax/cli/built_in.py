"""The configs that ship with the package, by name: `demo`, `full:mock`, `configs/full.py`."""

from pathlib import Path

import genbench_jax

_PACKAGE = Path(genbench_jax.__file__).parent


def configs() -> dict[str, Path]:
  """Return the built-in configs by name: of an installed package from inside of it, in a checkout from configs/."""
  for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
    if found := {path.stem: path for path in sorted(folder.glob("*.py"))}:
      return found
  return {}


def config_file(given: str) -> str:
  """Return the file of a config, with its arguments.

  A file that is there is taken as it is. If none is, a name of a built-in config stands for it, with or without
  `configs/` before and `.py` behind.

  Args:
    given: `path.py`, `path.py:arguments`, `name` or `name:arguments`.
  """
  path, colon, arguments = given.partition(":")
  if Path(path).is_file():
    return given
  name = Path(path).name.removesuffix(".py")
  if str(Path(path).parent) in (".", "configs") and name in configs():
    return f"{configs()[name]}{colon}{arguments}"
  return given
