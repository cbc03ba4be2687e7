"""Known degradations, and the command that shows which metrics react to them."""

import numpy as np
import pytest

from genbench_jax.cli import sanity as sanity_command
from genbench_jax.errors import UsageError
from genbench_jax.metrics import sanity, shifts
from genbench_jax.metrics.shifts import Features


@pytest.fixture(scope="module")
def arrays():
  random = np.random.default_rng(0)
  text = random.normal(size=(4, 16))
  labels = np.repeat(np.arange(4), 40)
  features = (text + 0.8 * random.normal(size=text.shape))[labels] + random.normal(size=(160, 16))
  return {"features": features, "labels": labels, "text_features": text}


@pytest.fixture(scope="module")
def given(arrays):
  return sanity.checked(arrays["features"], arrays["labels"], arrays["text_features"])


def shifted(name, given, seed=0):
  return shifts.SHIFTS[name](given, np.random.default_rng(seed))


def rows_of(features):
  return {row.tobytes() for row in features}


def test_shifts_are_as_described(given):
  assert len(np.unique(shifted("dropped_modes", given).labels)) == 2
  copies = shifted("duplicates", given)
  assert len(copies.labels) == 160 and len(rows_of(copies.features)) <= 20
  assert (np.bincount(copies.labels) == 40).all()
  fewer = shifted("fewer_images", given)
  assert (np.bincount(fewer.labels) == 5).all()
  swapped = shifted("swapped_labels", given)
  assert (np.bincount(swapped.labels) == 40).all()
  assert 0.1 < np.mean(swapped.labels != given.labels) < 0.4
  strange = np.any(shifted("outliers", given).features != given.features, axis=1)
  assert 0.1 < strange.mean() < 0.3
  for name in shifts.SHIFTS:
    after = shifted(name, given)
    np.testing.assert_allclose(np.linalg.norm(after.features, axis=1), 1, rtol=1e-5)
    assert rows_of(after.features) == rows_of(shifted(name, given).features)


def test_only_images_outside_the_classes_are_noise(given):
  noisy = shifted("noise", given).features
  own = np.mean(np.sum((noisy - given.features) ** 2, 1))
  assert 0.2 < own < 1.5
  closer = shifted("blurred", given).features
  assert np.linalg.norm(closer.mean(0)) > np.linalg.norm(given.features.mean(0))


def test_metrics_change_in_the_right_direction(tmp_path, arrays, capsys, monkeypatch):
  few = ("zero_shot", "cler", "cler_image", "fid", "kid", "vendi", "intra_class_diversity")
  monkeypatch.setattr(sanity, "known_quantities", lambda: few)
  path = tmp_path / "features.npz"
  np.savez(path, **arrays)
  picture = tmp_path / "sanity.png"
  command = [f"--features={path}", f"--picture={picture}", "--divisions=2"]
  assert sanity_command.main(command) == 0
  assert picture.stat().st_size > 10_000
  printed = capsys.readouterr().out.splitlines()
  assert printed[0].split() == ["clean", *shifts.SHIFTS]
  names = [line.split()[0] for line in printed[1:-2]]
  assert names == list(few[1:])  # zero-shot sees no external image


def test_every_metric_detects_its_own_shift(given):
  """Degraded features against clean ones, with the known direction for each metric."""
  test = Features(given.features[::2], given.labels[::2], given.text)
  rest = Features(given.features[1::2], given.labels[1::2], given.text)
  clean = sanity.measure_all(rest, test)
  noisy = sanity.measure_all(shifted("noise", rest), test)
  fewer_modes = sanity.measure_all(shifted("dropped_modes", rest), test)
  copies = sanity.measure_all(shifted("duplicates", rest), test)
  for name in ("fid", "kid", "cmmd", "mind", "class_chamfer"):
    assert noisy[name] > clean[name], name
    assert fewer_modes[name] > clean[name], name
  for name in ("precision", "density", "clip_score", "clipped_density"):
    assert noisy[name] < clean[name], name
  for name in ("recall", "coverage", "clipped_coverage", "vendi", "vendi_q2", "cler_image"):
    assert fewer_modes[name] < clean[name], name
    assert copies[name] < clean[name] or name == "cler_image", name
  assert copies["intra_class_diversity"] < clean["intra_class_diversity"]
  assert fewer_modes["guide_ridge"] < clean["guide_ridge"]


def test_verdicts():
  clean = [{"fid": 1.0, "vendi": 5.0, "recall": 0.5}, {"fid": 1.1, "vendi": 5.1, "recall": 0.6}]
  after = [{"fid": 2.0, "vendi": 6.0, "recall": 0.7}, {"fid": 2.11, "vendi": 6.11, "recall": 0.5}]
  verdicts = {name: sanity._movement(name, clean, after).verdict for name in clean[0]}
  assert verdicts == {"fid": 1, "vendi": -1, "recall": 0}
  unmoved = sanity._movement("fid", clean, clean)
  assert (unmoved.worsening, unmoved.verdict) == (0, 0)


def test_metrics_that_need_text_are_skipped_without_it(given):
  without = Features(given.features, given.labels, None)
  found = sanity.measure_all(without, without)
  assert not set(found) & {*sanity.NEED_TEXT, "zero_shot"}
  assert found["cler_image"] == sanity.measure_all(given, given)["cler_image"]


def test_embedding_sets_are_read(tmp_path, arrays):
  from safetensors.numpy import save_file

  path = tmp_path / "set.safetensors"
  valid = np.ones(160, np.uint8)
  valid[:3] = 0
  save_file({"features": arrays["features"], "labels": arrays["labels"], "valid": valid}, path)
  found = sanity_command.read_features(path)
  assert len(found.labels) == 157 and found.text is None


@pytest.mark.parametrize(
  ("content", "said"),
  [
    (b"not a file of arrays", "cannot be read"),
    ({"features": np.ones((3, 2))}, "no array labels"),
    ({"features": np.ones((3, 2)), "labels": np.zeros(3, int)}, "at least 8 images"),
    ({"features": np.ones((3, 2)), "labels": np.zeros(3)}, "class indices"),
    ({"features": np.full((16, 2), np.nan), "labels": np.repeat([0, 1], 8)}, "NaN"),
    ({"features": np.array([{}]), "labels": np.zeros(1, int)}, "cannot be read"),
  ],
)
def test_invalid_files_are_one_line_errors(tmp_path, content, said, capsys):
  path = tmp_path / "features.npz"
  if isinstance(content, bytes):
    path.write_bytes(content)
  else:
    np.savez(path, **content, allow_pickle=True)
  assert sanity_command.main([f"--features={path}"]) == 2
  error = capsys.readouterr().err
  assert said in error and error.startswith("error: ") and error.count("\n") == 1
  with pytest.raises(UsageError):
    sanity_command.read_features(tmp_path / "missing.npz")


@pytest.mark.parametrize(
  ("after", "verdict", "worsening"),
  [
    ([3.0, 3.2, 3.4], 1, np.inf),  # the same step each time
    ([1.0, 1.2, 1.4], 0, 0),
    ([1.0 + 1e-10, 1.2, 1.4], 0, 0),  # a change beyond the 8th digit
    ([0.0, 0.2, 0.4], -1, -np.inf),
    ([2.0, 1.2, 1.4], 0, 1.0),  # one step of three: a mean of 1/3 with an error of 1/3
    ([np.nan, 3.2, 3.4], 0, 0),
  ],
)
def test_a_change_is_counted_in_standard_errors(after, verdict, worsening):
  before = [{"fid": value} for value in (1.0, 1.2, 1.4)]
  found = sanity._movement("fid", before, [{"fid": value} for value in after])
  if np.isinf(worsening):
    assert np.sign(found.worsening) == np.sign(worsening) and abs(found.worsening) > 1e6
  else:
    assert found.worsening == pytest.approx(worsening, abs=1e-6)
  assert (found.verdict, found.before) == (verdict, pytest.approx(1.2))
  opposite = sanity._movement(
    "vendi", [{"vendi": v["fid"]} for v in before], [{"vendi": value} for value in after]
  )
  assert opposite.verdict == -verdict


@pytest.mark.parametrize(("worse", "verdict"), [(4.01, 1), (3.99, 0)])
def test_four_standard_errors_are_a_change(worse, verdict):
  step = np.array([-1.0, 1.0]) / np.sqrt(2)  # a standard deviation of 1, an error of sqrt(1/2)
  steps = worse / np.sqrt(2) + step
  clean = [{"fid": 10.0}, {"fid": 20.0}]
  shifted = [{"fid": value + s} for value, s in zip((10.0, 20.0), steps, strict=True)]
  found = sanity._movement("fid", clean, shifted)
  assert found.worsening == pytest.approx(worse) and found.verdict == verdict


def test_halves_of_each_class_are_compared(given):
  external, real = sanity._halves(given, np.random.default_rng(0))
  assert np.bincount(external.labels).tolist() == np.bincount(real.labels).tolist() == [20] * 4
  assert rows_of(external.features) | rows_of(real.features) == rows_of(given.features)
  odd = given.take(np.arange(3))
  assert [len(half.labels) for half in sanity._halves(odd, np.random.default_rng(0))] == [1, 2]
  assert sanity._every_other(np.array([0, 0, 0, 1, 1]), 0).tolist() == [0, 2, 3]
  assert sanity._every_other(np.array([0, 0, 0, 1, 1]), 1).tolist() == [1, 4]


def test_eight_images_of_two_classes_are_enough():
  features = np.random.default_rng(0).normal(size=(16, 3))
  labels = np.repeat([0, 1], 8)
  found = sanity.checked(features, labels)
  np.testing.assert_allclose(np.linalg.norm(found.features, axis=1), 1, rtol=1e-6)
  for wrong in (
    np.zeros(16, int),
    np.repeat([0, 1], [9, 7]),
    labels * 1.0,
    labels[:, None],
    labels[:0],
  ):
    with pytest.raises(UsageError):
      sanity.checked(features, wrong)
  text = np.ones((2, 3))
  assert sanity.checked(features, labels, text).text.dtype == np.float32
  with pytest.raises(UsageError, match=r"0\.\.0"):
    sanity.checked(features, labels, text[:1])


def test_movements_cover_all_shifts_but_not_zero_shot(given, monkeypatch):
  calls = []

  def measure_all(external, real):
    calls.append(len(external.labels))
    return {"zero_shot": 1.0, "fid": float(len(calls))}

  monkeypatch.setattr(sanity, "measure_all", measure_all)
  found = sanity.movements(given, divisions=2)
  assert found.keys() == {"fid"} and found["fid"].keys() == shifts.SHIFTS.keys()
  assert len(calls) == 2 * (1 + len(shifts.SHIFTS))
