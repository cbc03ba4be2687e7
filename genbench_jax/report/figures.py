"""Selection of the figures for which the rows have numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from genbench_jax.report.agreement import Agreement
from genbench_jax.report.chart import Figure
from genbench_jax.report.classes import ClassScores, classes_figure
from genbench_jax.report.confusion import class_counts, confusion_figure
from genbench_jax.report.curves import curves_figure
from genbench_jax.report.gain_figures import gains_figure, originals_figure, strategies_figure
from genbench_jax.report.generators import Cost
from genbench_jax.report.headline import compared, text_start, without_text
from genbench_jax.report.quantities import RECOGNIZERS
from genbench_jax.report.ranking import Rank
from genbench_jax.report.recognitions import Recognition
from genbench_jax.report.results import Results
from genbench_jax.report.scaling import ScalingCurve, scaling_figure
from genbench_jax.report.scatter import cross_figure, metric_figure, ranks_figure
from genbench_jax.report.sweeps import front_figure, sweeps_figure

# Votes appear only in the table; curves for them would double the size of the page.
VOTES = ("topk_vote", "topk_vote_text")
UNLIKE = " Zero-shot uses the class names and this recognizer does not, so they are not directly comparable."


def page_figures(
  results: Results,
  run: Mapping[str, Any],
  found: Sequence[Agreement],
  cross: Sequence[tuple[str, str, Agreement]],
  class_scores: Sequence[ClassScores],
  recognized: Sequence[Recognition],
  ranked: Sequence[Rank],
  costs: Mapping[str, Cost],
  settings: Mapping[str, Mapping[str, Any]],
  scaling: Sequence[ScalingCurve],
) -> dict[str, Figure]:
  """Return the figures by their names in the template; figures without numbers are left out.

  Args:
    results: rows of the page's main protocol and encoder.
    run: description of the run.
    found: agreement of metrics with the recognizer that tests them.
    cross: CLER on one encoder against the probe on another.
    class_scores: accuracies of single classes.
    recognized: predictions that the recognizers stored.
    ranked: the headline series from best to worst.
    costs: generator -> cost of its images.
    settings: generator -> its settings.
    scaling: power laws through the headline series' accuracy.
  """
  quantity = next(iter(results.recognizers()), "")
  drawn = {
    **_gain_figures(results, text_start(run)),
    "sweeps": sweeps_figure(ranked, settings, quantity) if ranked else None,
    "front": front_figure(ranked, costs, quantity) if ranked else None,
    "curves": _curves(results),
    "scaling": scaling_figure(scaling, quantity),
    "metric": metric_figure(found[0]) if any(item.known for item in found) else None,
    "cross": cross_figure(cross),
    "ranks": ranks_figure(found) if any(item.known for item in found) else None,
    "classes": classes_figure(class_scores, class_counts(recognized)),
    "confusion": confusion_figure(recognized),
  }
  return {name: figure for name, figure in drawn.items() if figure}


def _gain_figures(results: Results, probe_knows_text: bool) -> dict[str, Figure | None]:
  """Compare recognizers that use text with zero-shot, and the others with original images."""
  with_text = compared(results, probe_knows_text) if results.zero_shot else []
  alone = [name for name in without_text(results, probe_knows_text) if name not in VOTES]
  against = originals_figure(results, alone) if alone else None
  unlike = [name for name in alone if name in RECOGNIZERS] if results.zero_shot else []
  gains = None
  if with_text:
    gains = gains_figure(results, with_text)
  elif unlike and not against:
    gains = gains_figure(results, unlike, UNLIKE)
  strategies = strategies_figure(results, with_text or unlike) if with_text or unlike else None
  return {"gains": gains, "originals": against, "strategies": strategies}


def _curves(results: Results) -> Figure | None:
  measured = results.recognizers()
  drawn = [name for name in measured if name not in VOTES] or measured
  return curves_figure(results, drawn) if drawn else None
