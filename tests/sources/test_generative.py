"""Each index determines its image's class, random key and batch."""

import numpy as np
import pytest

from genbench_jax.diffusion.program import GeneratedBatch
from genbench_jax.errors import ModelError
from genbench_jax.prompts.strategies import Prompt
from genbench_jax.runtime.throughput import Meter
from genbench_jax.sources.batches import ImageOrder, made_shards
from genbench_jax.sources.generative import generate_shards
from genbench_jax.sources.index_space import ClassShot, class_shot, image_keys
from genbench_jax.store.image_set import ImageSetLayout


class RecordingSampler:
  """A fake diffusion sampler whose images consist of their key's bytes."""

  def __init__(self, mesh, batch_per_device, embeds=False):
    self.embeds = embeds
    self.mesh = mesh
    self.batch_size = mesh.size * batch_per_device
    self.batches = []
    self.broken = ()

  def prepare(self, prompts, negative_prompts, keys):
    self.batches.append(list(prompts))
    return keys, prompts

  def launch(self, inputs):
    keys, prompts = inputs
    pixels = np.asarray(keys, np.uint32).view(np.uint8).reshape(-1, 1, 8)
    images = np.zeros((self.batch_size, 1, 8, 3), np.uint8)
    images[: len(pixels)] = pixels[..., None]
    features = images[:, 0, :, 0].astype(np.float32) if self.embeds else None
    latents = np.zeros((self.batch_size, 1, 1, 1), np.float32)
    are_finite = np.ones(self.batch_size, bool)
    are_finite[: len(prompts)] = [prompt not in self.broken for prompt in prompts]
    return GeneratedBatch(images, latents, are_finite, features)


def _layout(shard_size):
  return ImageSetLayout("x_generative", ("a", "b", "c"), 12, shard_size, {})


PROMPTS = [[Prompt(f"{name} {shot}", "no") for shot in range(4)] for name in "abc"]
ORDER = ImageOrder(PROMPTS, 7, "x", "s")


def _all_records(mesh, batch_per_device, shard_size, shards=None):
  layout = _layout(shard_size)
  sampler = RecordingSampler(mesh, batch_per_device)
  shards = range(layout.num_shards) if shards is None else shards
  found = dict(generate_shards(sampler, layout, list(shards), ORDER))
  return found, sampler


def test_nan_or_infinity_is_reported_and_gives_no_image(one_device_mesh):
  sampler = RecordingSampler(one_device_mesh, 12)
  sampler.broken = ("b 2",)
  with pytest.raises(ModelError, match=r"for image 7 .class 1, prompt 'b 2'"):
    list(generate_shards(sampler, _layout(12), [0], ORDER))


def test_images_are_ordered_by_shot_then_class():
  assert [class_shot(index, 3) for index in (0, 2, 3, 11)] == [(0, 0), (2, 0), (0, 1), (2, 3)]


def test_keys_depend_on_every_part_of_the_name():
  base = image_keys(0, "d", "s", [ClassShot(0, 0)])
  others = [
    image_keys(1, "d", "s", [ClassShot(0, 0)]),
    image_keys(0, "e", "s", [ClassShot(0, 0)]),
    image_keys(0, "d", "t", [ClassShot(0, 0)]),
    image_keys(0, "d", "s", [ClassShot(1, 0)]),
    image_keys(0, "d", "s", [ClassShot(0, 1)]),
  ]
  assert len({key.tobytes() for key in [base, *others]}) == 6


def test_a_key_does_not_depend_on_the_rest_of_the_batch():
  many = image_keys(
    3, "d", "s", [ClassShot(label, shot) for shot in range(4) for label in range(3)]
  )
  np.testing.assert_array_equal(many[7:8], image_keys(3, "d", "s", [ClassShot(1, 2)]))


@pytest.mark.parametrize(("batch", "shard_size"), [(2, 5), (3, 12), (8, 4)])
def test_records_do_not_depend_on_batch_shard_and_mesh(mesh, one_device_mesh, batch, shard_size):
  expected, _ = _all_records(one_device_mesh, 1, 12)
  found, _ = _all_records(mesh, batch, shard_size)
  assert [record for records in found.values() for record in records] == expected[0]
  assert [record.index for record in expected[0]] == list(range(12))
  assert expected[0][4].prompt == "b 1"
  assert expected[0][4].seed == 7


def test_batches_do_not_depend_on_the_missing_shards(one_device_mesh):
  _, everything = _all_records(one_device_mesh, 4, 5)
  found, rest = _all_records(one_device_mesh, 4, 5, shards=[2])
  assert list(found) == [2]
  assert rest.batches == everything.batches[-1:]


@pytest.mark.parametrize("kept", [0, 4, 12])
def test_features_cover_all_images_and_records_the_kept_ones(mesh, one_device_mesh, kept):
  expected, _ = _all_records(one_device_mesh, 1, 12)
  layout = _layout(5)
  sampler = RecordingSampler(mesh, 2, embeds=True)
  made = list(made_shards(sampler, layout, range(3), ORDER, kept, Meter()))
  assert [record for shard in made for record in shard.records] == expected[0][:kept]
  features = np.concatenate([shard.features for shard in made])
  wheres = [class_shot(index, 3) for index in range(12)]
  keys = image_keys(7, "x", "s", wheres).view(np.uint8).reshape(12, 8)
  np.testing.assert_array_equal(features, keys)
