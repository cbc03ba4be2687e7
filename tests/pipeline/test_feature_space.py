"""Metrics without text on the features of another encoder, beside those of the run's CLIP."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from genbench_jax.config import Config, Encoder, Generation, Scoring, make_config
from genbench_jax.errors import UsageError
from genbench_jax.export.features import features as export_features
from genbench_jax.models import checkpoints
from genbench_jax.pipeline.stages import run_stages
from genbench_jax.planning.costs import costs
from genbench_jax.run import Run
from genbench_jax.zoo.tiny import write_tiny_clip, write_tiny_dinov2, write_tiny_stable_diffusion

DISTANCES = {"fid", "vendi"}
MEASURED = (*DISTANCES, "zero_shot", "cler", "clip_score")
STAGES = ("images", "embed", "score", "report")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp("models")
  diffusion = write_tiny_stable_diffusion(folder / "diffusion")
  return Config(
    datasets=("digits",),
    sources=("generative", "original"),
    shots=(1,),
    generation=Generation(str(diffusion), steps=1, guidance_scale=1.0, batch_per_device=2),
    encoder=Encoder(str(write_tiny_clip(folder / "clip")), batch_per_device=8),
    scoring=Scoring(
      quantities=MEASURED,
      feature_checkpoint=str(write_tiny_dinov2(folder / "dinov2")),
      resamples=10,
    ),
  )


@pytest.fixture(scope="module")
def measured(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  run_stages(config, workdir, STAGES, "a test")
  lines = (workdir / "results.jsonl").read_text().splitlines()
  return workdir, [json.loads(line) for line in lines]


def test_rows_say_on_which_features_they_stand(config, measured):
  _, rows = measured
  clip, dinov2 = config.encoder.checkpoint, config.scoring.feature_checkpoint
  for source in ("generative", "original"):
    by_encoder = {
      encoder: {r["quantity"]: r for r in rows if (r["encoder"], r["source"]) == (encoder, source)}
      for encoder in (clip, dinov2)
    }
    assert by_encoder[clip].keys() == set(MEASURED)
    assert by_encoder[dinov2].keys() == DISTANCES
    for name in DISTANCES:
      assert by_encoder[clip][name]["value"] != by_encoder[dinov2][name]["value"]
    assert by_encoder[dinov2]["fid"]["n_external"] == 10
  assert {row["encoder"] for row in rows} == {clip, dinov2}


def test_the_page_sets_them_beside_the_others(measured):
  workdir, _ = measured
  page = (workdir / "report" / "index.html").read_text(encoding="utf-8")
  assert "FID (dinov2" in page
  head = (workdir / "report" / "tables" / "cells.csv").read_text().splitlines()[0].split(",")
  place = head.index("fid")
  assert head[place + 3].startswith("fid [") and head[place + 3].endswith("dinov2]")


def test_nothing_is_made_twice(config, measured, capsys):
  workdir, _ = measured
  run_stages(config, workdir, STAGES, "a test")
  said = capsys.readouterr().err
  assert all(f"{stage}: nothing to do" in said for stage in STAGES)


def test_features_made_for_the_clip_alone_are_taken_over(config, measured, capsys):
  workdir, _ = measured
  scoring = dataclasses.replace(config.scoring, feature_checkpoint="")
  run_stages(dataclasses.replace(config, scoring=scoring), workdir, STAGES[:2], "a test")
  assert "embed: nothing to do" in capsys.readouterr().err


def test_both_features_export(measured, tmp_path):
  workdir, _ = measured
  widths = set()
  for number, path in enumerate(sorted((workdir / "embeddings" / "digits").glob("original-*"))):
    export_features(path, tmp_path / f"{number}.npz", False)
    widths.add(np.load(tmp_path / f"{number}.npz")["features"].shape[1])
  assert widths == {16, 32}


def test_the_plan_counts_both(config):
  found = costs(config)
  alone = costs(dataclasses.replace(config, scoring=Scoring()))
  assert list(found.models) == ["diffusion", "encoder", "other features"]
  count = found.datasets[0].embedded
  assert found.flops(("embed",)) - alone.flops(("embed",)) == count * found.features.flops > 0
  assert found.datasets[0].disk - alone.datasets[0].disk == count * (4 * 32 + 13)


def test_what_cannot_be_is_refused(config):
  values = json.loads(config.as_json())
  values["generation"]["keep_images"] = "none"
  with pytest.raises(UsageError, match="embeds kept images"):
    make_config(values)
  values["generation"]["keep_images"] = "all"
  values["scoring"]["feature_checkpoint"] = values["encoder"]["checkpoint"]
  with pytest.raises(UsageError, match="the encoder itself"):
    make_config(values)


def test_fingerprints_ask_the_hub_for_the_weights(config, tmp_path, monkeypatch):
  """A hub id is downloaded whole before its name is made of what it holds."""
  asked = {}

  def snapshot(checkpoint, revision, allow_patterns):
    asked[checkpoint] = allow_patterns
    return config.encoder.checkpoint

  monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
  names = {"generation": "some/diffusion", "encoder": "some/clip"}
  run = Run(
    dataclasses.replace(
      config,
      generation=Generation(names["generation"]),
      encoder=Encoder(names["encoder"]),
      scoring=Scoring(feature_checkpoint="some/dinov2"),
    ),
    tmp_path,
  )
  found = run.diffusion_fingerprint, run.clip_fingerprint, run.other_space.fingerprint
  assert set(found) == {checkpoints.fingerprint(Path(config.encoder.checkpoint))}
  assert asked.keys() == {"some/diffusion", "some/clip", "some/dinov2"}
  for patterns in asked.values():
    assert any("safetensors" in pattern for pattern in patterns)
