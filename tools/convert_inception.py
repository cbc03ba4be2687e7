"""Writes `pt_inception-2015-12-05-6726825d.pth`, the network of FID, as safetensors with the same names.

  python tools/convert_inception.py pt_inception-2015-12-05-6726825d.pth inception.safetensors

The file is a pickle. It is read by a reader that makes arrays and refuses everything else; nothing in it is run, and PyTorch is
not needed. The network is `gb.embed_images(images, "inception:inception.safetensors")` from then on.
"""

import sys
from pathlib import Path

from safetensors.numpy import save_file

from genbench_jax.errors import RunError
from genbench_jax.models import weights
from genbench_jax.models.inception import parameter_shapes
from genbench_jax.models.torch_archive import read_archive


def main(source: str, target: str) -> int:
  """Converts; returns the exit status."""
  wanted = weights.torch_shapes(parameter_shapes())
  try:
    found = read_archive(Path(source))
  except (OSError, RunError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  wrong = [n for n, shape in wanted.items() if n not in found or found[n].shape != shape]
  if wrong:
    print(f"error: {source} is no Inception-v3 of FID: see {wrong[0]}.", file=sys.stderr)
    return 1
  save_file({name: found[name] for name in wanted}, target)
  return 0


if __name__ == "__main__":
  if len(sys.argv) != 3:
    sys.exit(__doc__)
  sys.exit(main(*sys.argv[1:]))
