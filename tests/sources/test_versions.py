"""What a source stores is named by the version of the code, so that an upgrade does not use old choices."""

import pytest

from genbench_jax.cells import ImageSetKey
from genbench_jax.config import Config, Retrieval
from genbench_jax.run import Run
from genbench_jax.sources import inversion, prompting, retrieval
from genbench_jax.store.versions import VERSIONS

RETRIEVED = ImageSetKey("shapes", "retrieval", "", 0)
GENERATED = ImageSetKey("shapes", "generative", "category_enhancement+inversion_original", 0)
PLACES = {
  "choices": lambda run: retrieval._choices_folder(run, RETRIEVED),
  "sentences": lambda run: prompting._written_path(run, GENERATED),
  "tokens": lambda run: inversion.inversion_folder(run, GENERATED),
}


@pytest.mark.parametrize("kind", PLACES)
def test_another_version_of_the_code_has_another_place(tmp_path, monkeypatch, kind):
  monkeypatch.setattr(prompting, "sentence_model_fingerprint", lambda run: "t5")
  config = Config(datasets=("shapes",), retrieval=Retrieval(pool="zoo/pool"))
  before = PLACES[kind](Run(config, tmp_path))
  assert PLACES[kind](Run(config, tmp_path)) == before
  monkeypatch.setitem(VERSIONS, "images", 99)
  assert PLACES[kind](Run(config, tmp_path)) != before
