"""The machines of a plan: a data file with dates and sources."""

import dataclasses
import re
from importlib import resources
from pathlib import Path
from typing import Any

from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.store.yaml_files import YamlError, parse_yaml, read_yaml


@dataclasses.dataclass(frozen=True)
class Machine:
  """One or more chips of a kind.

  Attributes:
    name: name in the data file.
    what: description.
    tflops: peak bfloat16 TFLOP/s per chip, without sparsity.
    memory_gb, bandwidth_gbs: memory and its bandwidth per chip.
    usd_hour: price per chip-hour; 0 if there is none.
    source: source of the values.
    as_of: date of the price.
    chips: number of chips.
  """

  name: str
  what: str
  tflops: float
  memory_gb: float
  bandwidth_gbs: float
  usd_hour: float
  source: str
  as_of: str
  chips: int = 1

  @property
  def label(self) -> str:
    return self.what if self.chips == 1 else f"{self.chips} x {self.what}"


def machine(given: str, file: str = "", price: float | None = None) -> Machine:
  """Return the machine of a name such as `h100`, `v5e-8` or `a100x4`.

  Args:
    given: a name of the data file, with or without a number of chips.
    file: a data file with the format of `machines.yaml`, used instead.
    price: USD per chip-hour, instead of the list price.

  Raises:
    UsageError: the machine is unknown, or the file is malformed.
  """
  known = machines(file)
  name, chips = given.lower(), 1
  if name not in known and (match := re.fullmatch(r"(.+?)[-x](\d+)", name)):
    name, chips = match[1], int(match[2])
  if name not in known or chips < 1:
    raise unknown_name("machine", given, (*known, *(f"{name}-8" for name in known)))
  changed: dict[str, Any] = {"chips": chips} | ({} if price is None else {"usd_hour": price})
  return dataclasses.replace(known[name], **changed)


def machines(file: str = "") -> dict[str, Machine]:
  """Return all machines of a data file, by default that of the package, with one chip each.

  Raises:
    UsageError: the file is malformed.
  """
  shipped = resources.files("genbench_jax.planning").joinpath("machines.yaml")
  try:
    table = (
      read_yaml(Path(file).expanduser(), follow=True)
      if file
      else parse_yaml(shipped.read_text(encoding="utf-8"))
    )
    return {
      name: Machine(
        name, **values | {"as_of": str((values if "as_of" in values else table)["as_of"])}
      )
      for name, values in table["machines"].items()
    }
  except (OSError, YamlError, KeyError, TypeError, AttributeError) as error:
    raise UsageError(
      f"{file or shipped} is not a table of machines ({error}). See genbench_jax/planning/machines.yaml."
    ) from error
