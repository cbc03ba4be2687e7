"""Messages contain the given name, the nearest name and all known names."""

from genbench_jax.errors import UsageError, unknown_name


def test_the_nearest_name_is_suggested_in_its_spelling():
  error = unknown_name("dataset", "Digit", ["Digits", "shapes"])
  assert str(error) == "unknown dataset 'Digit'. Did you mean 'Digits'? Known: Digits, shapes."
  assert isinstance(error, UsageError)


def test_no_suggestion_without_a_similar_name():
  assert "Did you mean" not in str(unknown_name("dataset", "zzz", ["digits"]))


def test_names_in_messages_cannot_control_the_terminal():
  from genbench_jax.errors import ModelError, RunError, UsageError

  for kind in (UsageError, RunError, ModelError):
    assert str(kind("no \x1b[2J\x9bclass\u2028\n  in lines, crème")) == (
      "no \\x1b[2J\\x9bclass\\u2028\n  in lines, crème"
    )
