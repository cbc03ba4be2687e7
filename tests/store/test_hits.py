"""Each test image's contribution to a score is stored exactly, and the contributions add up to the score."""

import numpy as np
import pytest

from genbench_jax.errors import RunError
from genbench_jax.store import hits
from genbench_jax.store.class_values import key_of
from genbench_jax.store.hits import PerImage, digest_of

ROW = {"dataset": "d", "source": "original", "generator": "", "strategy": "", "shots": 4, "seed": 0,
       "protocol": "strict", "encoder": "e", "quantity": "cler", "value": 0.5}  # fmt: skip


def test_bits_floats_and_classes_round_trip(tmp_path):
  random = np.random.default_rng(0)
  right = (random.random(13) < 0.6).astype(float)
  some = PerImage(right, "t", random.integers(0, 3, 13))
  other = PerImage(random.normal(size=13).astype(np.float32).astype(float), "t")
  lines = [hits.of_row(ROW, some), hits.of_row({**ROW, "quantity": "topk_vote"}, other)]
  hits.write(tmp_path / "h.jsonl", lines)
  first, second = hits.read(tmp_path / "h.jsonl").values()
  assert key_of(ROW) in hits.read(tmp_path / "h.jsonl")
  assert np.array_equal(first.values, right) and np.array_equal(first.classes, some.classes)
  assert np.array_equal(second.values, other.values) and not len(second.classes)
  assert len(lines[0]["values"]) == 4  # 13 bits


def test_a_changed_file_is_rejected(tmp_path):
  hits.write(tmp_path / "h.jsonl", [hits.of_row(ROW, PerImage(np.ones(9), "t"))])
  (tmp_path / "h.jsonl").write_text((tmp_path / "h.jsonl").read_text().replace('"t"', '"u"'))
  with pytest.raises(RunError, match="checksum"):
    hits.read(tmp_path / "h.jsonl")
  hits.write(
    tmp_path / "h.jsonl", [{**ROW, "count": 9, "coded": "bits", "values": "//", "classes": ""}]
  )
  with pytest.raises(RunError, match="damaged"):
    hits.read(tmp_path / "h.jsonl")


def test_the_digest_distinguishes_images_and_labels():
  ids, labels = np.arange(4), np.array([0, 1, 0, 1])
  known = digest_of("split", ids, labels)
  assert known == digest_of("split", ids.astype(str), labels)
  assert known != digest_of("split", ids + 1, labels)
  assert known != digest_of("split", ids, labels[::-1])
  assert known != digest_of("other images of the same names", ids, labels)


def test_images_have_equal_weights_or_classes_have():
  plain = PerImage(np.array([1.0, 0.0, 0.5, 1.0]), "t")
  assert not len(plain.classes)
  np.testing.assert_array_equal(plain.weights, [0.25] * 4)
  assert plain.score == 0.625
  # Class 1 has no test image, and the others weigh 1/2 each.
  by_class = PerImage(plain.values, "t", np.array([0, 0, 2, 0]))
  np.testing.assert_allclose(by_class.weights, [1 / 6, 1 / 6, 1 / 2, 1 / 6], rtol=1e-15)
  assert by_class.score == pytest.approx(2 / 6 + 0.5 / 2)


def test_fractions_between_right_and_wrong_are_no_bits():
  some = PerImage(np.array([1.0, 0.0, 0.5]), "t")
  assert hits.decoded(hits.encoded(some)).values.tolist() == [1, 0, 0.5]


@pytest.mark.parametrize(
  "changed", [{"count": 4}, {"classes": "AAAAAA=="}, {"values": "o!A=="}, {"classes": "!"}]
)
def test_a_line_with_another_number_of_values_or_classes_is_rejected(changed):
  line = hits.encoded(PerImage(np.array([1.0, 0.25, 0.5]), "t"))
  assert hits.decoded(line).values.tolist() == [1, 0.25, 0.5]
  with pytest.raises(ValueError):
    hits.decoded({**line, **changed})
