"""The report: one self-contained page, and beside it its tables and figures as files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from genbench_jax.errors import UsageError
from genbench_jax.report import gallery, render, tables, words
from genbench_jax.report.agreement import FEWEST_CELLS, Agreement, agreements
from genbench_jax.report.cell_table import cell_data
from genbench_jax.report.chart import Figure
from genbench_jax.report.classes import ClassScores, class_gains, classes_figure
from genbench_jax.report.curves import curves_figure
from genbench_jax.report.gain_figures import gains_figure, strategies_figure
from genbench_jax.report.gains import headline_budget
from genbench_jax.report.gallery import Gallery
from genbench_jax.report.quantities import RECOGNIZERS, budget_words, quantity_of
from genbench_jax.report.results import (
  Results,
  Row,
  beside_their_encoder,
  results_of,
  unreadable,
  views,
)
from genbench_jax.report.scatter import metric_figure, ranks_figure

# The votes are in the table; a curve for each would double the page.
VOTES = ("topk_vote", "topk_vote_text")
# The whole page, bytes; examples are left out until it fits.
PAGE_BUDGET = 9_500_000


class RunInfo(TypedDict, total=False):
  """What the page says of the run. Every key may be left out.

  Attributes:
    title: the page's title.
    command: the command line, as typed.
    config: the config as JSON text.
    versions: package -> version.
    device: the devices in words, e.g. "8 x TPU v5e".
    devices: how many of them; with it the page gives device-hours.
    started: when the run began, e.g. "2026-01-31 12:00 UTC".
    seconds: stage -> wall-clock seconds.
    images: stage -> how many images it went through; with it the page gives images a second.
    datasets: the datasets that were asked for; those without rows are named.
    warnings: what the reader must know, a sentence each.
    prompt_lint: what was found about the prompts (cut, colliding ...), a sentence each.
    leak_audit: what was found about external images that resemble test images, a sentence each.
  """

  title: str
  command: str
  config: str
  versions: Mapping[str, str]
  device: str
  devices: int
  started: str
  seconds: Mapping[str, float]
  images: Mapping[str, int]
  datasets: Sequence[str]
  warnings: Sequence[str]
  prompt_lint: Sequence[str]
  leak_audit: Sequence[str]


def write_report(
  rows: Sequence[Row],
  galleries: Sequence[Gallery],
  run: Mapping[str, Any],
  folder: Path,
  class_scores: Sequence[ClassScores] = (),
) -> Path:
  """Writes `folder/index.html`, `folder/tables/` and `folder/figures/`; returns the page's path.

  Every file is written under a temporary name and renamed. The page needs no network and no
  other file. It compares within one protocol and encoder, `strict` first; the table of all cells
  has them all.

  Args:
    rows: the run's rows, with the keys of the results file.
    galleries: example images; what goes beyond `gallery.IMAGE_BUDGET` is left out evenly.
    run: what was run, see RunInfo.
    folder: made where it is missing.
    class_scores: how well single classes are recognized, for the figure of the best and worst.

  Raises:
    UsageError: there is no row with a finite value.
    RunError: a gallery's image can't be read.
  """
  context, figures, written = _content(rows, cast(RunInfo, dict(run)), class_scores)
  render.write_files(folder, written, figures)
  return render.write(folder / "index.html", _page(context, galleries, class_gains(class_scores)))


def _page(
  context: Mapping[str, Any],
  galleries: Sequence[Gallery],
  gains: Mapping[str, Mapping[str, float]],
) -> str:
  """The page with as many examples as it has room for."""

  def rendered(budget: int) -> str:
    shown, left_out = gallery.fit(galleries, budget)
    walls = gallery.walls(shown, gains)
    ordered = any(wall.dataset in gains for wall in walls)
    return render.render(
      "page.html.jinja", **context, walls=walls, left_out=left_out, ordered=ordered
    )

  page = rendered(gallery.IMAGE_BUDGET)
  excess = len(page.encode()) - PAGE_BUDGET
  return page if excess <= 0 else rendered(max(0, gallery.IMAGE_BUDGET - excess))


def _content(
  rows: Sequence[Row], run: RunInfo, class_scores: Sequence[ClassScores]
) -> tuple[dict[str, Any], list[Figure], list[tables.Table]]:
  """What the template needs besides the examples, the figures and the tables."""
  rows = beside_their_encoder(rows)
  every = [results for view in views(rows) if (results := results_of(rows, view)).cells]
  if not every:
    raise UsageError(
      "no results to report: no row has a finite value. Run the earlier stages first."
    )
  main = every[0]
  headline = next(iter(main.recognizers()), None)
  found = agreements(main, headline) if headline in RECOGNIZERS else ()
  figures = dict(_figures(main, found, class_scores))
  cells = tables.cells_table(every)
  correlations = tables.agreement_table(found)
  context = {
    **render.assets(),
    **_answer(every, headline, found),
    "run": run,
    "title": run.get("title") or "How good are these images as training data?",
    "main": main,
    "others": every[1:],
    "figures": figures,
    "agreements": correlations,
    "fewest_cells": FEWEST_CELLS,
    "cells": cell_data(cells),
    "warnings": _warnings(rows, run, main),
    "quantities": [quantity_of(name) for name in ("zero_shot", *main.quantities)],
    "config": _pretty(run.get("config", "")),
    "stages": _stages(run),
  }
  written = [tables.gains_table(main, _compared(main)), correlations, cells]
  return context, list(figures.values()), [table for table in written if table.rows]


def _answer(
  every: Sequence[Results], headline: str | None, found: Sequence[Agreement]
) -> dict[str, Any]:
  """The head of the page: the answer in words and the numbers behind it."""
  main = every[0]
  shots = headline_budget(main, headline) if headline else None
  known = headline is not None and shots is not None
  return {
    "headline": quantity_of(headline) if headline else None,
    "budget": budget_words(shots) if shots is not None else "",
    "findings": words.findings(main, headline) if headline else [],
    "answer": words.answer(main, headline) if headline else [],
    "control_words": words.control_words(main),
    "agreement_words": words.agreement_words(found),
    "gains": tables.headline_table(main, str(headline), shots or 0) if known else None,
    "others_table": (
      tables.views_table(every, str(headline), shots or 0) if known and len(every) > 1 else None
    ),
  }


def _compared(results: Results) -> list[str]:
  """What is set against zero-shot in the headline figure: trained recognizers and CLER."""
  measured = results.recognizers()
  return [name for name in measured if name in (*RECOGNIZERS, "cler")] or measured


def _figures(
  results: Results, found: Sequence[Agreement], class_scores: Sequence[ClassScores]
) -> Iterator[tuple[str, Figure]]:
  """The figures that the rows have the numbers for."""
  compared, measured = _compared(results), results.recognizers()
  if compared and results.zero_shot:
    yield "gains", gains_figure(results, compared)
    if strategies := strategies_figure(results, compared):
      yield "strategies", strategies
  if drawn := [name for name in measured if name not in VOTES] or measured:
    yield "curves", curves_figure(results, drawn)
  if any(item.known for item in found):
    yield "metric", metric_figure(found[0])
    yield "ranks", ranks_figure(found)
  if classes := classes_figure(class_scores):
    yield "classes", classes


def _warnings(rows: Sequence[Row], run: RunInfo, main: Results) -> list[str]:
  """The run's own warnings, and what the rows show to be missing."""
  warnings = list(run.get("warnings", ()))
  if absent := [name for name in run.get("datasets", ()) if name not in main.datasets]:
    warnings.append(f"No result for {', '.join(absent)}: no average contains them.")
  if without := [name for name in main.datasets if name not in main.zero_shot]:
    warnings.append(f"No zero-shot baseline for {', '.join(without)}: no gain is computed there.")
  if count := unreadable(rows):
    warnings.append(f"{count} rows have no finite value and are left out.")
  if empty := sum(cell.facts.get("missing_classes", 0) > 0 for cell in main.cells):
    warnings.append(
      f"{empty} cells have classes without any training image; the table counts them."
    )
  return warnings


def _stages(run: RunInfo) -> tables.Table | None:
  """Time of each stage; images a second a device and device-hours where the run tells enough."""
  seconds, images, devices = run.get("seconds") or {}, run.get("images") or {}, run.get("devices")
  if not seconds:
    return None
  columns = ["stage", "seconds"] + ["images"] * bool(images)
  columns += ["images a second a device"] * bool(images and devices)
  columns += ["device-hours"] * bool(devices)
  rows = []
  for stage, spent in seconds.items():
    row: list[tables.Value] = [stage, f"{spent:.1f}"]
    count = images.get(stage)
    row += [count] * bool(images)
    if images and devices:
      row.append(f"{count / spent / devices:.3g}" if count and spent > 0 else None)
    row += [f"{spent * devices / 3600:.3g}"] if devices else []
    rows.append(tuple(row))
  return tables.Table("stages", "Time and cost of each stage.", tuple(columns), tuple(rows))


def _pretty(config: str) -> str:
  """JSON text indented; any other text as it is."""
  try:
    return json.dumps(json.loads(config), indent=2, ensure_ascii=False)
  except ValueError:
    return config
