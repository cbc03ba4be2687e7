"""Validation of a submission: its format by the JSON schema, its content by checksum and ranges."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, TypeGuard

from genbench_jax.report.quantities import quantity_of
from genbench_jax.report.submission import checksum, measured_cells, unpacked

NEEDED = ("dataset", "source", "strategy", "shots", "seed", "quantity", "value", "n_test")
# Limit on the number of reported problems.
MOST_PROBLEMS = 20
# Types of the columns that are read; a column that is not needed may be missing or null.
_TEXTS = ("dataset", "source", "generator", "strategy", "protocol", "encoder", "quantity")
_COUNTS = ("shots", "seed", "n_test", "n_external", "n_real", "missing_classes")
_NUMBERS = (
  "value", "ci_low", "ci_high", "generator_low", "generator_high", "floor", "shots_given",
)  # fmt: skip
# Numbers that a browser reads exactly.
_LARGEST = 2**53
_SURROGATE = re.compile("[\ud800-\udfff]")
TYPES = {"object": dict, "array": list, "string": str, "integer": int}


def schema() -> dict[str, Any]:
  """Return the JSON schema of a submission (draft 2020-12)."""
  path = resources.files("genbench_jax.report").joinpath("assets", "submission.schema.json")
  return json.loads(path.read_text(encoding="utf-8"))


def problems(document: Any) -> list[str]:
  """Return the problems of a submission, one sentence each; empty if it is valid."""
  try:
    text = json.dumps(document, ensure_ascii=False)
  except (RecursionError, ValueError, TypeError) as error:
    return [f"it is no JSON value: {error}."]
  if _SURROGATE.search(text):
    return ["it contains half of a surrogate pair, which is no text."]
  found = list(violations(document, schema(), "submission"))
  if not found:
    found = [*_of_checksum(document), *_of_columns(document["rows"])]
  if not found:
    rows = unpacked(document["rows"])
    found = list(_of_types(rows)) or [*_of_plan(document["plan"], rows), *_of_rows(rows)]
  return found[:MOST_PROBLEMS]


def violations(value: Any, rule: Mapping[str, Any], path: str) -> Iterator[str]:
  """Yield the violations of a JSON schema.

  Only the keywords of our schema are supported; a test compares the result with the package
  jsonschema.

  Args:
    value: JSON value.
    rule: a schema.
    path: location of the value, for the message.
  """
  kind = rule.get("type")
  if kind and (not isinstance(value, TYPES[kind]) or isinstance(value, bool)):
    yield f"{path} is {_told(value)}, expected type {kind}."
    return
  if "enum" in rule and value not in rule["enum"]:
    yield f"{path} is {_told(value)}, allowed: {', '.join(map(repr, rule['enum']))}."
  yield from _bounds(value, rule, path)
  if isinstance(value, Mapping):
    yield from (
      f"{path}.{name} is missing." for name in rule.get("required", ()) if name not in value
    )
    named, other = rule.get("properties", {}), rule.get("additionalProperties", {})
    for name, item in value.items():
      yield from violations(item, named.get(name, other), f"{path}.{name}")
  if isinstance(value, list) and "items" in rule:
    for index, item in enumerate(value):
      yield from violations(item, rule["items"], f"{path}[{index}]")


def _bounds(value: Any, rule: Mapping[str, Any], path: str) -> Iterator[str]:
  if isinstance(value, str) and not re.search(rule.get("pattern", ""), value):
    yield f"{path} is {_told(value)}, expected the format {rule['pattern']}."
  if isinstance(value, str) and len(value) > rule.get("maxLength", math.inf):
    yield f"{path} has {len(value)} characters, at most {rule['maxLength']} are allowed."
  if isinstance(value, list) and len(value) < rule.get("minItems", 0):
    yield f"{path} has {len(value)} items, expected at least {rule['minItems']}."
  if isinstance(value, int) and value < rule.get("minimum", -math.inf):
    yield f"{path} is {value}, expected at least {rule['minimum']}."


def _of_checksum(document: Mapping[str, Any]) -> Iterator[str]:
  if document["checksum"] != (true := checksum(document)):
    yield f"the checksum is {document['checksum']}, but that of the content is {true}: the file was changed by hand."


def _of_columns(rows: Mapping[str, Any]) -> Iterator[str]:
  yield from (f"rows.columns lacks {name!r}." for name in NEEDED if name not in rows["columns"])
  if len(set(rows["columns"])) < len(rows["columns"]):
    yield "rows.columns names a column twice."
  width = len(rows["columns"])
  for index, values in enumerate(rows["data"]):
    if len(values) != width:
      yield f"rows.data[{index}] has {len(values)} values, expected {width}."


def _of_plan(plan: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
  if plan["cells_measured"] != (true := measured_cells(rows)):
    yield f"plan.cells_measured is {plan['cells_measured']}, but the rows are of {true} cells."


def _of_types(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
  """Yield values that are no text, count or finite number where one is expected."""
  kinds = (
    (_TEXTS, _is_text, "text"),
    (_COUNTS, _is_count, "a count"),
    (_NUMBERS, _is_number, "a finite number"),
  )
  for index, row in enumerate(rows):
    for names, is_valid, kind in kinds:
      for name in names:
        value = row.get(name)
        if not is_valid(value) and (value is not None or name in NEEDED):
          yield f"row {index}: the {name} is {_told(value)}, expected {kind}."


def _of_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
  """Yield impossible values: accuracies outside 0 to 1, reversed intervals, duplicate rows."""
  seen: set[tuple[str, ...]] = set()
  for index, row in enumerate(rows):
    where = f"row {index} ({row['quantity']} of {row['dataset']})"
    value, low, high = row["value"], row.get("ci_low"), row.get("ci_high")
    if quantity_of(str(row["quantity"])).kind == "accuracy" and not 0 <= value <= 1:
      yield f"{where}: {value} is not an accuracy, expected a fraction from 0 to 1."
    if low is not None and high is not None and low > high:
      yield f"{where}: the interval runs from {low} to {high}."
    key = tuple(str(row.get(name)) for name in (*NEEDED[:6], "generator", "protocol", "encoder"))
    if key in seen:
      yield f"{where} is given twice."
    seen.add(key)


def _is_number(value: Any) -> TypeGuard[int | float]:
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  # `isfinite` overflows for an integer beyond the range of a float.
  return is_number and (abs(value) <= _LARGEST if isinstance(value, int) else math.isfinite(value))


def _is_count(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def _is_text(value: Any) -> bool:
  return isinstance(value, str)


def _told(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 60 else f"{text[:57]}..."
