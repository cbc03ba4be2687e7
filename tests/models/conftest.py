"""Golden files and published tensor lists for the tests of networks."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="session")
def load_golden():
  """Return a function that reads a golden file's arrays by name."""

  def load(name):
    with np.load(DATA / f"{name}.npz") as file:
      return {key: file[key] for key in file.files}

  return load


@pytest.fixture(scope="session")
def published():
  """Configurations, tensor names and shapes of published checkpoints."""
  lists = [DATA / "state_dict_keys.json.gz", DATA / "encoder_keys.json.gz"]
  found = {}
  for path in lists:
    found |= json.loads(gzip.decompress(path.read_bytes()))
  return found


@pytest.fixture(scope="session")
def expected_shapes():
  """Return shapes by name, without constants that older files contain."""
  return lambda shapes: {
    name: tuple(shape) for name, shape in shapes.items() if "position_ids" not in name
  }
