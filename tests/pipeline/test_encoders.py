"""Several encoders: each measures what the main one does, as far as it has text."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import genbench_jax as gb
from genbench_jax.config import Encoder, Generation, default_config, make_config
from genbench_jax.diffusion.program import embed
from genbench_jax.embedding.device_preprocess import resize_weights
from genbench_jax.embedding.embedder import image_features, text_prototypes, unit_norm
from genbench_jax.errors import UsageError
from genbench_jax.export.features import features as export_features
from genbench_jax.models import checkpoints
from genbench_jax.pipeline.rows import dataset_features
from genbench_jax.pipeline.stages import run_stages
from genbench_jax.planning.costs import costs
from genbench_jax.recognizers import fine_tune, lora
from genbench_jax.recognizers.settings import FineTuneSettings, LoraSettings
from genbench_jax.run import Run, pins
from genbench_jax.zoo.tiny import write_tiny_clip, write_tiny_dinov2, write_tiny_siglip

STAGES = ("images", "embed", "score", "recognize", "report")
WITH_TEXT = ("zero_shot", "cler", "clip_score")
SCORED = (*WITH_TEXT, "fid")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp("models")
  config = default_config()
  config.datasets = ("shapes",)
  config.sources = ("original",)
  config.shots = (1,)
  config.encoder.checkpoint = str(write_tiny_siglip(folder / "siglip"))
  config.encoders = {
    "clip": {"checkpoint": str(write_tiny_clip(folder / "clip"))},
    "dinov2": {"checkpoint": str(write_tiny_dinov2(folder / "dinov2")), "batch_per_device": 8},
  }
  config.scoring.quantities = SCORED
  config.scoring.resamples = 4
  return make_config(config.to_dict())


@pytest.fixture(scope="module")
def measured(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  run_stages(config, workdir, STAGES, "a test")
  lines = (workdir / "results.jsonl").read_text().splitlines()
  return workdir, [json.loads(line) for line in lines]


def test_rows_name_their_encoder(config, measured):
  _, rows = measured
  found = {
    name: {row["quantity"]: row["value"] for row in rows if row["encoder"] == name}
    for name in (config.encoder.checkpoint, "clip", "dinov2")
  }
  assert {row["encoder"] for row in rows} == set(found)
  siglip, clip, dinov2 = found.values()
  assert siglip.keys() == clip.keys() == {*SCORED, "linear_probe"}
  assert dinov2.keys() == {"fid", "linear_probe"}  # it has no text tower
  assert len({values["fid"] for values in found.values()}) == 3


def test_zero_shot_is_the_largest_cosine_in_a_sigmoid_model_too(config, measured):
  workdir, rows = measured
  run = Run(config, workdir)
  data = dataset_features(run, "shapes", run.space)
  text = text_prototypes(run.encoder, data.spec.names, data.spec.templates)
  np.testing.assert_allclose(data.text, text, atol=1e-6)
  assert data.logit_scale == run.encoder.logit_scale
  wanted = ((data.test.features @ text.T).argmax(1) == data.test.labels).mean()
  (found,) = (
    row["value"]
    for row in rows
    if (row["quantity"], row["encoder"]) == ("zero_shot", config.encoder.checkpoint)
  )
  assert found == pytest.approx(wanted)


def test_images_are_embedded_where_they_are_generated(config, tmp_path):
  """Both sides to the square, as SigLIP takes images: an oblong one is squashed on the device, too."""
  encoder = Run(config, tmp_path).encoder
  images = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), np.uint8)
  images = images.repeat(4, axis=1).repeat(4, axis=2)
  weights = resize_weights(32, 48, encoder.input, "crop")
  found = jax.jit(embed, static_argnums=0)(encoder, encoder.params, weights, images)
  wanted = gb.embed_images(images, config.encoder.checkpoint)
  # The axes are resized in another order than PIL's, each pass rounded to 8 bits.
  np.testing.assert_allclose(found, wanted, atol=0.03 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["lora", "fine_tune"])
def test_recognizers_that_train_towers_begin_at_zero_shot(config, tmp_path, name):
  """Training of a SigLIP starts from its zero-shot classifier, whose logits are scaled cosines."""
  encoder = Run(config, tmp_path).encoder
  names, template = ("square", "circle"), "a photo of a {}."
  text = text_prototypes(encoder, names, (template,))
  if name == "lora":
    method = lora.method(LoraSettings(), encoder, names, template, 1, 2, False)
  else:
    method = fine_tune.method(FineTuneSettings(), encoder, text, 2, False)
  model, pixels = method.start(0), np.random.default_rng(0).normal(size=(3, 16, 16, 3))
  pixels = pixels.astype(np.float32)
  logits = jax.jit(method.problem.logits)(*model, pixels, None)[0]
  features = unit_norm(image_features(encoder, pixels))
  np.testing.assert_allclose(logits, encoder.logit_scale * features @ text.T, rtol=1e-4, atol=1e-3)


def test_a_second_run_makes_nothing(config, measured, capsys):
  workdir, _ = measured
  run_stages(config, workdir, STAGES, "a test")
  said = capsys.readouterr().err
  assert all(f"{stage}: nothing to do" in said for stage in STAGES)


def test_the_main_encoder_can_be_used_alone(config, measured, capsys):
  workdir, _ = measured
  run_stages(dataclasses.replace(config, encoders={}), workdir, STAGES[:2], "a test")
  assert "embed: nothing to do" in capsys.readouterr().err


def test_the_page_sets_the_others_beside_the_main_one(measured):
  workdir, _ = measured
  assert "FID (dinov2" in (workdir / "report" / "index.html").read_text(encoding="utf-8")
  head = (workdir / "report" / "tables" / "cells.csv").read_text().splitlines()[0].split(",")
  assert {"fid", "fid [dinov2]"} <= set(
    head
  )  # the CLIP has recognition rows, so it has its own table


def test_features_of_each_export(measured, tmp_path):
  workdir, _ = measured
  widths = set()
  for number, path in enumerate(sorted((workdir / "embeddings" / "shapes").glob("original-*"))):
    export_features(path, tmp_path / f"{number}.npz", False)
    widths.add((number, np.load(tmp_path / f"{number}.npz")["features"].shape[1]))
  assert sorted(width for _, width in widths) == [16, 32, 32]


def test_every_encoder_is_pinned_and_named(config, tmp_path):
  assert len(list(pins(config))) == 3
  run = Run(config, tmp_path)
  assert [space.name for space in run.other_spaces] == ["clip", "dinov2"]


@pytest.mark.parametrize(
  "change,message",
  [
    ({"encoders": {"x": {"checkpoint": "zoo/clip"}}}, r"the same as config\.encoder"),
    ({"generation": {"keep_images": "none"}, "encoders": {"x": {"checkpoint": "y"}}}, "embeds kept"),
  ],
)  # fmt: skip
def test_what_cannot_be_is_refused(change, message):
  with pytest.raises(UsageError, match=message):
    make_config(change)


def test_what_trains_a_clips_towers_is_refused_before_anything_is_made(config, tmp_path):
  recognition = dataclasses.replace(config.recognition, recognizers=("linear_probe", "coop"))
  with pytest.raises(UsageError, match=r"`coop` puts tokens into the towers of a CLIP, .*'siglip'"):
    run_stages(dataclasses.replace(config, recognition=recognition), tmp_path, STAGES, "a test")
  assert not list(tmp_path.rglob("*.safetensors"))


def test_an_encoder_without_texts_cannot_be_the_main_one(config, tmp_path):
  from genbench_jax.errors import RunError

  main = Encoder(config.encoders["dinov2"].checkpoint)
  with pytest.raises(RunError, match="embeds images only: texts need a CLIP or a SigLIP"):
    _ = Run(dataclasses.replace(config, encoder=main), tmp_path).encoder


def test_the_plan_counts_every_encoder(config):
  found = costs(config)
  assert list(found.models) == ["encoder", "encoder clip", "encoder dinov2"]
  each = [found.encoder, *found.others.values()]
  count = found.datasets[0].embedded
  assert found.flops(("embed",)) == count * sum(one.flops for one in each)
  assert [one.width for one in each] == [32, 16, 32]
  alone = costs(dataclasses.replace(config, encoders={}))
  assert found.datasets[0].disk - alone.datasets[0].disk == count * (4 * (16 + 32) + 2 * 13)


def test_fingerprints_ask_the_hub_for_the_weights(config, tmp_path, monkeypatch):
  """A hub id is downloaded whole before its name is made of what it holds."""
  asked = {}

  def snapshot(checkpoint, revision, allow_patterns):
    asked[checkpoint] = allow_patterns
    return config.encoder.checkpoint

  monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
  changed = dataclasses.replace(
    config,
    generation=Generation("some/diffusion"),
    encoder=Encoder("some/siglip"),
    encoders={"other": Encoder("some/dinov2")},
  )
  run = Run(changed, tmp_path)
  found = run.diffusion_fingerprint, run.encoder_fingerprint, run.other_spaces[0].fingerprint
  assert set(found) == {checkpoints.fingerprint(Path(config.encoder.checkpoint))}
  assert asked.keys() == {"some/diffusion", "some/siglip", "some/dinov2"}
  for patterns in asked.values():
    assert any("safetensors" in pattern for pattern in patterns)
