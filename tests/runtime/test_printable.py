"""Outside names are printed as one line without escape sequences, and stay recognizable."""

import pytest

from genbench_jax.runtime.printable import listed, printable, storable
from genbench_jax.runtime.progress import Progress, say


@pytest.mark.parametrize(
  ("text", "shown"),
  [
    ("crème brûlée 日本", "crème brûlée 日本"),
    ("\x1b[2Jx\x07", "\\x1b[2Jx\\x07"),
    ("a\nerror: faked", "a\\nerror: faked"),
    ("a\u2028b\x85c\u202ed", "a\\u2028b\\u0085c\\u202ed"),
    ("caf\udce9", "caf\\xe9"),
    ("\ud800", "\\ud800"),
  ],
)
def test_control_characters_are_escaped(text, shown):
  assert printable(text) == shown
  assert printable(text).encode()


def test_printed_text_cannot_control_the_terminal(capsys):
  say("a \x1b[31mred\n  line")
  with Progress("embed \x1b]0;x\x07", 1, "images") as progress:
    progress.advance(1)
  said = capsys.readouterr().err
  assert said.startswith("a \\x1b[31mred\n  line\nembed \\x1b]0;x\\x07: 1 images")
  assert "\x1b" not in said


def test_names_cannot_imitate_lines_of_ours(capsys):
  say("reading a\nerror: disk full")
  assert capsys.readouterr().err == "reading a\\nerror: disk full\n"


def test_names_in_a_list_are_quoted_and_shortened():
  assert listed(["a", "b\x1b"]) == "'a', 'b\\x1b'"
  assert listed([str(n) for n in range(7)]).endswith("'4' and 2 more")
  assert len(listed(["x" * 5000])) < 300
  assert storable("caf\udce9") == "caf\\xe9"
  assert storable("a\ud800b\n\u2028") == "a\\ud800b\n\u2028"
