"""The plan as text: work, cost on a machine, missing inputs, finished work."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from genbench_jax.benchmark.readiness import Readiness, readiness
from genbench_jax.cells import all_cells, image_sets, measured_sets
from genbench_jax.config import Config
from genbench_jax.planning.costs import (
  EFFICIENCY,
  OPERATIONS_PER_BYTE,
  Costs,
  DatasetCost,
  chip_hours,
  costs,
)
from genbench_jax.planning.done import done
from genbench_jax.planning.machines import Machine, machines
from genbench_jax.planning.models import ModelCost
from genbench_jax.sources.prompting import lint

STAGES = {"images": "make images", "embed": "embed", "recognize": "recognizers"}
# Checkpoints on disk are float32 or float16; assume the larger.
STORED_BYTES = 4
# Limits on checked prompts per class and printed problems. The run prints every problem, not only
# the first.
LINTED, MOST_LINES, LONGEST_LINE = 8, 8, 160


def overview(
  config: Config, workdir: Path | None, machine: Machine, machines_file: str = ""
) -> str:
  """Yield the lines of the plan.

  Args:
    config: the config.
    workdir: the work folder, if one is given.
    machine: the machine.
    machines_file: data file of machines, if not that of the package.
  """
  asked = costs(config)
  parts = (
    _work(config, asked),
    _price(asked, machine, machines_file),
    _generators(asked, machine),
    _memory(asked, machine, config),
    _datasets(config, asked, machine),
    _checkpoints(asked),
    _prompts(config, asked),
    _done(config, workdir, asked),
    _grounds(machine),
  )
  return "\n\n".join(text for text in ("\n".join(part) for part in parts) if text) + "\n"


def _work(config: Config, asked: Costs) -> Iterator[str]:
  sets, cells = image_sets(config), all_cells(config)
  classes = sum(cost.num_classes for cost in asked.datasets)
  yield "Work"
  yield from aligned(
    (
      ("datasets", f"{len(asked.datasets)}, {classes} classes"),
      ("sources", ", ".join(config.sources)),
      ("cells", f"{len(cells):,}, from {len(sets)} image set{'s' * (len(sets) != 1)}"),
      ("images to generate", _generated(config, asked)),
      ("real images to copy", f"at most {_count(asked.total(lambda cost: cost.copied))}"),
      (
        "images to embed",
        f"{_count(asked.total(lambda cost: cost.embedded))}, including the test images",
      ),
      ("disk", _disk(asked)),
    )
  )


def _generated(config: Config, asked: Costs) -> str:
  count, model, settings = (
    asked.total(lambda cost: cost.generated),
    asked.diffusion,
    config.generation,
  )
  if not count or model is None:
    return "none"
  side = (
    f" of {round(model.pixels**0.5)} x {round(model.pixels**0.5)} pixels" if model.pixels else ""
  )
  if config.generators:
    return f"{_count(count)} by {len(config.generators)} generators: {', '.join(config.generators)}"
  return (
    f"{_count(count)}{side}, {settings.steps} steps of {settings.scheduler}, {model.checkpoint}"
  )


def _disk(asked: Costs) -> str:
  kept, made = asked.total(lambda cost: cost.kept), asked.total(lambda cost: cost.generated)
  fewer = f", with {_count(kept)} of the generated images kept" if kept < made else ""
  return f"about {_bytes(asked.total(lambda cost: cost.disk))}{fewer}"


def _price(asked: Costs, machine: Machine, file: str) -> Iterator[str]:
  yield f"On {machine.label}"
  rows = [("", "operations", "chip-hours", "wall time", "USD")]
  rows += [(label, *_amounts(asked.flops((stage,)), machine)) for stage, label in STAGES.items()]
  rows.append(("total", *_amounts(asked.flops(), machine)))
  yield from aligned(rows, numbers=(1, 2, 3, 4))
  flops = asked.flops()
  if flops is not None:
    hours_of_chips = (
      f"{name} {_hours(chip_hours(flops, chip))}" for name, chip in machines(file).items()
    )
    yield f"  Chip-hours on other machines: {', '.join(hours_of_chips)}."


def _amounts(flops: float | None, machine: Machine) -> tuple[str, str, str, str]:
  if flops is None:
    return ("?", "?", "?", "?")
  hours = chip_hours(flops, machine)
  money = f"{hours * machine.usd_hour:,.2f}" if machine.usd_hour else "-"
  return (_flops(flops), _hours(hours), _duration(hours / machine.chips), money)


def _generators(asked: Costs, machine: Machine) -> Iterator[str]:
  """Return what an image costs by each generator, if a cost is known."""
  known = {name: model.flops for name, model in asked.diffusions.items() if model.flops}
  if not known:
    return
  yield f"An image on one {machine.what}"
  rows = [("", "operations", "bytes moved", "images/s", "USD per 1,000")]
  for name, flops in known.items():
    hours = chip_hours(flops, machine)
    money = f"{1000 * hours * machine.usd_hour:,.3g}" if machine.usd_hour else "-"
    moved = _bytes(flops / OPERATIONS_PER_BYTE)
    rate = 1 / 3600 / hours
    per_second = _count(rate) if rate >= 1000 else f"{rate:.3g}"
    rows.append((name or "generator", _flops(flops), moved, per_second, money))
  yield from aligned(rows, numbers=(1, 2, 3, 4))


def _memory(asked: Costs, machine: Machine, config: Config) -> Iterator[str]:
  yield "Memory per chip, about"
  rows = []
  generators = config.generators or {"": config.generation}
  batches = {f"diffusion {name}".strip(): one.batch_per_device for name, one in generators.items()}
  for what, model in asked.models.items():
    batch = batches.get(what, config.encoder.batch_per_device) or "as many as fit,"
    needed = "?" if model.memory is None else _bytes(model.memory)
    tight = model.memory is not None and model.memory > 0.85 * machine.memory_gb * 1e9
    remark = "  TOO MUCH: use a smaller batch_per_device" if tight else ""
    rows.append((what, f"{needed} of {machine.memory_gb:g} GB, {batch} images at once{remark}"))
  yield from aligned(rows)


def _datasets(config: Config, asked: Costs, machine: Machine) -> Iterator[str]:
  states = [_state(config, cost) for cost in asked.datasets]
  yield f"Datasets: {sum(state.ready for state in states)} of {len(states)} ready"
  head = ("", "classes", "generate", "copy", "test", "disk", "chip-hours", "")
  rows = [head]
  for cost, state in zip(asked.datasets, states, strict=True):
    flops = [cost.flops[stage] for stage in STAGES]
    hours = None if None in flops else chip_hours(sum(f for f in flops if f), machine)
    rows.append((
      cost.dataset, str(cost.num_classes), _count(cost.generated), _count(cost.copied), _count(cost.test),
      _bytes(cost.disk), "?" if hours is None else _hours(hours), _readiness_words(state),
    ))  # fmt: skip
  yield from aligned(rows, numbers=range(1, 7))
  if not all(state.ready for state in states):
    yield "  To prepare missing datasets: genbench benchmark"


def _state(config: Config, cost: DatasetCost) -> Readiness:
  spec = config.spec(cost.dataset)
  if config.stand_in and spec.tfds_name:
    return Readiness(spec.name, ready=True, stand_in=True)
  return readiness(spec, config.data_dir or None)


def _readiness_words(state: Readiness) -> str:
  if state.stand_in:
    return "drawn substitute"
  return state.missing or "ready" if state.ready else f"MISSING: {state.missing}"


def _checkpoints(asked: Costs) -> Iterator[str]:
  yield "Checkpoints"
  yield from aligned([(m.checkpoint, _checkpoint_words(m)) for m in asked.models.values()])


def _checkpoint_words(model: ModelCost) -> str:
  if model.folder is not None:
    return "ready" if model.flops is not None else "ready, unknown architecture"
  if model.flops is None:
    return "not on this machine, and unknown: its cost is unknown until it is downloaded"
  size = _bytes(STORED_BYTES * model.weights)
  return f"not on this machine: the run downloads up to {size}"


def _prompts(config: Config, asked: Costs) -> Iterator[str]:
  """Return the problems of the first prompts of each class."""
  if asked.diffusion is None:
    yield "Prompts: none"
    return
  known = asked.diffusion.folder is not None
  few = dataclasses.replace(config, shots=(min(LINTED, max(config.shots)),))
  found = lint(few) if known else lint(few, lambda text: True)
  unknown = "" if known else " (truncation is unknown without the checkpoint)"
  yield f"Prompts: {len(found) or 'no'} problems{unknown}"
  yield from (f"  {line[:LONGEST_LINE]}" for line in found[:MOST_LINES])
  if len(found) > MOST_LINES:
    yield f"  and {len(found) - MOST_LINES} more, which the run prints"


def _done(config: Config, workdir: Path | None, asked: Costs) -> Iterator[str]:
  if workdir is None or not workdir.is_dir():
    yield "Finished so far: nothing" + ("" if workdir is None else f", {workdir} does not exist")
    return
  if any(model.folder is None for model in asked.models.values()):
    yield f"Finished so far in {workdir}: unknown without the checkpoints"
    return
  found = done(config, workdir)
  sets, measured = len(image_sets(config)), len(measured_sets(config))
  yield f"Finished so far in {workdir}, by image set"
  counts = (
    ("made", found.image_sets, sets),
    ("embedded", found.embedded, sets),
    ("scored", found.scored, measured),
    ("recognized", found.recognized, measured),
  )
  yield from aligned([(name, f"{count} of {total}") for name, count, total in counts])


def _grounds(machine: Machine) -> Iterator[str]:
  yield "Assumptions"
  price = f"${machine.usd_hour:.2f} per chip-hour" if machine.usd_hour else "no price"
  yield (
    f"  {machine.what}: {machine.tflops:g} TFLOP/s, {machine.bandwidth_gbs:g} GB/s, {price}, list prices as of"
    f" {machine.as_of} ({machine.source}). Use --price for your own."
  )
  yield (
    f"  Time is the longer of arithmetic and memory traffic ({OPERATIONS_PER_BYTE} operations per byte),"
    f" divided by an efficiency of {EFFICIENCY:g}, measured on an H100 and assumed elsewhere. Metrics and the"
    " host's encoding and decoding of images are not included."
  )


def aligned(rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> Iterator[str]:
  """Return rows as lines of aligned columns; those of `numbers` are right-aligned."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for row in rows:
    cells = (
      cell.rjust(width) if place in numbers else cell.ljust(width)
      for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    yield "  " + "  ".join(cells).rstrip()


def _count(count: float) -> str:
  return f"{count:,.0f}"


def _flops(flops: float) -> str:
  for unit, scale in (("E", 1e18), ("P", 1e15), ("T", 1e12)):
    if flops >= scale:
      return f"{flops / scale:,.4g} {unit}FLOP"
  return f"{flops / 1e9:,.4g} GFLOP"


def _hours(hours: float) -> str:
  return "< 0.01" if hours < 0.01 else f"{hours:,.0f}" if hours >= 1000 else f"{hours:,.3g}"


def _bytes(size: float) -> str:
  for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
    if size >= scale:
      return f"{size / scale:.3g} {unit}"
  return f"{size / 1e3:.3g} kB"


def _duration(hours: float) -> str:
  if hours >= 48:
    return f"{hours / 24:,.3g} days"
  if hours < 1 / 60:
    return "< 1 min"
  return f"{hours:.3g} h" if hours >= 1 else f"{hours * 60:.0f} min"
