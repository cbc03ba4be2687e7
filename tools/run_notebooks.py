"""Run the notebooks of examples/ and store their outputs for the documentation.

  python tools/run_notebooks.py [NAME]

Figures are stored as PNG at screen resolution; standard error is dropped.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
  os.environ["PYTHONPATH"] = str(ROOT)
  wanted = sys.argv[1:] or [path.stem for path in (ROOT / "examples").glob("*.ipynb")]
  for path in [ROOT / "examples" / f"{name}.ipynb" for name in sorted(wanted)]:
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as place:
      resources = {"metadata": {"path": place}}
      NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
      cell.metadata = {}
      if cell.cell_type == "code":
        cell.execution_count = None
        cell.outputs = [kept for output in cell.outputs if (kept := _kept(output))]
    notebook.metadata = {
      "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
    }
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def _kept(output):
  if output.output_type == "stream":
    return None if output.name == "stderr" else output
  if "image/png" in output.get("data", {}):
    output.data = {"image/png": output.data["image/png"]}
    output.metadata = {}
    if output.output_type == "execute_result":
      output.execution_count = None
    return output
  return None


if __name__ == "__main__":
  main()
