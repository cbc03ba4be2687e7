"""Test which metrics detect which flaws of images.

    genbench sanity                          # on the shapes of the demo
    genbench sanity --features FILE          # on your own features

FILE is .npz or .safetensors with `features` [n, d] and `labels` [n] and, for metrics that need
text, `text_features` [k, d]; an embedding set of a work folder works. `metrics.sanity` defines how
images are damaged and which changes count as detected.
"""

import argparse
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from genbench_jax.cli.subcommand import subcommand
from genbench_jax.embedding.settings import SHIPPED_CLIP
from genbench_jax.errors import UsageError
from genbench_jax.metrics.sanity import DIVISIONS, VERDICTS, Movement, checked, movements
from genbench_jax.metrics.shifts import SHIFTS, Features
from genbench_jax.runtime.npz import read_npz
from genbench_jax.runtime.progress import show
from genbench_jax.runtime.stopping import leave
from genbench_jax.store import files
from genbench_jax.store.reading import regular

DEMO_WORLD = "shapes"
_MOST_BYTES = 1 << 34
_PICTURES = (".png", ".pdf", ".svg", ".jpg")


def read_features(path: Path) -> Features:
  """Return features from .npz or .safetensors. Nothing in the file is executed.

  Raises:
    UsageError: the file has another format or lacks an array.
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
      return load_file(regular(path))
    return read_npz(path, _MOST_BYTES)
  except (OSError, ValueError, TypeError, SafetensorError) as error:
    raise UsageError(f"{path} cannot be read as .npz or .safetensors: {error}") from error


def demo_features() -> Features:
  """Return the features of the demo's original shapes, embedded by the small CLIP."""
  from genbench_jax.benchmark.worlds import world_example, world_size, world_specs
  from genbench_jax.embedding.embedder import text_prototypes
  from genbench_jax.embedding.library import embed_images
  from genbench_jax.models.clip import load_clip

  spec = world_specs()[DEMO_WORLD]
  examples = [world_example(DEMO_WORLD, "train", i) for i in range(world_size(DEMO_WORLD, "train"))]
  features = embed_images([example.image for example in examples], SHIPPED_CLIP)
  text = text_prototypes(load_clip(SHIPPED_CLIP), spec.names, spec.templates)
  return checked(features, [example.label for example in examples], text)


def table(found: Mapping[str, Mapping[str, Movement]]) -> str:
  """Return one line per metric and one column per flaw: the value with the flaw and the verdict."""
  width = max(len(name) for name in found) + 2
  lines = [" " * width + f"{'clean':>10}" + "".join(f"{name:>16}  " for name in SHIFTS).rstrip()]
  for metric, by_shift in found.items():
    clean = next(iter(by_shift.values())).before
    cells = (f"{move.after:>12.4g} {VERDICTS[move.verdict]:<5}" for move in by_shift.values())
    lines.append((f"{metric:<{width}}{clean:>10.4g}" + "".join(cells)).rstrip())
  lines.append("right: worse, as expected; WRONG: better; -: no significant change")
  return "\n".join(lines)


def picture(found: Mapping[str, Mapping[str, Movement]], path: Path) -> None:
  """Draw the table as a grid: blue is worse, as expected; red is better; white is no change."""
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
  drawn = io.BytesIO()
  figure.savefig(drawn, dpi=150, format=path.suffix[1:])
  pyplot.close(figure)
  files.write_bytes(path, drawn.getvalue())


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--features", type=Path, help=".npz or .safetensors; default: features of the demo"
  )
  parser.add_argument("--picture", type=Path, default=Path("sanity.png"), help="output file")
  parser.add_argument(
    "--divisions",
    type=int,
    default=DIVISIONS,
    help="number of random divisions of the images, at least 2",
  )
  parser.add_argument("--seed", type=int, default=0)


@subcommand("sanity", _arguments, __doc__)
def main(options: argparse.Namespace) -> None:
  """Print the table and write the figure.

  Raises:
    UsageError: `--divisions` is less than 2, or the picture has another format.
  """
  if options.divisions < 2:
    raise UsageError("--divisions must be at least 2.")
  if options.picture.suffix not in _PICTURES:
    raise UsageError(
      f"--picture is {str(options.picture)!r}, expected one of {', '.join(_PICTURES)}."
    )
  given = read_features(options.features) if options.features else demo_features()
  found = movements(given, options.divisions, options.seed)
  picture(found, options.picture)
  show(table(found))
  show(f"picture: {options.picture}")


if __name__ == "__main__":
  leave(main())
