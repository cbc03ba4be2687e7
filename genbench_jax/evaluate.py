"""Scores a folder of images by class, from any generator, as training data for a dataset.

  python -m genbench_jax.evaluate my_images/ --dataset digits
  python -m genbench_jax.evaluate my_images/ --dataset cifar10 --workdir out --with-originals

The folder holds a folder for each class, called by class name, label or index; or images and `labels.csv` (file,label).
The table goes to standard output. With a work folder the features, the rows and the page stay there.
"""

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.user_images import open_user_images
from genbench_jax.config import STAGES, Config, check_setting, default_config, make_config
from genbench_jax.errors import RunError, UsageError
from genbench_jax.progress import say
from genbench_jax.store import files

ENCODER = "openai/clip-vit-base-patch32"
SHIPPED_ENCODER = "zoo/clip"


def evaluate_folder(
  folder: str | Path,
  dataset: str,
  workdir: str | Path | None = None,
  *,
  shots: Sequence[int] = (),
  seeds: Sequence[int] = (0,),
  encoder: str = "",
  with_originals: bool = False,
  settings: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
  """All metrics and the linear probe of a folder of images by class.

  Args:
    folder: holds a folder for each class, called by class name, label or index, or images and `labels.csv`.
    dataset: whose classes they are, and whose test images judge them.
    workdir: where features, rows and the page stay; the same call goes on from there. By default nothing stays.
    shots: images a class, each measured; by default 1, 4, 16, ... and the size of the largest class.
    seeds: of the choice among the images of a class, each measured.
    encoder: CLIP checkpoint, folder or hub id; by default CLIP ViT-B/32, for the demo worlds the shipped one.
    with_originals: whether the dataset's own training images are measured at the same shots.
    settings: any other setting of the config by its path, such as `{"scoring.resamples": 200}`.

  Returns:
    The rows, one a measured quantity, with the keys of `results.jsonl`.

  Raises:
    UsageError: there is no such folder or dataset, or the classes of the images can't be told.
  """
  spec = dataset_spec(dataset)
  with tempfile.TemporaryDirectory(prefix="genbench_jax_") as temporary:
    place = Path(temporary if workdir is None else workdir).expanduser()
    found = open_user_images(Path(folder).expanduser(), spec, place / "folders")
    largest = int(np.bincount(found.labels()).max())
    config = default_config()
    config.datasets = (spec.name,)
    config.sources = ("folder", "original") if with_originals else ("folder",)
    config.folder.path = str(folder)
    config.shots = tuple(shots) or shots_up_to(largest)
    config.seeds = tuple(seeds)
    config.encoder.checkpoint = encoder or (SHIPPED_ENCODER if spec.group == "demo" else ENCODER)
    # As in configs/demo.py: with language the probe shows little of the images of these small worlds.
    config.recognition.language_init = spec.group != "demo"
    config.report.title = f"How good are the images of {found.root.name} as training data?"
    for path in settings or {}:
      check_setting(path)
    config.update_from_flattened_dict(dict(settings or {}))
    return _rows_of(make_config(config), place, STAGES if workdir else STAGES[:-1])


def shots_up_to(largest: int) -> tuple[int, ...]:
  """1, 4, 16, ... below the size of the largest class, and that size."""
  powers = [4**power for power in range(16) if 4**power < largest]
  return (*powers, largest)


def _rows_of(config: Config, workdir: Path, stages: Sequence[str]) -> list[dict[str, Any]]:
  from genbench_jax.stages import run_stages
  from genbench_jax.store.workdir import locked

  with locked(workdir):
    run_stages(config, workdir, stages, shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
  return files.read_json_lines(workdir / "results.jsonl")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """The rows as a table in text: a line a quantity, a column a number of shots, means over seeds."""
  from genbench_jax.report.quantities import QUANTITIES, quantity_of, shown

  lines = []
  views = dict.fromkeys((row["source"], row["protocol"]) for row in rows)
  for source, protocol in views:
    some = [row for row in rows if (row["source"], row["protocol"]) == (source, protocol)]
    columns = sorted({row["shots"] for row in some})
    lines.append([f"{source}, {protocol}", *(f"{shots} a class" for shots in columns)])
    for name in sorted({row["quantity"] for row in some}, key=list(QUANTITIES).index):
      quantity = quantity_of(name)
      cells = {
        s: [r["value"] for r in some if (r["quantity"], r["shots"]) == (name, s)] for s in columns
      }
      values = [shown(quantity, float(np.mean(cells[s]))) if cells[s] else "" for s in columns]
      lines.append([quantity.label, *values])
    lines.append([])
  widths = [max(len(line[0]) for line in lines if line), 12]
  return "\n".join(
    line[0].ljust(widths[0]) + "".join(cell.rjust(widths[1]) for cell in line[1:]) if line else ""
    for line in lines
  ).rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit status: 0, 1 for a failed run, 2 for a mistake in usage."""
  options = _parser().parse_args(arguments)
  from genbench_jax.main import start_jax

  start_jax()
  try:
    rows = evaluate_folder(
      options.folder,
      options.dataset,
      options.workdir,
      shots=options.shots,
      seeds=options.seeds,
      encoder=options.encoder,
      with_originals=options.with_originals,
      settings={"data_dir": options.data_dir},
    )
  except (UsageError, RunError) as error:
    say(f"error: {error}")
    return 2 if isinstance(error, UsageError) else 1
  print(json.dumps(rows, indent=2) if options.json else table(rows))
  return 0


def numbers(text: str) -> list[int]:
  """Whole numbers by comma."""
  return [int(number) for number in text.split(",")]


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m genbench_jax.evaluate",
    description="How good are the images of a folder as training data for a dataset?",
  )
  parser.add_argument("folder", help="CLASS/*.png, classes by name, label or index")
  parser.add_argument(
    "--dataset",
    required=True,
    help="whose classes they are, see `python -m genbench_jax.benchmark`",
  )
  parser.add_argument("--workdir", help="where features, rows and the page stay")
  parser.add_argument(
    "--shots",
    type=numbers,
    default=(),
    help="images a class, by comma; by default 1,4,16,... and all",
  )
  parser.add_argument(
    "--seeds", type=numbers, default=(0,), help="of the choice of images, by comma"
  )
  parser.add_argument("--encoder", default="", help="CLIP checkpoint: folder or hub id")
  parser.add_argument(
    "--with-originals", action="store_true", help="measure the dataset's own training images too"
  )
  parser.add_argument("--data-dir", default="", help="TFDS's data folder")
  parser.add_argument("--json", action="store_true", help="print the rows as JSON")
  return parser


if __name__ == "__main__":
  sys.exit(main())
