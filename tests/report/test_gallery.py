"""Example images: limited in size, sorted by class, validated."""

import pytest

from genbench_jax.errors import RunError
from genbench_jax.report.gallery import Entry, Gallery, fit, walls, weight


def _gallery(source, counts):
  entries = [Entry(name, bytes(10)) for name, count in counts.items() for _ in range(count)]
  return Gallery("d", source, "", entries)


def test_images_beyond_the_budget_are_omitted_evenly():
  galleries = [_gallery("generative", {"a": 5, "b": 5}), _gallery("original", {"a": 5, "b": 5})]
  cut, left_out = fit(galleries, budget=8 * weight(galleries[0].entries[0]) + 5)
  assert [len(g.entries) for g in cut] == [4, 4]
  assert [e.class_name for e in cut[0].entries] == ["a", "a", "b", "b"]
  assert left_out == 12
  # Even with less space than one image per class, the sources are shown side by side.
  cut, _ = fit(galleries, budget=2 * weight(galleries[0].entries[0]) + 5)
  assert [[e.class_name for e in g.entries] for g in cut] == [["a"], ["a"]]


def test_walls_show_the_sources_side_by_side(galleries):
  first = walls(galleries)[0]
  assert first.dataset == "digits"
  assert [one.label for one in first.sets][-1] == "original"
  assert [len(pictures) for pictures in first.rows[0].pictures] == [4, 4, 4]
  picture = first.rows[0].pictures[0][0]
  assert picture.uri.startswith("data:image/png;base64,")
  assert (picture.width, picture.height) == (32, 32)


@pytest.mark.parametrize("image", [b"", b"<svg onload=alert(1)>", b"GIF89a" + bytes(30)])
def test_only_png_and_jpeg_are_embedded(image):
  gallery = Gallery("d", "folder", "", [Entry("cat", image)])
  with pytest.raises(RunError, match="'cat'"):
    walls([gallery])


def test_long_negative_prompts_are_truncated_visibly(galleries):
  import dataclasses

  entry = dataclasses.replace(galleries[0].entries[0], negative_prompt="x" * 5000)
  shown = walls([Gallery("d", "generative", "", [entry])])[0].rows[0].pictures[0][0].entry
  assert shown.negative_prompt == "x" * 400 + "… (5000 characters in all)"
  assert weight(entry) < len(entry.image) * 4 // 3 + 1000


def test_classes_are_sorted_from_best_to_worst(galleries):
  gains = {"digits": {"disc": 0.1, "circle": -0.2}}
  digits, hard, *_ = walls(galleries, gains)
  assert [row.class_name for row in digits.rows[:2]] == ["disc", "circle"]
  assert [row.gain for row in digits.rows] == [0.1, -0.2, None]
  assert [row.class_name for row in hard.rows[:2]] == ["circle", "disc"]
