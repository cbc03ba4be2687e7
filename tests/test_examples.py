"""The notebooks run, each in its own kernel."""

from pathlib import Path

import pytest

from genbench_jax.runtime.jax_start import CACHE

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
  nbformat = pytest.importorskip("nbformat")
  nbclient = pytest.importorskip("nbclient")
  # One device, as for a reader: the kernel inherits this process's environment.
  monkeypatch.setenv("XLA_FLAGS", "")
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  monkeypatch.setenv("MPLBACKEND", "agg")
  # Reuse programs that other tests have compiled.
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(CACHE.expanduser()))
  notebook = nbformat.read(path, as_version=4)
  # `tools/run_notebooks.py` keeps the outputs for the documentation.
  assert any(cell.get("outputs") for cell in notebook.cells)
  resources = {"metadata": {"path": str(tmp_path)}}
  nbclient.NotebookClient(
    notebook, timeout=600, kernel_name="python3", resources=resources
  ).execute()
