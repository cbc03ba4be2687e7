"""Per-class results, confusion and the files of predictions and probes."""

import csv

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as peer_confusion, precision_recall_fscore_support

from genbench_jax.errors import RunError
from genbench_jax.metrics.accuracy import recognition_score
from genbench_jax.recognizers import results
from genbench_jax.recognizers.linear_probe import linear_probe
from genbench_jax.recognizers.models import load_probe_scores, save_model, save_probe
from genbench_jax.store import files

NAMES = ["cat", "dog, small", "owl"]


@pytest.fixture(scope="module")
def scored():
  generator = np.random.default_rng(0)
  scores = generator.random((50, 3)).astype(np.float32)
  return scores / scores.sum(axis=1, keepdims=True), generator.integers(3, size=50)


def test_confusion_and_per_class_results_agree_with_scikit_learn(scored):
  scores, labels = scored
  predictions = scores.argmax(axis=1)
  counts = results.confusion_matrix(predictions, labels, 3)
  np.testing.assert_array_equal(counts, peer_confusion(labels, predictions))
  rows = results.per_class_results(scores, labels, NAMES)
  precision, recall, _, support = precision_recall_fscore_support(labels, predictions)
  assert [row["images"] for row in rows] == support.tolist()
  np.testing.assert_allclose([row["recall"] for row in rows], recall)
  np.testing.assert_allclose([row["precision"] for row in rows], precision)


def test_multi_hot_labels_and_classes_without_images():
  scores = np.array([[0.9, 0.2, 0.1], [0.6, 0.7, 0.1]])
  hot = np.array([[True, False, False], [False, True, False]])
  first, second, third = results.per_class_results(scores, hot, NAMES)
  assert (first["recall"], first["precision"]) == (1, 0.5)
  assert (second["recall"], second["precision"]) == (1, 1)
  assert (third["recall"], third["precision"]) == (None, None)


def test_every_metric_can_be_recomputed_from_the_predictions_file(scored, tmp_path):
  scores, labels = scored
  path = tmp_path / "predictions.npz"
  results.save_predictions(path, scores, labels, [f"image {row}" for row in range(50)])
  loaded, loaded_labels, ids = results.load_predictions(path)
  for metric in ("accuracy", "mean_per_class", "map_11_point"):
    expected = recognition_score(scores, labels, metric)
    assert recognition_score(loaded, loaded_labels, metric) == expected
  assert ids[49] == "image 49"
  with np.load(path) as arrays:
    written = dict(arrays)
  assert written["format"] == files.FORMAT
  np.savez(path, **{**written, "format": files.FORMAT + 1})
  with pytest.raises(RunError, match="Upgrade"):
    results.load_predictions(path)
  path.write_bytes(path.read_bytes()[:100])
  with pytest.raises(RunError, match="can't be read"):
    results.load_predictions(path)


def test_the_tables_are_ordinary_csv(scored, tmp_path):
  scores, labels = scored
  results.save_per_class(tmp_path / "classes.csv", results.per_class_results(scores, labels, NAMES))
  counts = results.confusion_matrix(scores.argmax(axis=1), labels, 3)
  results.save_confusion(tmp_path / "confusion.csv", counts, NAMES)
  with (tmp_path / "classes.csv").open() as file:
    assert [row["class_name"] for row in csv.DictReader(file)] == NAMES
  with (tmp_path / "confusion.csv").open() as file:
    lines = list(csv.reader(file))
  assert lines[0] == ["true class", "0 cat", "1 dog, small", "2 owl"]
  assert [int(cell) for cell in lines[2][1:]] == counts[1].tolist()


def test_a_probe_is_loaded_back_and_scores_the_same(tmp_path):
  generator = np.random.default_rng(0)
  labels = np.arange(60) % 3
  features = (np.eye(3, 8)[labels] + generator.normal(size=(60, 8))).astype(np.float32)
  for protocol, normalize in (("strict", True), ("reference", False)):
    probe = linear_probe(features[:30], labels[:30], features, labels, protocol=protocol)
    save_probe(tmp_path / protocol, probe, normalize, multi_label=False)
    scores = load_probe_scores(tmp_path / protocol, features)
    np.testing.assert_allclose(scores, probe["scores"], atol=1e-5)
    with pytest.raises(RunError, match="does not take features"):
      load_probe_scores(tmp_path / protocol, features[:, :5])
  save_model(tmp_path / "other", {"weights": labels}, {"kind": "coop_context"})
  with pytest.raises(RunError, match="is not a linear_probe"):
    load_probe_scores(tmp_path / "other", features)
