"""How processes introduce themselves to each other."""

import json

import pytest

from genbench_jax.runtime.callers import different_settings, disagreement, read_caller, this_caller


def test_a_caller_survives_its_message():
  caller = this_caller(1, 2, {"steps": 20, "shots": (1, 4)}, "a problem")
  assert caller.settings == {"steps": "20", "shots": "(1, 4)"}
  assert read_caller(caller) == caller  # a single process does not send it
  assert read_caller(json.loads(json.dumps(caller))) == caller


@pytest.mark.parametrize(
  "value",
  [
    3,
    [1],
    [1, 2, "h", 3, {}, ["cpu", 1], ""],
    [1, 2, "h", 3, {"a": 1}, ["cpu", 1, ""], ""],
    ["1", 2, "h", 3, {}, ["cpu", 1, ""], ""],
  ],
)
def test_other_messages_are_no_callers(value):
  with pytest.raises(ValueError, match="not a process"):
    read_caller(value)


def test_many_different_settings_are_counted():
  one, other = (this_caller(n, 2, {f"s{i:02d}": n for i in range(20)}) for n in (0, 1))
  said = different_settings(one, other)
  assert "has s00=0" in said and "has s00=1" in said and "s08 and 11 more." in said
  assert disagreement(one, one._replace(number=1)) == ""
