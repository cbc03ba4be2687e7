"""Few-shot choices of real images."""

from genbench_jax.benchmark.few_shot import few_shot
from genbench_jax.benchmark.reader import open_split
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.sources.original import copy_shards
from genbench_jax.store.image_set import ImageSetLayout


def test_images_are_copied_with_their_origin():
  split = open_split(dataset_spec("digits"), "train")
  chosen = few_shot(split.labels(), 2, 0)
  layout = ImageSetLayout("digits_original", tuple("0123456789"), len(chosen), 6, {})
  records = [r for _, shard in copy_shards(split, layout, range(4), chosen) for r in shard]
  assert [record.origin for record in records] == [f"train/{i:07d}" for i in chosen]
  assert [record.label for record in records[:10]] == list(range(10))
  assert records[0].image.startswith(b"\x89PNG")
