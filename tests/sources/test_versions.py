"""What a source stores is named by the version of the code, so that an upgrade does not use old choices."""

import pytest

from genbench_jax.cells import ImageSetKey
from genbench_jax.config import Config, Retrieval, Selection
from genbench_jax.run import Run
from genbench_jax.sources import inversion, prompting, retrieval, selection
from genbench_jax.store.versions import VERSIONS

RETRIEVED = ImageSetKey("shapes", "retrieval", "", 0)
GENERATED = ImageSetKey("shapes", "generative", "category_enhancement+inversion_original", 0)
# Kind -> its place, or what is part of it.
PLACES = {
  "choices": lambda run: retrieval._choices_folder(run, RETRIEVED),
  "sentences": lambda run: prompting._written_path(run, GENERATED),
  "tokens": lambda run: inversion.inversion_folder(run, GENERATED),
  "selections": selection.made_from,
}


# What is chosen by features depends on the code that computes them, too.
CASES = [
  *((kind, "images") for kind in ("choices", "sentences", "tokens")), ("choices", "embed"), ("selections", "embed"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "stage"), CASES)
def test_another_version_of_the_code_has_another_place(tmp_path, monkeypatch, kind, stage):
  monkeypatch.setattr(prompting, "sentence_model_fingerprint", lambda run: "t5")
  config = Config(
    datasets=("shapes",), retrieval=Retrieval(pool="zoo/pool"), selection=Selection("clip")
  )
  before = PLACES[kind](Run(config, tmp_path))
  assert PLACES[kind](Run(config, tmp_path)) == before
  monkeypatch.setitem(VERSIONS, stage, 99)
  assert PLACES[kind](Run(config, tmp_path)) != before
