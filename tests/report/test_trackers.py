"""Output for TensorBoard and Weights & Biases."""

import json
import sys
import types

import pytest

from genbench_jax.config import Config
from genbench_jax.errors import UsageError
from genbench_jax.report.trackers import tracking
from genbench_jax.runtime import progress
from genbench_jax.store import files

KEY = {"dataset": "digits", "seed": 0, "protocol": "strict", "quantity": "cler"}
ROWS = [
  KEY | {"source": "generative", "strategy": "simple_template", "shots": 1, "value": 0.5},
  KEY | {"source": "generative", "strategy": "simple_template", "shots": 4, "value": 0.75},
  KEY | {"source": "original", "strategy": "", "shots": 4, "value": 1.0},
]


SETTINGS = json.loads(Config().as_json())


def scalars(folder):
  """Return (tag, step, value) of the event files in a folder, read without TensorFlow."""
  from tensorboardX.proto.event_pb2 import Event

  found = []
  for path in sorted(folder.glob("events.out.tfevents.*")):
    data, at = path.read_bytes(), 0
    while at < len(data):
      size = int.from_bytes(data[at : at + 8], "little")
      event = Event.FromString(data[at + 12 : at + 12 + size])
      found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
      at += 16 + size
  return found


def test_tensorboard_has_rows_over_shots_and_rates_over_images(tmp_path):
  pytest.importorskip("tensorboardX")
  for _ in range(2):
    with (
      tracking(("tensorboard",), SETTINGS, tmp_path),
      progress.Progress("images digits", 8, "images") as bar,
    ):
      bar.advance(8)
      files.write_json_lines(tmp_path / "results.jsonl", ROWS)
  board = tmp_path / "tensorboard"
  assert scalars(board / "generative-simple_template-seed0-strict") == [
    ("cler/digits", 1, 0.5),
    ("cler/digits", 4, 0.75),
  ]
  assert scalars(board / "original-seed0-strict") == [("cler/digits", 4, 1.0)]
  rates = scalars(board / "progress")
  assert {(tag, step) for tag, step, _ in rates} == {("images_a_second/images_digits", 8)}


def test_weights_and_biases_resumes_its_run(tmp_path, monkeypatch):
  calls = []

  class Run:
    def log(self, values):
      calls.append(values)

    def finish(self):
      calls.append("finished")

  def init(**settings):
    calls.append(settings)
    return Run()

  fake = types.ModuleType("wandb")
  fake.init, fake.Table = init, lambda columns, data: (columns, data)
  fake.__spec__ = types.SimpleNamespace()
  monkeypatch.setitem(sys.modules, "wandb", fake)
  for _ in range(2):
    with tracking(("wandb",), SETTINGS, tmp_path):
      files.write_json_lines(tmp_path / "results.jsonl", ROWS)
  first, rows, _, second, *_ = calls
  assert first["id"] == second["id"]
  assert first["config"]["datasets"] == ["digits"]
  assert rows["rows"][1][1][rows["rows"][0].index("value")] == 0.75
  assert calls[-1] == "finished"


def test_weights_and_biases_stores_rows_offline(tmp_path, monkeypatch):
  pytest.importorskip("wandb")
  monkeypatch.setenv("WANDB_MODE", "offline")
  monkeypatch.setenv("WANDB_SILENT", "true")
  with tracking(("wandb",), SETTINGS, tmp_path):
    files.write_json_lines(tmp_path / "results.jsonl", ROWS)
  (table,) = (tmp_path / "wandb").glob("offline-run-*/files/media/table/rows_*.table.json")
  rows = files.read_json(table)
  values = [row[rows["columns"].index("value")] for row in rows["data"]]
  assert values == [0.5, 0.75, 1.0]


def test_a_tracker_that_is_not_installed_is_a_user_error(tmp_path, monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
  with (
    pytest.raises(UsageError, match="pip install tensorboardX"),
    tracking(("tensorboard",), SETTINGS, tmp_path),
  ):
    pass
