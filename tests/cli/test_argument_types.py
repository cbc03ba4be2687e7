"""Types of arguments."""

import argparse
import re

import pytest

from genbench_jax.cli.argument_types import numbers, positive, price


@pytest.mark.parametrize(
  ("text", "value"), [("1,4,16", [1, 4, 16]), ("7", [7]), ("-1, 2", [-1, 2])]
)
def test_numbers_are_separated_by_commas(text, value):
  assert numbers(text) == value


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("0016", 16)])
def test_positive_numbers_are_whole(text, value):
  assert positive(text) == value


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("1.2", 1.2), ("1e1", 10.0)])
def test_a_price_is_a_number(text, value):
  assert price(text) == value


@pytest.mark.parametrize(
  ("kind", "text"),
  [
    *((numbers, text) for text in ("", "1,", "1;2", "1.5", "many")),
    *((positive, text) for text in ("", "0", "-1", "1.5", "+1", "one")),
    *((price, text) for text in ("", "-0.1", "inf", "nan", "1,2", "cheap")),
  ],
)
def test_other_texts_are_rejected(kind, text):
  with pytest.raises(argparse.ArgumentTypeError, match=re.escape(f"'{text}' is not a")):
    kind(text)
