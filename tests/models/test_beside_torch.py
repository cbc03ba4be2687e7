"""Neither torch nor a broken torchvision is imported if they are installed."""

import os
import subprocess
import sys

import pytest

CODE = """
import importlib.metadata, sys
import numpy as np
import genbench_jax as gb
assert importlib.metadata.version("torch") == "2.9.0"
print(gb.embed_texts("a photo of a heart", "zoo/clip").shape)
print(gb.embed_images(np.zeros((1, 40, 40, 3), np.uint8), "zoo/clip").shape)
print(gb.generate(["a heart"], "zoo/diffusion", steps=1).shape)
print(sorted({"torch", "torchvision", "tensorflow"} & set(sys.modules)))
"""
# Errors that the real packages raise at import if their builds are incompatible.
FAULTS = {
  "torch": "raise RuntimeError('torch was imported')\n",
  "torchvision": "raise RuntimeError('operator torchvision::nms does not exist')\n",
}


@pytest.mark.slow
def test_embedding_and_generation_do_not_import_torch(tmp_path):
  for name, version in (("torch", "2.9.0"), ("torchvision", "0.24.0")):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(FAULTS[name])
    about = tmp_path / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
  paths = os.pathsep.join([str(tmp_path), *sys.path])
  done = subprocess.run(
    [sys.executable, "-W", "error::UserWarning", "-c", CODE],
    capture_output=True,
    text=True,
    env=os.environ | {"PYTHONPATH": paths, "XLA_FLAGS": ""},
  )
  assert done.stdout.split("\n") == ["(1, 64)", "(1, 64)", "(1, 32, 32, 3)", "[]", ""], done.stderr
