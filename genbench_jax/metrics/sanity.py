"""Which metric moves the right way when images become worse training data in a known way?

  python -m genbench_jax.metrics.sanity                          # on the shapes of the demo
  python -m genbench_jax.metrics.sanity --features FILE          # on your own features

FILE is .npz or .safetensors with `features` [n, d] and `labels` [n], and, for the metrics that need texts, `text_features`
[k, d]; an embedding set of a work folder will do. Half of each class stands for the external images, half for the real
ones; the external half is then spoilt in seven ways, over several divisions. A metric moves the right way if it gets worse by
more than the divisions make it vary.
"""

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genbench_jax.errors import RunError, UsageError
from genbench_jax.metrics.cler import cler
from genbench_jax.metrics.clip_score import clip_score
from genbench_jax.metrics.frechet import frechet_distance
from genbench_jax.metrics.inputs import check_finite, feature_rows, label_rows
from genbench_jax.metrics.kernels import cmmd, kernel_distance
from genbench_jax.metrics.manifold import precision_recall_density_coverage
from genbench_jax.metrics.proxy import proxy_a_distance
from genbench_jax.metrics.shifts import SHIFTS, Features, rows_by_class, unit
from genbench_jax.metrics.vendi import vendi

NEED_TEXT = ("zero_shot", "cler", "cler_gain", "topk_vote_text", "clip_score")
LOWER_IS_BETTER = ("fid", "kid", "cmmd", "proxy_a_distance")
DIVISIONS = 5
FEWEST_A_CLASS = 8
# In standard errors: with five divisions chance goes that far once in sixty times.
MOVES = 4.0
VERDICTS = {1: "right", 0: "-", -1: "WRONG"}
DEMO_WORLD, DEMO_CHECKPOINT = "shapes", "zoo/clip"


@dataclasses.dataclass(frozen=True)
class Movement:
  """How a metric changes under a shift: values before and after, mean over the divisions, and how it varies.

  Attributes:
    before, after: mean values.
    worsening: mean change towards the worse, over its standard error; infinite if it never varies.
    verdict: 1 it got worse, as it should; 0 no change to speak of; -1 it got better.
  """

  before: float
  after: float
  worsening: float
  verdict: int


def measure_all(external: Features, real: Features) -> dict[str, float]:
  """Every metric of the external images against the real ones. PAD is taken from one seed."""
  x, y = external.features, real.features
  found = {
    **_recognition(external, real),
    "fid": frechet_distance(x, y),
    "kid": kernel_distance(x, y),
    "cmmd": cmmd(x, y),
    **precision_recall_density_coverage(y, x),
    "vendi": vendi(x),
    "proxy_a_distance": proxy_a_distance(x, y),
  }
  if external.text is not None:
    found["clip_score"] = clip_score(x, external.text, external.labels)
  return found


def _recognition(external: Features, real: Features) -> dict[str, float]:
  """The scores of CLER; without texts only those that need none."""
  has_text = external.text is not None
  # Any prototypes will do for the scores that don't use them.
  text = (
    external.text if has_text else np.ones((int(real.labels.max()) + 1, real.features.shape[1]))
  )
  found = cler(external.features, external.labels, text, real.features, real.labels)
  found["cler_gain"] = found["cler"] - found["zero_shot"]
  return {name: value for name, value in found.items() if has_text or name not in NEED_TEXT}


def movements(
  given: Features, divisions: int = DIVISIONS, seed: int = 0
) -> dict[str, dict[str, Movement]]:
  """By metric and shift, how the metric moves."""
  values: dict[str, list[dict[str, float]]] = {name: [] for name in ("clean", *SHIFTS)}
  for division in range(divisions):
    random = np.random.default_rng([seed, division])
    external, real = _halves(given, random)
    values["clean"].append(measure_all(external, real))
    for name, shift in SHIFTS.items():
      values[name].append(measure_all(shift(external, random), real))
  return {
    metric: {name: _movement(metric, values["clean"], values[name]) for name in SHIFTS}
    for metric in values["clean"][0]
    if metric != "zero_shot"  # it has nothing to do with the external images
  }


def _halves(given: Features, random: np.random.Generator) -> tuple[Features, Features]:
  shuffled = [random.permutation(own) for own in rows_by_class(given.labels)]
  parts = ([own[: len(own) // 2] for own in shuffled], [own[len(own) // 2 :] for own in shuffled])
  external, real = (given.take(np.concatenate(part)) for part in parts)
  return external, real


def _movement(
  metric: str, clean: list[dict[str, float]], shifted: list[dict[str, float]]
) -> Movement:
  before, after = (np.array([values[metric] for values in each]) for each in (clean, shifted))
  worse = (after - before) * (1 if metric in LOWER_IS_BETTER else -1)
  error = worse.std(ddof=1) / np.sqrt(len(worse))
  # Changes beyond the 8th digit are rounding.
  mean = worse.mean() if abs(worse.mean()) > 1e-8 * np.abs(before).max() else 0.0
  worsening = mean / error if error > 0 else np.sign(mean) * np.inf if mean else 0.0
  verdict = int(np.sign(mean)) if abs(worsening) > MOVES else 0
  return Movement(float(before.mean()), float(after.mean()), float(worsening), verdict)


def checked(features: Any, labels: Any, text: Any = None) -> Features:
  """Features to run on, made unit-norm.

  Raises:
    UsageError: arrays that do not fit, a single class, or a class with fewer than 8 images.
  """
  rows = np.asarray(feature_rows("features", features), np.float32)
  check_finite("features", rows)
  labels = np.asarray(labels)
  if labels.ndim != 1 or labels.dtype.kind not in "iu" or not labels.size:
    raise UsageError(f"labels must be class indices, got {labels.dtype} of shape {labels.shape}")
  classes = (
    int(labels.max()) + 1
    if text is None
    else len(feature_rows("text_features", text, rows.shape[1]))
  )
  labels = label_rows("labels", labels, len(rows), classes)
  fewest = min(len(own) for own in rows_by_class(labels))
  if len(np.unique(labels)) < 2 or fewest < FEWEST_A_CLASS:
    raise UsageError(
      f"needs 2 classes or more with at least {FEWEST_A_CLASS} images each, the smallest has {fewest}"
    )
  return Features(unit(rows), labels, None if text is None else np.asarray(text, np.float32))


def read_features(path: Path) -> Features:
  """Features from .npz or .safetensors. Nothing in the file is executed.

  Raises:
    UsageError: not such a file, or without the arrays.
  """
  arrays = _read_arrays(path)
  if missing := [name for name in ("features", "labels") if name not in arrays]:
    raise UsageError(f"{path} has no array {' or '.join(missing)}; it has {', '.join(arrays)}")
  if "valid" in arrays and len(arrays["valid"]) == len(arrays["labels"]):
    kept = np.asarray(arrays["valid"], bool)
    arrays = {**arrays, "features": arrays["features"][kept], "labels": arrays["labels"][kept]}
  return checked(arrays["features"], arrays["labels"], arrays.get("text_features"))


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
  from safetensors import SafetensorError
  from safetensors.numpy import load_file

  try:
    if path.suffix == ".safetensors":
      return load_file(path)
    with np.load(path, allow_pickle=False) as file:
      return {name: file[name] for name in file.files}
  except (OSError, ValueError, AttributeError, SafetensorError) as error:
    raise UsageError(f"{path} can't be read as .npz or .safetensors: {error}") from error


def demo_features() -> Features:
  """The pool of original shapes of the demo, embedded by the CLIP that ships with the package."""
  from genbench_jax.benchmark.worlds import world_example, world_size, world_specs
  from genbench_jax.embedding.embedder import text_prototypes
  from genbench_jax.embedding.library import embed_images
  from genbench_jax.models.clip import load_clip

  spec = world_specs()[DEMO_WORLD]
  examples = [world_example(DEMO_WORLD, "train", i) for i in range(world_size(DEMO_WORLD, "train"))]
  features = embed_images([example.image for example in examples], DEMO_CHECKPOINT)
  text = text_prototypes(load_clip(DEMO_CHECKPOINT), spec.names, spec.templates)
  return checked(features, [example.label for example in examples], text)


def table(found: Mapping[str, Mapping[str, Movement]]) -> str:
  """One line a metric, one column a shift: the value after it, and the verdict."""
  width = max(len(name) for name in found) + 2
  lines = [" " * width + f"{'clean':>10}" + "".join(f"{name:>16}  " for name in SHIFTS).rstrip()]
  for metric, by_shift in found.items():
    clean = next(iter(by_shift.values())).before
    cells = (f"{move.after:>12.4g} {VERDICTS[move.verdict]:<5}" for move in by_shift.values())
    lines.append((f"{metric:<{width}}{clean:>10.4g}" + "".join(cells)).rstrip())
  lines.append("right: it got worse, as it should; WRONG: it got better; -: it did not notice")
  return "\n".join(lines)


def picture(found: Mapping[str, Mapping[str, Movement]], path: Path) -> None:
  """The same as a colored grid: blue worse, as it should; red better; white no change."""
  from matplotlib import pyplot

  grid = np.array([[np.clip(m.worsening, -10, 10) for m in row.values()] for row in found.values()])
  figure, axes = pyplot.subplots(figsize=(8, 0.4 * len(found) + 2), layout="constrained")
  image = axes.imshow(grid, cmap="RdBu", vmin=-10, vmax=10, aspect="auto")
  for y, row in enumerate(found.values()):
    for x, move in enumerate(row.values()):
      color = "white" if abs(grid[y, x]) > 6 else "black"
      axes.text(x, y, f"{move.after:.3g}", ha="center", va="center", color=color, fontsize=8)
  labels = [f"{metric}  ({next(iter(row.values())).before:.3g})" for metric, row in found.items()]
  axes.set_yticks(range(len(found)), labels)
  axes.set_xticks(
    range(len(SHIFTS)), [name.replace("_", " ") for name in SHIFTS], rotation=30, ha="right"
  )
  axes.set_title("Value after each shift (clean value beside the name)")
  figure.colorbar(image, label="worsening over its standard error")
  figure.savefig(path, dpi=150)
  pyplot.close(figure)


def main(arguments: list[str] | None = None) -> int:
  """The command; exit status 2 where what was given can't be used, 1 where the run failed."""
  parser = argparse.ArgumentParser(
    prog="python -m genbench_jax.metrics.sanity",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--features", type=Path, help=".npz or .safetensors; default: the demo's")
  parser.add_argument("--picture", type=Path, default=Path("sanity.png"), help="file to write")
  parser.add_argument(
    "--divisions", type=int, default=DIVISIONS, help="ways to divide the images, 2 or more"
  )
  parser.add_argument("--seed", type=int, default=0)
  options = parser.parse_args(arguments)
  if options.divisions < 2:
    parser.error("--divisions must be at least 2")
  try:
    given = read_features(options.features) if options.features else demo_features()
    found = movements(given, options.divisions, options.seed)
    picture(found, options.picture)
  except (UsageError, RunError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2 if isinstance(error, UsageError) else 1
  print(table(found))
  print(f"picture: {options.picture}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
