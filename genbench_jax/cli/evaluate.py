"""Score images as training data for a dataset, from one source or several.

    genbench evaluate my_images/ --dataset digits
    genbench evaluate sd15=a/ flux=b.zip --dataset cifar10 --workdir out --with-originals
    genbench evaluate my_images/ --test-dir my_test_images/ --templates "a photo of a {}." --workdir out

A source is a folder of class folders, an archive of one, webdataset shards, Parquet, a list of
paths and labels, or an .npz (docs/howto/inputs.md). A second run in the same work folder adds its
sources to the page.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from genbench_jax.cli.argument_types import numbers
from genbench_jax.cli.subcommand import subcommand
from genbench_jax.pipeline.evaluate import Question
from genbench_jax.runtime.printable import printable
from genbench_jax.runtime.progress import show
from genbench_jax.runtime.stopping import leave
from genbench_jax.store.workdir import make_workdir


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("sources", nargs="+", metavar="[NAME=]PATH", help="images by class")
  data = parser.add_argument_group("test images and encoder")
  data.add_argument(
    "--dataset",
    default="",
    metavar="DATASET",
    help="a dataset of `genbench benchmark` (digits, digits_hard, shapes and signs need no preparation); a folder"
    " with test/CLASS/*.jpg; a YAML file that describes one; or tfds:NAME",
  )
  data.add_argument(
    "--test-dir", default="", metavar="DIR", help="test images by class, instead of a dataset"
  )
  data.add_argument(
    "--templates",
    action="append",
    default=[],
    metavar="TEXT",
    help="prompt template with {}, or a file of templates",
  )
  data.add_argument(
    "--class-names", default="", metavar="FILE", help="label -> words, as CSV, JSON or YAML"
  )
  data.add_argument("--encoder", default="", help="CLIP checkpoint: folder or hub id")
  data.add_argument("--data-dir", default="", help="TFDS's data folder")
  how = parser.add_argument_group("how")
  how.add_argument("--workdir", help="folder for features, rows and the page")
  how.add_argument(
    "--shots",
    type=numbers,
    default=(),
    help="images per class, comma-separated; default: 1,4,16,... and all",
  )
  how.add_argument(
    "--seeds", type=numbers, default=(0,), help="seeds of the selection of images, comma-separated"
  )
  how.add_argument(
    "--with-originals", action="store_true", help="also measure the dataset's own training images"
  )
  how.add_argument(
    "--class-map", default="", metavar="FILE", help="your name -> class, as CSV, JSON or YAML"
  )
  how.add_argument("--strict", action="store_true", help="reject names that match no class")
  how.add_argument("--plan", action="store_true", help="print the work and its cost, and stop")
  how.add_argument("--machine", default="cpu", help="for --plan: cpu, l4, a100, h100 ...")
  how.add_argument("--json", action="store_true", help="print the rows as JSON")


@subcommand("evaluate", _arguments, __doc__)
def main(options: argparse.Namespace) -> None:
  """Print the table, or the rows as JSON."""
  if options.plan:
    os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory(prefix="genbench_jax_") as place:
      show(_plan(options, Path(place)), end="")
    return
  from genbench_jax.runtime.jax_start import start_jax

  start_jax()
  if options.workdir:
    workdir = Path(options.workdir).expanduser()
    make_workdir(workdir)
    _evaluate(options, workdir, keeps=True)
    return
  with tempfile.TemporaryDirectory(prefix="genbench_jax_") as place:
    _evaluate(options, Path(place), keeps=False)


def _question(options: argparse.Namespace, place: Path) -> Question:
  from genbench_jax.pipeline.evaluate import named_sources, own_dataset

  dataset = own_dataset(
    place, options.dataset, options.test_dir, options.templates, options.class_names
  )
  return Question(
    named_sources(options.sources), dataset, tuple(options.shots), tuple(options.seeds), options.encoder,
    options.with_originals, options.class_map, options.strict, {"data_dir": options.data_dir},
  )  # fmt: skip


def _evaluate(options: argparse.Namespace, workdir: Path, keeps: bool) -> None:
  from genbench_jax.config import STAGES
  from genbench_jax.pipeline.evaluate import evaluate, with_earlier

  question = _question(options, workdir)
  if keeps:
    question = with_earlier(question, workdir)
  rows = evaluate(question, workdir, STAGES if keeps else STAGES[:-1])
  if options.json:
    show(json.dumps(rows, indent=2))
    return
  show(_report(question, rows, workdir, keeps))


def _report(question: Question, rows: Sequence[dict], workdir: Path, keeps: bool) -> str:
  """Print the table, the ranking, what was left out and, last, the path of the page."""
  from genbench_jax.benchmark.registry import dataset_spec
  from genbench_jax.pipeline.evaluate import open_sources
  from genbench_jax.report.text_ranking import ranking
  from genbench_jax.report.text_table import table

  opened = open_sources(question, dataset_spec(question.dataset), workdir / "folders")
  notes = [printable(f"{name}: {note}") for name, images in opened.items() for note in images.notes]
  width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
  parts = [table(rows, width), ranking(workdir, rows)]
  if notes:
    parts.append("\n".join(["Note:", *(f"  {note}" for note in notes)]))
  if keeps:
    parts.append(f"The page: {printable(str(workdir / 'report' / 'index.html'))}")
  return "\n\n".join(filter(None, parts))


def _plan(options: argparse.Namespace, place: Path) -> str:
  """Print what would be measured and its cost, based on the list of images."""
  from genbench_jax.benchmark.registry import dataset_spec
  from genbench_jax.pipeline.evaluate import config_of, open_sources
  from genbench_jax.planning.machines import machine
  from genbench_jax.planning.overview import overview

  question = _question(options, place)
  spec = dataset_spec(question.dataset)
  lines = ["Sources"]
  # The temporary folder remembers what was decoded, so that the config does not decode it again.
  for name, images in open_sources(question, spec, place / "folders").items():
    classes = len(set(images.labels().tolist()))
    lines.append(
      f"  {name}: {len(images):,} images of {classes} of the {spec.num_classes} classes of '{spec.name}'"
    )
    lines += [f"    {note}" for note in images.notes]
  config = config_of(question, place)
  workdir = Path(options.workdir) if options.workdir else None
  return "\n".join(lines) + "\n\n" + overview(config, workdir, machine(options.machine))


if __name__ == "__main__":
  leave(main())
