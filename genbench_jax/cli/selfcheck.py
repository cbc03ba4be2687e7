"""Check the setup: compare zero-shot accuracy with published values.

    genbench selfcheck                       # small CLIP on its datasets, CLIP ViT-B/32 on prepared ones
    genbench selfcheck cifar10 dtd --images 2000
    genbench selfcheck --checkpoint ~/models/clip-vit-base-patch32

The values are CLIP_benchmark's for OpenAI's CLIP ViT-B/32. A value in its band means that data,
labels, preprocessing, tokenizer and weights are right. Exit status: 0 if all values are in their
bands, 1 if one is not, 2 for a usage error.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from genbench_jax.cli.argument_types import positive
from genbench_jax.cli.subcommand import subcommand
from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.report.text_table import aligned
from genbench_jax.runtime.progress import say, show

if TYPE_CHECKING:
  from genbench_jax.pipeline.selfcheck import Check


def _arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("datasets", nargs="*", metavar="NAME", help="default: all that are ready")
  parser.add_argument("--checkpoint", default="", help="OpenAI's CLIP ViT-B/32: folder or hub id")
  parser.add_argument(
    "--images", type=positive, default=0, help="maximum number of test images per dataset"
  )
  parser.add_argument("--data-dir", default=None, help="TFDS's data folder")


@subcommand("selfcheck", _arguments, __doc__)
def main(options: argparse.Namespace) -> int:
  """Print the table; return 1 if a value is outside its band."""
  from genbench_jax.runtime.jax_start import start_jax

  start_jax()
  from genbench_jax.embedding.settings import PUBLISHED_CLIP, SHIPPED_CLIP
  from genbench_jax.pipeline.selfcheck import check_datasets

  own, published = _chosen(options)
  if not published and not options.datasets:
    say(
      "no dataset with a published value is ready; `genbench benchmark prepare cifar10` prepares one."
      " Checking only the small models of the package on their datasets."
    )
  checks: "list[Check]" = []
  for names, checkpoint in ((own, SHIPPED_CLIP), (published, options.checkpoint or PUBLISHED_CLIP)):
    if names:
      checks += check_datasets(names, checkpoint, options.data_dir, options.images)
  show(_table(checks))
  return 0 if all(check.passes for check in checks) else 1


def _chosen(options: argparse.Namespace) -> tuple[list[str], list[str]]:
  """Return the datasets to check, those of the small models first."""
  from genbench_jax.benchmark.registry import dataset_spec
  from genbench_jax.pipeline.selfcheck import OWN, PUBLISHED, ready_datasets

  if not options.datasets:
    return list(OWN), ready_datasets(options.data_dir)
  names = [dataset_spec(name).name for name in options.datasets]
  for name in names:
    if name not in OWN and name not in PUBLISHED:
      raise unknown_name("dataset with a published value", name, [*OWN, *PUBLISHED])
  ready = {*OWN, *ready_datasets(options.data_dir)}
  if missing := [name for name in names if name not in ready]:
    raise UsageError(
      f"{', '.join(missing)} not ready with real data. `genbench benchmark` says what to do."
    )
  return [n for n in names if n in OWN], [n for n in names if n in PUBLISHED]


def _table(checks: "Sequence[Check]") -> str:
  lines = [("dataset", "images", "measured", "published", "band", "")]
  lines += [
    (
      check.dataset,
      str(check.images),
      f"{check.measured:.1f} %",
      f"{check.published:.1f} %",
      f"± {check.band + check.error:.1f}",
      "right" if check.passes else "NOT RIGHT",
    )
    for check in checks
  ]
  return aligned(lines)


if __name__ == "__main__":
  from genbench_jax.runtime.stopping import leave

  leave(main(sys.argv[1:]))
