"""The plan as text: what a config asks for, what it costs on a machine, what is missing, what is done."""

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
# Checkpoints on disk are float32 or float16: the larger.
STORED_BYTES = 4
# Prompts a class that are looked at, and what is told of them: the run looks at all and tells all.
LINTED, MOST_LINES, LONGEST_LINE = 8, 8, 160


def overview(
  config: Config, workdir: Path | None, machine: Machine, machines_file: str = ""
) -> str:
  """The plan, in the order of the questions that one asks of it."""
  asked = costs(config)
  parts = (
    _work(config, asked),
    _price(asked, machine, machines_file),
    _memory(asked, machine, config),
    _datasets(config, asked, machine),
    _checkpoints(asked),
    _prompts(config, asked),
    _done(config, workdir, asked),
    _grounds(machine),
  )
  return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _work(config: Config, asked: Costs) -> Iterator[str]:
  sets, cells = image_sets(config), all_cells(config)
  classes = sum(one.num_classes for one in asked.datasets)
  yield "What is asked for"
  yield from aligned(
    (
      ("datasets", f"{len(asked.datasets)}, {classes} classes"),
      ("sources", ", ".join(config.sources)),
      ("cells", f"{len(cells):,}, from {len(sets)} image sets"),
      ("images to generate", _generated(config, asked)),
      ("real images to copy", f"at most {_count(asked.total(lambda one: one.copied))}"),
      (
        "images to embed",
        f"{_count(asked.total(lambda one: one.embedded))}, the test images included",
      ),
      ("disk", _disk(asked)),
    )
  )


def _generated(config: Config, asked: Costs) -> str:
  count, model, settings = (
    asked.total(lambda one: one.generated),
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
  kept, made = asked.total(lambda one: one.kept), asked.total(lambda one: one.generated)
  fewer = f", with {_count(kept)} of the generated images kept" if kept < made else ""
  return f"about {_bytes(asked.total(lambda one: one.disk))}{fewer}"


def _price(asked: Costs, machine: Machine, file: str) -> Iterator[str]:
  yield f"On {machine.label}"
  rows = [("", "operations", "chip-hours", "wall time", "USD")]
  rows += [(label, *_amounts(asked.flops((stage,)), machine)) for stage, label in STAGES.items()]
  rows.append(("together", *_amounts(asked.flops(), machine)))
  yield from aligned(rows, numbers=(1, 2, 3, 4))
  flops = asked.flops()
  if flops is not None:
    each = (f"{name} {_hours(chip_hours(flops, one))}" for name, one in machines(file).items())
    yield f"  Chip-hours elsewhere: {', '.join(each)}."


def _amounts(flops: float | None, machine: Machine) -> tuple[str, str, str, str]:
  if flops is None:
    return ("?", "?", "?", "?")
  hours = chip_hours(flops, machine)
  money = f"{hours * machine.usd_hour:,.2f}" if machine.usd_hour else "-"
  return (_flops(flops), _hours(hours), _duration(hours / machine.chips), money)


def _memory(asked: Costs, machine: Machine, config: Config) -> Iterator[str]:
  yield "Memory a chip, about"
  rows = []
  for what, model in asked.models.items():
    batch = (config.generation if what.startswith("diffusion") else config.encoder).batch_per_device
    needed = "?" if model.memory is None else _bytes(model.memory)
    tight = model.memory is not None and model.memory > 0.85 * machine.memory_gb * 1e9
    remark = "  TOO MUCH: take a smaller batch_per_device" if tight else ""
    rows.append((what, f"{needed} of {machine.memory_gb:g} GB, {batch} images at once{remark}"))
  yield from aligned(rows)


def _datasets(config: Config, asked: Costs, machine: Machine) -> Iterator[str]:
  states = [_state(config, one) for one in asked.datasets]
  yield f"Datasets: {sum(state.ready for state in states)} of {len(states)} ready"
  head = ("", "classes", "generate", "copy", "test", "disk", "chip-hours", "")
  rows = [head]
  for one, state in zip(asked.datasets, states, strict=True):
    flops = [one.flops[stage] for stage in STAGES]
    hours = None if None in flops else chip_hours(sum(f for f in flops if f), machine)
    rows.append((
      one.dataset, str(one.num_classes), _count(one.generated), _count(one.copied), _count(one.test),
      _bytes(one.disk), "?" if hours is None else _hours(hours), _readiness_words(state),
    ))  # fmt: skip
  yield from aligned(rows, numbers=range(1, 7))
  if not all(state.ready for state in states):
    yield "  What to do for those that are missing: python -m genbench_jax.benchmark"


def _state(config: Config, one: DatasetCost) -> Readiness:
  spec = config.spec(one.dataset)
  if config.stand_in and spec.tfds_name:
    return Readiness(spec.name, ready=True, stand_in=True)
  return readiness(spec, config.data_dir or None)


def _readiness_words(state: Readiness) -> str:
  if state.stand_in:
    return "drawn stand-in"
  return state.missing or "ready" if state.ready else f"MISSING: {state.missing}"


def _checkpoints(asked: Costs) -> Iterator[str]:
  yield "Checkpoints"
  yield from aligned([(m.checkpoint, _checkpoint_words(m)) for m in asked.models.values()])


def _checkpoint_words(model: ModelCost) -> str:
  if model.folder is not None:
    return "ready" if model.flops is not None else "ready, of an architecture not known here"
  if model.flops is None:
    return "not on this machine, and not known here: costs unknown until it is downloaded"
  size = _bytes(STORED_BYTES * model.weights)
  return f"not on this machine: the run downloads it, up to {size}"


def _prompts(config: Config, asked: Costs) -> Iterator[str]:
  """What is wrong with the first prompts of each class; what is cut is known with the checkpoint's tokenizer alone."""
  if asked.diffusion is None:
    yield "Prompts: none"
    return
  known = asked.diffusion.folder is not None
  few = dataclasses.replace(config, shots=(min(LINTED, max(config.shots)),))
  found = lint(few) if known else lint(few, lambda text: True)
  unknown = "" if known else " (what is cut can't be told without the checkpoint)"
  yield f"Prompts: {len(found) or 'nothing'} to look at{unknown}"
  yield from (f"  {line[:LONGEST_LINE]}" for line in found[:MOST_LINES])
  if len(found) > MOST_LINES:
    yield f"  and {len(found) - MOST_LINES} more, which the run tells"


def _done(config: Config, workdir: Path | None, asked: Costs) -> Iterator[str]:
  if workdir is None or not workdir.is_dir():
    yield "Done so far: nothing" + ("" if workdir is None else f", there is no {workdir}")
    return
  if any(model.folder is None for model in asked.models.values()):
    yield f"Done so far in {workdir}: can't be told without the checkpoints"
    return
  found = done(config, workdir)
  sets, measured = len(image_sets(config)), len(measured_sets(config))
  yield f"Done so far in {workdir}, by image set"
  counts = (
    ("made", found.image_sets, sets),
    ("embedded", found.embedded, sets),
    ("scored", found.scored, measured),
    ("recognized", found.recognized, measured),
  )
  yield from aligned([(name, f"{count} of {total}") for name, count, total in counts])


def _grounds(machine: Machine) -> Iterator[str]:
  yield "What this rests on"
  price = f"${machine.usd_hour:.2f} a chip-hour" if machine.usd_hour else "no price"
  yield (
    f"  {machine.what}: {machine.tflops:g} TFLOP/s, {machine.bandwidth_gbs:g} GB/s, {price}, list prices of"
    f" {machine.as_of} ({machine.source}). Give your own: --price."
  )
  yield (
    f"  Time is arithmetic, or memory at {OPERATIONS_PER_BYTE} operations a byte, whichever takes longer,"
    f" over an efficiency of {EFFICIENCY:g}: measured on an H100, assumed elsewhere. Metrics are left out, and so is"
    " the host's work of encoding and decoding images."
  )


def aligned(rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> Iterator[str]:
  """Rows as lines of columns, those of `numbers` flush right."""
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
