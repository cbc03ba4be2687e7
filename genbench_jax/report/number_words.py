"""Numbers in words, as the page writes them."""

import math

from genbench_jax.report.quantities import Quantity


def percent(value: float) -> str:
  """Return a fraction in percent with one decimal: 93.1 for 0.931."""
  return f"{tenths(100 * value):.1f}".replace("-", "−")


def points(value: float) -> str:
  """Return a difference of fractions in points, with its sign: −1.2 for -0.012."""
  text = f"{tenths(100 * value):+.1f}"
  return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def tenths(value: float) -> float:
  """Round to one decimal, half away from zero.

  Counts of 400 or 800 test images often give exact halves (4.75), which binary fractions and their
  differences miss by 1e-15 either way. Without the 1e-6, the same gain would be 4.7 in a figure and
  4.8 in a sentence. The page's script rounds by the same rule.
  """
  return math.copysign(math.floor(abs(value) * 10 + 0.5 + 1e-6) / 10, value)


def number(value: float) -> str:
  """Return a number with three or more significant digits: 0.0000123 and 123,456, not 1.23e-5."""
  if value == 0:
    return "0.00"
  digits = 2 - math.floor(math.log10(abs(value)))
  if abs(value) < 5e-7:
    return "0.00"
  return f"{value:,.{max(0, digits)}f}".replace("-", "−")


def rate(value: float, unit: str) -> str:
  """Return a rate in readable units: below one per second, seconds per item.

  Args:
    value: items per second.
    unit: name of one item.
  """
  if value >= 1 or value <= 0:
    return f"{number(value)} {unit}s per second"
  return f"{number(1 / value)} seconds per {unit}"


def the(label: str) -> str:
  """Return the label with its article: `the linear probe`, but `CLER` and `LoRA`."""
  return (
    label if label[:2].isupper() or label in ("CoOp", "LoRA", "Tip-Adapter") else f"the {label}"
  )


def p_value(p: float) -> str:
  """Return `p = 0.03` or `p < 0.001`: never 0 and without an exponent."""
  return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def shown(quantity: Quantity, value: float) -> str:
  """Return a value as the page shows it."""
  return {"accuracy": percent, "difference": points, "number": number}[quantity.kind](value)
