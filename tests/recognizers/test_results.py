"""Per-class results, confusion and the files of predictions and probes."""

import csv

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix as peer_confusion, precision_recall_fscore_support

from genbench_jax.errors import RunError
from genbench_jax.metrics.accuracy import eleven_point_precision, recognition_score
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


def test_a_class_counts_as_predicted_from_a_half_on():
  scores, hot = np.array([[0.5, 0.49, 0.0]]), np.array([[True, True, False]])
  first, second, third = results.per_class_results(scores, hot, NAMES)
  assert (first["index"], first["images"], first["predicted"], first["recall"]) == (0, 1, 1, 1)
  assert (second["predicted"], second["recall"], second["precision"]) == (0, 0, None)
  assert (third["images"], third["class_name"]) == (0, "owl")


def test_scores_of_classes_are_recalls_or_average_precisions():
  scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
  labels = np.array([0, 1, 1])
  assert results.class_scores(scores, labels, "accuracy") == {0: 1, 1: 0.5}
  assert results.class_scores(scores, labels, "roc_auc") == {}
  hot = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0]], bool)
  found = results.class_scores(scores, hot, "map_11_point")
  assert found == {
    c: pytest.approx(eleven_point_precision(scores[:, c], hot[:, c])) for c in (0, 1)
  }


def test_confusions_have_rows_of_true_classes():
  found = results.confusion_matrix(np.array([1, 1, 0]), np.array([0, 0, 2]), 3)
  assert found.tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("labels", [np.array([1, 0]), np.eye(2, dtype=bool)])
def test_predictions_keep_their_labels_and_are_numbered_without_ids(tmp_path, labels):
  path = tmp_path / "p.npz"
  results.save_predictions(path, np.array([[0.25, 0.75], [1, 0]]), labels)
  scores, found, ids = results.load_predictions(path)
  assert scores.dtype == np.float32 and scores.tolist() == [[0.25, 0.75], [1, 0]]
  np.testing.assert_array_equal(found, labels)
  assert found.dtype == (bool if labels.ndim == 2 else np.int32) and ids == ["0", "1"]
  np.savez(path, scores=scores)
  with pytest.raises(RunError, match="can't be read"):
    results.load_predictions(path)


def test_a_probe_of_several_labels_scores_them_independently(tmp_path):
  probe = {"weights": np.eye(2, 3, dtype=np.float32), "bias": np.array([0.5, -1], np.float32), "lr": None, "weight_decay": 0.1}  # fmt: skip
  features = np.array([[3.0, 4.0, 0.0]], np.float32)
  for normalize, scale in ((False, 1), (True, 5)):
    for multi_label in (False, True):
      save_probe(tmp_path / "probe", probe, normalize, multi_label)
      logits = features[:, :2] / scale + probe["bias"]
      expected = 1 / (1 + np.exp(-logits)) if multi_label else np.exp(logits) / np.exp(logits).sum()
      np.testing.assert_allclose(
        load_probe_scores(tmp_path / "probe", features), expected, rtol=1e-5
      )
  save_model(tmp_path / "part", {"weights": probe["weights"]}, {"kind": "linear_probe"})
  with pytest.raises(RunError, match="does not take features"):
    load_probe_scores(tmp_path / "part", features)


def test_predictions_are_compressed(tmp_path):
  scores = np.zeros((500, 20), np.float32)
  results.save_predictions(tmp_path / "p.npz", scores, np.zeros(500, int), ["same"] * 500)
  assert (tmp_path / "p.npz").stat().st_size < scores.nbytes / 10
