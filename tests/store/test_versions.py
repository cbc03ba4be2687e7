"""Versions of the code of each stage."""

from genbench_jax.config import STAGES
from genbench_jax.store.versions import VERSIONS


def test_every_stage_has_a_version():
  """A stage whose code gives other results gets a higher number, here as well: all its names change."""
  assert tuple(VERSIONS) == STAGES
  assert VERSIONS == {"images": 3, "embed": 2, "score": 8, "recognize": 8, "report": 2}
