"""Types of arguments that argparse does not have."""

import argparse
import math


def numbers(text: str) -> list[int]:
  """Parse comma-separated whole numbers.

  Raises:
    ArgumentTypeError: the text has another form.
  """
  try:
    return [int(number) for number in text.split(",")]
  except ValueError as error:
    raise argparse.ArgumentTypeError(
      f"{text!r} is not a comma-separated list of whole numbers, such as 1,4,16"
    ) from error


def positive(text: str) -> int:
  """Parse a whole number of at least 1.

  Raises:
    ArgumentTypeError: the text has another form.
  """
  if not text.isdigit() or int(text) < 1:
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
  return int(text)


def price(text: str) -> float:
  """Parse an amount of money.

  Raises:
    ArgumentTypeError: the text is not a finite number of at least 0.
  """
  try:
    amount = float(text)
  except ValueError:
    amount = -1.0
  if not 0 <= amount < math.inf:
    raise argparse.ArgumentTypeError(f"{text!r} is not a price, such as 1.2")
  return amount
