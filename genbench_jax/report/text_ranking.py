"""The ranking of several sources and their pairwise comparisons as plain text for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.report.duels import Duel, duels
from genbench_jax.report.hits import hits_of
from genbench_jax.report.labels import budget_words
from genbench_jax.report.number_words import percent
from genbench_jax.report.page import every_view, headline_of
from genbench_jax.report.quantities import quantity_of
from genbench_jax.report.ranking import Rank, ranks
from genbench_jax.report.results import Series
from genbench_jax.report.text_table import aligned


def ranking(workdir: Path, rows: Sequence[Mapping[str, Any]]) -> str:
  """Return the sources from best to worst with pairwise comparisons; empty for one source.

  The order is that of the page: by the first recognizer, at the largest number of images that all
  sources have. Sources that can't be told apart share a place.
  """
  results = every_view(rows)[0]
  quantity, shots = headline_of(results)
  if quantity is None or shots is None:
    return ""
  series = [
    candidate
    for candidate in results.headline_series()
    if any(results.estimate(name, candidate, shots, quantity) for name in results.datasets)
  ]
  if len(series) < 2:
    return ""
  hits = hits_of(workdir, rows, results.view)
  compared = duels(results, series, shots, quantity, hits)
  ranked = ranks(results, series, shots, quantity, compared)
  head = f"Ranked by {quantity_of(quantity).label} at {budget_words(shots)}"
  return "\n\n".join(
    [f"{head}\n{_places(ranked)}", f"Pairwise differences, in points\n{_pairs(compared)}"]
  )


def _places(ranked: Sequence[Rank]) -> str:
  return aligned([[f"  {rank.place}. {_name(rank.series)}", _percent(rank)] for rank in ranked])


def _percent(rank: Rank) -> str:
  ends = rank.accuracy.interval
  interval = f" [{percent(ends[0])}, {percent(ends[1])}]" if ends else ""
  return f"{percent(rank.accuracy.value)} %{interval}"


def _pairs(compared: Sequence[Duel]) -> str:
  return "\n".join(
    f"  {_name(duel.first)} minus {_name(duel.second)}: {duel.words}; {duel.verdict}."
    for duel in compared
  )


def _name(series: Series) -> str:
  return series.label
