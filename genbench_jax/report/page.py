"""The report: one self-contained page, with its tables and figures as files beside it."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from genbench_jax.analysis.exchange import ExchangeRate
from genbench_jax.errors import UsageError
from genbench_jax.report import gallery, render, tables, words
from genbench_jax.report.agreement import FEWEST_CELLS, agreements
from genbench_jax.report.cell_table import thinned_cells
from genbench_jax.report.class_table import class_data
from genbench_jax.report.classes import ClassScores, class_gains, with_series
from genbench_jax.report.confusion import class_counts, taken_for
from genbench_jax.report.duels import Hits, duels
from genbench_jax.report.encoders import (
  cross_agreements,
  cross_table,
  encoder_table,
  judge_of,
  merged,
  recognizer_table,
)
from genbench_jax.report.exchange import exchange_of, exchange_words
from genbench_jax.report.figures import page_figures
from genbench_jax.report.gallery import Gallery
from genbench_jax.report.generators import costs_of, settings_of
from genbench_jax.report.headline import (
  HeadLine,
  head_lines,
  shared_budget,
  text_start,
  with_text,
)
from genbench_jax.report.labels import FEWER_THAN_ASKED, budget_words
from genbench_jax.report.number_words import number, rate
from genbench_jax.report.quantities import RECOGNIZERS, quantity_of
from genbench_jax.report.ranking import Rank, duels_table, ranking_table, ranks
from genbench_jax.report.recognitions import Recognition
from genbench_jax.report.results import (
  Results,
  Row,
  Series,
  beside_their_encoder,
  results_of,
  unreadable,
  views,
)
from genbench_jax.report.scaling import ScalingCurve, scaling_curves, scaling_table
from genbench_jax.report.settings_words import settings_words

# Limit on the bytes of the page; examples are omitted until it fits.
PAGE_BUDGET = 9_500_000
# With more sources, the table of pairwise comparisons is not readable.
MOST_DUELISTS = 12


class RunInfo(TypedDict, total=False):
  """Description of the run for the page. Every key is optional.

  Attributes:
    title: the page's title.
    command: the command line, as typed.
    config: the config as JSON text.
    versions: package -> version.
    device: the devices in words, such as "8 x TPU v5e".
    devices: number of devices; with it, the page shows device-hours.
    started: start of the run, such as "2026-01-31 12:00 UTC".
    seconds: stage -> wall-clock seconds.
    images: stage -> number of images processed; with it, the page shows images per second.
    datasets: the requested datasets; those without rows are named.
    warnings: sentences that the reader must know.
    prompt_lint: problems of the prompts, such as truncation or duplicates, one sentence each.
    leak_audit: external images that resemble test images, one sentence each.
    costs: image set -> its cost, see `generators.costs_of`.
    price: USD per device-hour; with it, the ranking shows costs in USD.
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
  costs: Mapping[str, Mapping[str, Any]]
  price: float


def write_report(
  rows: Sequence[Row],
  galleries: Sequence[Gallery],
  run: Mapping[str, Any],
  folder: Path,
  class_scores: Sequence[ClassScores] = (),
  found: Sequence[Recognition] = (),
  hits: Hits | None = None,
) -> Path:
  """Write `folder/index.html`, `folder/tables/` and `folder/figures/`; return the page's path.

  Every file is written under a temporary name and renamed. The page needs no network and no other
  file. Comparisons stay within one protocol and encoder, preferably `strict`; the table of all
  cells contains all of them.

  Args:
    rows: rows of the run, with the keys of the results file.
    galleries: example images; beyond `gallery.IMAGE_BUDGET` they are omitted evenly.
    run: description of the run.
    folder: folder of the page; created if missing.
    class_scores: accuracies of single classes, for the figure of the best and worst.
    found: predictions of the headline's recognizer, see `recognitions`.

  Raises:
    UsageError: no row has a finite value.
    RunError: an image of a gallery cannot be read.
  """
  all_results = every_view(rows)
  info = cast(RunInfo, dict(run))
  class_scores = with_series(class_scores, all_results[0].series)
  parts = _Parts(all_results, info, class_scores, found, hits or {})
  context = {
    **render.assets(),
    **parts.context(),
    "warnings": _warnings(beside_their_encoder(rows), info, all_results[0]),
  }
  written = [table for table in parts.written() if table.rows]
  render.write_files(folder, written, list(parts.figures.values()))
  hues = {item.generator: item.hue for item in all_results[0].series}
  return render.write(
    folder / "index.html", _page(context, galleries, class_gains(class_scores), hues)
  )


def every_view(rows: Sequence[Row]) -> list[Results]:
  """Return the results of every protocol and encoder, the page's main one first.

  Raises:
    UsageError: no row has a finite value.
  """
  rows = beside_their_encoder(rows)
  all_results = [results for view in views(rows) if (results := results_of(rows, view)).cells]
  if not all_results:
    raise UsageError(
      "no results to report: no row has a finite value. Run the earlier stages first."
    )
  return all_results


def headline_of(results: Results) -> tuple[str | None, int | None]:
  """Return the recognizer of the ranking and its number of images."""
  quantity = next((name for name in results.recognizers() if name in RECOGNIZERS), None)
  quantity = quantity or next(iter(results.recognizers()), None)
  return quantity, shared_budget(results, quantity) if quantity else None


def _page(
  context: Mapping[str, Any],
  galleries: Sequence[Gallery],
  gains: Mapping[str, Mapping[str, float]],
  hues: Mapping[str, int],
) -> str:
  """Return the page with as many examples as fit."""

  def rendered(budget: int) -> str:
    shown, left_out = gallery.fit(galleries, budget)
    walls = gallery.walls(shown, gains, hues)
    ordered = any(wall.dataset in gains for wall in walls)
    judged = any(entry.judged for item in shown for entry in item.entries)
    return render.render(
      "page.html.jinja", **context, walls=walls, left_out=left_out, ordered=ordered, judged=judged
    )

  page = rendered(gallery.IMAGE_BUDGET)
  excess = len(page.encode()) - PAGE_BUDGET
  return page if excess <= 0 else rendered(max(0, gallery.IMAGE_BUDGET - excess))


class _Parts:
  """The parts of the page, each computed once from the rows."""

  def __init__(
    self,
    all_results: Sequence[Results],
    run: RunInfo,
    class_scores: Sequence[ClassScores],
    found: Sequence[Recognition],
    hits: Hits,
  ) -> None:
    self.all_results, self.run, self.class_scores, self.found = (
      all_results,
      run,
      class_scores,
      found,
    )
    self.hits = hits
    self.main = all_results[0]
    self.headline, self.shots = headline_of(self.main)
    self.lines: list[HeadLine] = head_lines(self.main, text_start(run))
    trained = self.headline in RECOGNIZERS
    self.merged = merged(all_results)
    self.judge = judge_of(self.merged, str(self.headline)) if trained else ""
    self.agreements = agreements(self.merged, self.judge) if trained else ()
    own = trained and self.judge != self.headline
    self.own_agreements = agreements(self.main, str(self.headline)) if own else ()
    self.cross = cross_agreements(all_results)
    self.costs, self.settings = costs_of(run, self.main), settings_of(run)
    self.duels, self.ranked = self._duels_and_ranks()
    self.counts = class_counts(found)
    self.figures = page_figures(
      self.main,
      run,
      self.agreements,
      self.cross,
      class_scores,
      found,
      self.ranked,
      self.costs,
      self.settings,
      self.scaling,
    )

  def _duels_and_ranks(self) -> tuple[list, list[Rank]]:
    """Comparisons and ranks of the headline series, if there are two or more."""
    if self.headline is None or self.shots is None:
      return [], []
    quantity = self.headline
    series = [
      item
      for item in self.main.headline_series()
      if any(self.main.estimate(d, item, self.shots, quantity) for d in self.main.datasets)
    ]
    if len(series) < 2:
      return [], []
    compared = duels(self.main, series, self.shots, quantity, self.hits)
    return compared, ranks(self.main, series, self.shots, quantity, compared)

  @functools.cached_property
  def exchange(self) -> dict[Series, ExchangeRate]:
    """Exchange rates of the headline series in original images."""
    if self.headline is None or self.shots is None:
      return {}
    return exchange_of(self.main, self.main.headline_series(), self.shots, self.headline)

  @functools.cached_property
  def scaling(self) -> list[ScalingCurve]:
    """The power laws of accuracy over the number of images."""
    if not self.headline:
      return []
    return scaling_curves(self.main, self.main.headline_series(), self.headline)

  def ranking(self) -> tables.Table | None:
    if len(self.ranked) < 2:
      return None
    return ranking_table(
      self.main,
      self.ranked,
      self.shots or 0,
      str(self.headline),
      gain_quantity=next(iter(with_text(self.main, text_start(self.run))), ""),
      costs=self.costs,
      settings=self.settings,
      price=self.run.get("price"),
      exchange={item: exchange_words(rate) for item, rate in self.exchange.items()},
    )

  def who_beats_whom(self) -> tables.Table | None:
    return duels_table(self.duels, self.ranked[:MOST_DUELISTS]) if len(self.ranked) > 1 else None

  @functools.cached_property
  def dependence(self) -> dict[str, tables.Table | None]:
    """Agreement between encoders and between recognizers."""
    quantity = str(self.headline)
    return {
      "encoder_table": encoder_table(self.all_results, quantity)
      if len(self.all_results) > 1
      else None,
      "cross_table": cross_table(self.all_results) if len(self.all_results) > 1 else None,
      "recognizer_table": recognizer_table(self.main),
    }

  def own_agreement_table(self) -> tables.Table | None:
    """Rank correlations with the headline's recognizer, if another one tests CLER."""
    if not self.own_agreements:
      return None
    table = tables.agreement_table(self.own_agreements)
    return dataclasses.replace(table, name="rank-correlations-own-features")

  def written(self) -> list[tables.Table]:
    """Tables that are written beside the page."""
    own = [
      tables.gains_table(self.main, self.main.recognizers()),
      tables.agreement_table(self.agreements),
      self.own_agreement_table(),
      tables.cells_table(self.all_results),
      self.ranking(),
      self.who_beats_whom(),
      scaling_table(self.scaling, str(self.headline)),
      *self.dependence.values(),
    ]
    return [table for table in own if table]

  def context(self) -> dict[str, Any]:
    """Variables of the template other than the examples."""
    main, run = self.main, self.run
    cells, cells_rule = thinned_cells(self.all_results)
    taken = {(item.dataset, item.series): taken_for(item) for item in self.found}
    classes = class_data(self.class_scores, self.counts, taken)
    return {
      "run": run,
      "title": run.get("title") or "How good are these images as training data?",
      "main": main,
      "others": self.all_results[1:],
      "lines": self.lines,
      "settings": settings_words(self.all_results, run, self.found),
      "answer": words.answer(main, self.lines, self.exchange),
      "control_words": words.control_words(main),
      "agreement_words": words.agreement_words(self.agreements),
      "headline": quantity_of(self.headline) if self.headline else None,
      "budget": budget_words(self.shots) if self.shots is not None else "",
      "paired": bool(self.duels) and all(duel.paired for duel in self.duels),
      "ranking": self.ranking(),
      "duels": self.who_beats_whom(),
      "scaling": scaling_table(self.scaling, str(self.headline)),
      "gains": self._gains_table(),
      "others_table": self._views_table(),
      "figures": self.figures,
      "agreements": tables.agreement_table(self.agreements),
      "own_agreements": self.own_agreement_table(),
      "judge": quantity_of(self.judge).label if self.judge else "",
      **self.dependence,
      "fewest_cells": FEWEST_CELLS,
      "cells": cells,
      "cells_rule": cells_rule,
      "class_table": classes[0] if classes else None,
      "classes_left_out": classes[1] if classes else 0,
      "quantities": [quantity_of(name) for name in ("zero_shot", *main.quantities)],
      "config": _pretty(run.get("config", "")),
      "stages": _stages(run),
    }

  def _gains_table(self) -> tables.Table | None:
    line = next((line for line in self.lines if line.baseline == "zero-shot"), None)
    few = len(self.main.headline_series()) <= 6
    return tables.headline_table(self.main, line.quantity, line.shots) if line and few else None

  def _views_table(self) -> tables.Table | None:
    line = next((line for line in self.lines if line.baseline == "zero-shot"), None)
    if len(self.all_results) < 2 or line is None or len(self.main.headline_series()) > 6:
      return None
    return tables.views_table(self.all_results, line.quantity, line.shots)


def _warnings(rows: Sequence[Row], run: RunInfo, main: Results) -> list[str]:
  """Return the run's own warnings and warnings about missing data."""
  warnings = list(run.get("warnings", ()))
  if absent := [name for name in run.get("datasets", ()) if name not in main.datasets]:
    warnings.append(f"No result for {', '.join(absent)}: no average includes them.")
  if without := [name for name in main.datasets if name not in main.zero_shot]:
    warnings.append(f"No zero-shot baseline for {', '.join(without)}: gains are not computed.")
  if count := unreadable(rows):
    warnings.append(f"{count} rows have no finite value and are left out.")
  if empty := sum(cell.facts.get("missing_classes", 0) > 0 for cell in main.measured):
    warnings.append(
      f"Cells with classes that have no training image: {empty}. The table of all cells counts these classes."
    )
  short = [
    cell
    for cell in main.measured
    if 0 < cell.facts.get("shots_given", cell.shots) < FEWER_THAN_ASKED * cell.shots
  ]
  if short:
    worst = min(short, key=lambda cell: cell.facts["shots_given"] / cell.shots)
    warnings.append(
      f"Cells with fewer images than requested: {len(short)}, such as {number(worst.facts['shots_given'])} per class "
      f"instead of {worst.shots} ({worst.series.label} on {worst.dataset})."
    )
  return warnings


def _stages(run: RunInfo) -> tables.Table | None:
  """Return the time of each stage, with the rate of a device and device-hours if known."""
  seconds, images, devices = run.get("seconds") or {}, run.get("images") or {}, run.get("devices")
  if not seconds:
    return None
  columns = ["stage", "seconds"] + ["images"] * bool(images)
  columns += ["rate of a device"] * bool(images and devices)
  columns += ["device-hours"] * bool(devices)
  rows = []
  for stage, spent in seconds.items():
    row: list[tables.Value] = [stage, f"{spent:.1f}"]
    count = images.get(stage)
    row += [count] * bool(images)
    if images and devices:
      row.append(rate(count / spent / devices, "image") if count and spent > 0 else None)
    row += [number(spent * devices / 3600)] if devices else []
    rows.append(tuple(row))
  return tables.Table("stages", "Time and cost of each stage.", tuple(columns), tuple(rows))


def _pretty(config: str) -> str:
  """Return JSON text with indentation; other text is unchanged."""
  try:
    return json.dumps(json.loads(config), indent=2, ensure_ascii=False)
  except ValueError:
    return config
