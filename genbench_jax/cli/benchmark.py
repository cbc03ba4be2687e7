"""`genbench benchmark`: list, prepare and show the datasets.

Exit status: 0 if all requested datasets are ready, 1 if one is not, 2 for a usage error.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from genbench_jax.benchmark.prepare import prepare
from genbench_jax.benchmark.readiness import PREPARE, Readiness, builder_label, readiness
from genbench_jax.benchmark.registry import dataset_spec, known_datasets
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.cli.subcommand import subcommand
from genbench_jax.errors import RunError, UsageError
from genbench_jax.runtime.printable import printable
from genbench_jax.runtime.progress import say, show
from genbench_jax.runtime.stopping import leave

_DESCRIPTION = "List, prepare and show the datasets of GenBench."
_EPILOG = """\
NAME is one of the 22 datasets, the name the reference has for it, tfds:NAME for any other TFDS
dataset, folder:PATH for a tree split/class/image.jpg, or the path of a YAML file describing either.
The groups (common, fine-grained, rare) are this project's proposal, not the published code's.
"""
_COLUMNS = (
  "dataset",
  "group",
  "classes",
  "train",
  "validation",
  "test",
  "metric",
  "builder",
  "state",
)


def _arguments(parser: argparse.ArgumentParser) -> None:
  shared = argparse.ArgumentParser(add_help=False)
  # Suppressed defaults let an option work before and after the command.
  shared.add_argument("--data-dir", default=argparse.SUPPRESS, help="TFDS's data folder")
  shared.add_argument(
    "--manual-dir", default=argparse.SUPPRESS, help="folder of manually downloaded files"
  )
  shared.add_argument(
    "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON instead of text"
  )
  for action in shared._actions:
    parser._add_action(action)
  parser.set_defaults(run=_list, names=[], data_dir=None, manual_dir=None, json=False)
  commands = parser.add_subparsers(title="commands", metavar="COMMAND")
  for name, run, text, count in (
    ("list", _list, "print the readiness table (the default)", "*"),
    ("prepare", _prepare, "download and prepare datasets", "+"),
    ("show", _show, "print class names, templates and label order", "+"),
  ):
    added = commands.add_parser(name, help=text, description=text, parents=[shared])
    added.add_argument("names", nargs=count, metavar="NAME")
    added.set_defaults(run=run)


@subcommand("benchmark", _arguments, f"{_DESCRIPTION}\n\n{_EPILOG}")
def main(options: argparse.Namespace) -> int:
  """List, prepare or show datasets. Return 1 if a dataset is not ready."""
  return options.run(options)


def _list(options: argparse.Namespace) -> int:
  specs = [dataset_spec(name) for name in options.names or known_datasets()]
  states = [readiness(spec, options.data_dir, options.manual_dir) for spec in specs]
  if options.json:
    _print_json([_row(*pair) for pair in zip(specs, states, strict=True)])
  else:
    _print_table(specs, states)
  return 0 if all(state.ready for state in states) else 1


def _row(spec: DatasetSpec, state: Readiness) -> dict[str, Any]:
  return {
    "name": spec.name,
    "group": spec.group,
    "classes": spec.num_classes,
    "expected_sizes": spec.split_sizes,
    "metric": spec.metric,
    "builder": builder_label(spec),
    **dataclasses.asdict(state),
  }


def _print_table(specs: Sequence[DatasetSpec], states: Sequence[Readiness]) -> None:
  rows = [_COLUMNS, *(_cells(*pair) for pair in zip(specs, states, strict=True))]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for row in rows:
    cells = (
      cell.rjust(width) if cell.isdigit() or name in ("classes", "train", "validation", "test")
      else cell.ljust(width)
      for name, cell, width in zip(_COLUMNS, row, widths, strict=True)
    )  # fmt: skip
    show("  ".join(cells).rstrip())
  ready = sum(state.ready for state in states)
  show(f"\n{ready} of {len(states)} ready, {sum(spec.num_classes for spec in specs)} classes.")
  if any(state.steps for state in states):
    show("\nNext steps, in this order:")
  for step, names in _steps(states).items():
    show(f"  {step}" + (f"\n    for {', '.join(names)}" if len(names) > 1 else ""))


def _steps(states: Sequence[Readiness]) -> dict[str, list[str]]:
  """Return the next steps, each once with its datasets; steps that need no person come last."""
  steps = [(step, state.name) for state in states for step in state.steps]
  grouped: dict[str, list[str]] = {}
  for step, name in sorted(steps, key=lambda pair: pair[0].startswith(PREPARE)):
    grouped.setdefault(step, []).append(name)
  return grouped


def _cells(spec: DatasetSpec, state: Readiness) -> tuple[str, ...]:
  found = "stand-in" if state.stand_in else "odd size" if state.missing else "ready"
  sizes = (str(spec.split_sizes.get(split, "-")) for split in ("train", "validation", "test"))
  return (
    spec.name,
    spec.group,
    str(spec.num_classes),
    *sizes,
    spec.metric,
    builder_label(spec),
    found if state.ready else "missing",
  )


def _prepare(options: argparse.Namespace) -> int:
  specs = [dataset_spec(name) for name in options.names]
  outcomes = [_prepared(spec, options) for spec in specs]
  if options.json:
    _print_json(outcomes)
  return 0 if all(outcome["ready"] for outcome in outcomes) else 1


def _prepared(spec: DatasetSpec, options: argparse.Namespace) -> dict[str, Any]:
  """Prepare one dataset; report a failure so that the next dataset is still prepared."""
  error = ""
  try:
    prepare(spec, options.data_dir, options.manual_dir)
  except (RunError, UsageError) as failure:
    error = str(failure)
    say(f"error: {error}")
  state = readiness(spec, options.data_dir, options.manual_dir)
  if not options.json and state.ready:
    sizes = ", ".join(f"{split} {size}" for split, size in state.sizes.items())
    show(f"{spec.name} is ready: {sizes}. {state.missing}".rstrip())
  return {**dataclasses.asdict(state), "error": error}


def _show(options: argparse.Namespace) -> int:
  specs = [dataset_spec(name) for name in options.names]
  if options.json:
    _print_json([dataclasses.asdict(spec) for spec in specs])
  else:
    for spec in specs:
      _print_spec(spec)
  return 0


def _print_spec(spec: DatasetSpec) -> None:
  known_as = f" (also {', '.join(spec.aliases)})" if spec.aliases else ""
  show(f"{spec.name}{known_as}: {spec.num_classes} classes, {spec.metric}, {builder_label(spec)}")
  show(f"\n{len(spec.templates)} templates:")
  for template in spec.templates:
    show(f"  {printable(template)}")
  show("\nclasses in label order, with the builder's label if it differs:")
  labels = spec.label_names or spec.names
  for index, (names, label) in enumerate(zip(spec.class_names, labels, strict=True)):
    other = f"  [{label}]" if label != names[0] else ""
    show(f"  {index:4d}  {printable(', '.join(names) + other)}")
  show()


def _print_json(value: Any) -> None:
  show(json.dumps(value, indent=2, ensure_ascii=False))


if __name__ == "__main__":
  leave(main())
