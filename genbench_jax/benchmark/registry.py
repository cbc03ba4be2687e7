"""Datasets by name: the 22 published ones, the demo worlds and the user's own."""

from genbench_jax.benchmark.own import is_own, own_spec
from genbench_jax.benchmark.published import known_datasets, published_spec
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.benchmark.worlds import world_specs
from genbench_jax.errors import UsageError, unknown_name

# Appended to the error for an unknown dataset.
OTHERS = "Or one of your own: a folder with test/CLASS/*.jpg, a YAML file that describes one, or tfds:NAME."


def dataset_spec(name: str) -> DatasetSpec:
  """Return the spec of a dataset.

  Args:
    name: one of `known_datasets()`, the reference's name for it (`cifar-10`), a demo world (`digits`),
      `imagenet2012_disambiguated`, `tfds:NAME` for any other TFDS dataset, the path of a folder with a tree
      `split/class/image` (`folder:PATH` if it has the name of another dataset), or the path of a YAML file that describes one
      of these (see `own.py`).

  Raises:
    UsageError: there is no such dataset.
  """
  if is_own(name):
    return own_spec(name)
  worlds = world_specs()
  if spec := published_spec(name) or worlds.get(name):
    return spec
  raise UsageError(f"{unknown_name('dataset', name, (*known_datasets(), *worlds))} {OTHERS}")
