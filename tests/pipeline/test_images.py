"""Image sets and features: embedded later from disk, or on the devices during generation."""

import dataclasses
import functools

import numpy as np
import pytest

from genbench_jax.cells import image_sets
from genbench_jax.config import Config, Encoder, Generation
from genbench_jax.errors import UsageError
from genbench_jax.pipeline.artifacts import image_folder, image_set_path, open_image_set
from genbench_jax.pipeline.embed import embed
from genbench_jax.pipeline.images import make_shards
from genbench_jax.run import Run
from genbench_jax.store import embedding_set
from genbench_jax.store.embedding_parts import EmbeddingParts
from genbench_jax.zoo.tiny import SHALLOW_UNET, write_tiny_clip, write_tiny_stable_diffusion


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  """30 images in four shards, with tiny models."""
  folder = tmp_path_factory.mktemp("models")
  return Config(
    datasets=("digits",),
    sources=("generative",),
    shots=(1, 3),
    generation=Generation(
      str(write_tiny_stable_diffusion(folder / "diffusion", unet=SHALLOW_UNET)),
      steps=2,
      guidance_scale=1.0,
      batch_per_device=1,
      shard_size=8,
    ),
    encoder=Encoder(str(write_tiny_clip(folder / "clip")), batch_per_device=4),
  )


def run_of(config, workdir, keep_images):
  generation = dataclasses.replace(config.generation, keep_images=keep_images)
  run = Run(dataclasses.replace(config, generation=generation), workdir)
  (key,) = image_sets(run.config)
  return run, key


@pytest.fixture(scope="module")
def kept(config, tmp_path_factory):
  """The image set with all its images, and its features embedded from disk."""
  run, key = run_of(config, tmp_path_factory.mktemp("all"), "all")
  assert make_shards(run, key, 0) == 30
  embed(run)
  return open_image_set(run, key), embedding_set.load(image_set_path(run, key))


@pytest.fixture(scope="module")
def streamed(config, tmp_path_factory):
  """A function from `keep_images` to the finished run whose images were embedded on the devices."""

  @functools.cache
  def made(keep):
    run, key = run_of(config, tmp_path_factory.mktemp("streamed"), keep)
    assert make_shards(run, key, 0) == 30
    return run, key

  return made


def centered_cosines(features, others):
  """Return the cosine of each pair of rows, minus the mean that random weights add to all rows."""
  features, others = (x - others.mean(axis=0) for x in (features, others))
  return (
    (features * others).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(others, axis=1)
  )


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["none", "2"])
def test_embedding_on_the_devices_equals_embedding_from_disk(kept, streamed, keep):
  images, stored = kept
  run, key = streamed(keep)
  made = embedding_set.load(image_set_path(run, key))
  for name in ("labels", "ids", "valid"):
    np.testing.assert_array_equal(getattr(made, name), getattr(stored, name))
  assert centered_cosines(made.features, stored.features).min() > 0.999
  if keep == "none":
    assert not image_folder(run, key).exists()
  else:
    assert list(open_image_set(run, key)) == [images[index] for index in range(20)]
  # Nothing remains to do, neither here nor in the stage `embed`.
  assert make_shards(run, key, 0) == 0
  before = image_set_path(run, key).read_bytes()
  embed(run)
  assert image_set_path(run, key).read_bytes() == before
  cost = run.meter(key).cost()
  assert (cost.images, cost.chips) == (30, 8)
  assert cost.flops_per_image > 0


@pytest.mark.slow
def test_an_interrupted_set_resumes(config, streamed, tmp_path, monkeypatch):
  whole, _ = streamed("2")
  run, key = run_of(config, tmp_path, "2")
  write, written = EmbeddingParts.write, []

  def fail_at_the_third(self, shard, embeddings):
    if len(written) == 2:
      raise KeyboardInterrupt
    write(self, shard, embeddings)
    written.append(shard)

  monkeypatch.setattr(EmbeddingParts, "write", fail_at_the_third)
  with pytest.raises(KeyboardInterrupt):
    make_shards(run, key, 0)
  assert written == [0, 1]
  assert not image_set_path(run, key).exists()
  monkeypatch.undo()
  run, key = run_of(config, tmp_path, "2")
  assert make_shards(run, key, 0) == 30 - 16
  for path in (image_set_path(run, key), *image_folder(run, key).glob("*.array_record*")):
    undisturbed = whole.workdir / path.relative_to(tmp_path)
    assert path.read_bytes() == undisturbed.read_bytes()


@pytest.mark.parametrize("keep", ["some", "0", "-1", ""])
def test_invalid_values_of_keep_images_are_rejected(keep):
  from genbench_jax.config import default_config, make_config

  config = default_config()
  config.generation.keep_images = keep
  with pytest.raises(UsageError, match="keep_images"):
    make_config(config)


def test_training_images_must_be_kept():
  from genbench_jax.config import default_config, make_config

  config = default_config()
  config.recognition.recognizers = ("vpt",)
  config.shots = (1, 4)
  for kept, refused in (("none", True), ("2", True), ("4", False), ("all", False)):
    config.generation.keep_images = kept
    if refused:
      with pytest.raises(UsageError, match=r"`vpt` trains on images.*set it to 'all' or '4'"):
        make_config(config)
    else:
      make_config(config)
