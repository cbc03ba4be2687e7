"""Messages that say what was given, the nearest name and what is allowed."""

from genbench_jax.errors import UsageError, unknown_name


def test_the_nearest_name_is_offered_as_it_is_spelt():
  error = unknown_name("dataset", "Digit", ["Digits", "shapes"])
  assert str(error) == "unknown dataset 'Digit'. Did you mean 'Digits'? Known: Digits, shapes."
  assert isinstance(error, UsageError)


def test_nothing_is_offered_where_nothing_is_near():
  assert "Did you mean" not in str(unknown_name("dataset", "zzz", ["digits"]))


def test_names_in_messages_are_no_commands_to_a_terminal():
  from genbench_jax.errors import ModelError, RunError, UsageError

  for kind in (UsageError, RunError, ModelError):
    assert str(kind("no \x1b[2J\x9bclass\u2028\n  in lines, crème")) == (
      "no \\x1b[2J\\x9bclass\\u2028\n  in lines, crème"
    )
