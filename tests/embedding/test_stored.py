"""Features that are not finite are rejected, and the first rows are named."""

import numpy as np
import pytest

from genbench_jax.embedding.stored import refuse_non_finite
from genbench_jax.errors import ModelError
from genbench_jax.store.embedding_set import EmbeddingSet


@pytest.mark.parametrize(
  ("count", "named"), [(1, "(10)"), (5, "(10, 11, 12, 13, 14)"), (6, "(10, 11, 12, 13, 14, ...)")]
)
def test_up_to_five_rows_are_named(count, named):
  features = np.ones((8, 3), np.float32)
  labels, ids = np.zeros(8, np.int32), np.arange(10, 18)
  embeddings = EmbeddingSet(features, labels, ids, np.ones(8, np.uint8))
  refuse_non_finite(embeddings, "digits")
  features[:count, 1] = np.nan
  features[0] = [1, 2, -np.inf]
  with pytest.raises(ModelError) as caught:
    refuse_non_finite(embeddings, "digits")
  assert f"for {count} of 8 rows {named}." in str(caught.value)
