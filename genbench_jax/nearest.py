"""For the images that the page shows: the test images that are most like them."""

from collections.abc import Sequence

import numpy as np

from genbench_jax.artefacts import image_set_path
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.features import load_embeddings, test_path
from genbench_jax.plan import ImageSetKey
from genbench_jax.report.gallery import Nearest
from genbench_jax.report.thumbnails import thumbnail
from genbench_jax.run import Run


def nearest_test_images(run: Run, key: ImageSetKey, rows: Sequence[int]) -> dict[int, Nearest]:
  """Image index -> the test image of the largest cosine; empty where the set or the test split is not embedded.

  Args:
    run: the config on its work folder.
    key: the image set.
    rows: which of its images, by index.
  """
  paths = image_set_path(run, key), test_path(run, key.dataset)
  if not rows or not all(path.exists() for path in paths):
    return {}
  images, test = load_embeddings(paths[0]), load_embeddings(paths[1]).readable()
  cosines = _unit(images.features[np.array(rows)]) @ _unit(test.features).T
  split, names = run.split(key.dataset, "test"), dataset_spec(key.dataset).names
  found = {}
  for row, cosine in zip(rows, cosines, strict=True):
    best = int(cosine.argmax())
    labels = np.flatnonzero(test.labels[best]) if test.labels.ndim == 2 else [test.labels[best]]
    picture = thumbnail(split.example(int(test.ids[best]))["image"])
    name = ", ".join(names[int(label)] for label in labels)
    found[row] = Nearest(picture, name, float(cosine[best]))
  return found


def _unit(features: np.ndarray) -> np.ndarray:
  return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
