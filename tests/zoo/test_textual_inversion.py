"""The demo of textual inversion: what it compares, not how well it works."""

import numpy as np

from genbench_jax.zoo import textual_inversion as demo


def test_gains_are_paired_over_images_and_reported_by_seed():
  plain = np.array([[True, False, False, False], [True, False, False, False]])
  learned = np.array([[True, True, False, False], [True, True, True, False]])
  found = demo._compared([plain, learned, learned])
  assert found["plain"][0] == 0.25 and found["textual_inversion"][0] == 0.625
  assert found["gain"][0] == 0.375 and found["gain_by_seed"] == [0.25, 0.5]
  assert found["gain"][1] <= 0.375 <= found["gain"][2]
  assert found["references_themselves"][0] == 0.625


def test_references_are_originals_of_the_unseen_class_and_differ_by_seed(tmp_path):
  first, second = (demo._concept(tmp_path, seed, 5) for seed in (0, 1))
  assert first.class_names == ("pentagon",) and first.labels == (0,) * 5
  images, labels = demo._originals()
  own = {images[row].tobytes() for row in np.flatnonzero(labels == demo.UNSEEN)}
  shown = [np.asarray(image).tobytes() for image in first.images()]
  assert len(set(shown)) == 5 and own.issuperset(shown)
  assert set(shown) != {np.asarray(image).tobytes() for image in second.images()}
