"""Convert `pt_inception-2015-12-05-6726825d.pth`, the network of FID, to safetensors with the same names.

  python tools/convert_inception.py pt_inception-2015-12-05-6726825d.pth inception.safetensors

The source is a pickle. A reader that makes arrays and rejects everything else reads it, without running code
and without PyTorch. Then use the network as `gb.embed_images(images, "inception:inception.safetensors")`.
"""

import sys
from pathlib import Path

from safetensors.numpy import save_file

from genbench_jax.errors import RunError
from genbench_jax.models import weights
from genbench_jax.models.inception import parameter_shapes
from genbench_jax.models.torch_archive import read_archive


def main(source: str, target: str) -> int:
  """Convert the file; return the exit status."""
  wanted = weights.torch_shapes(parameter_shapes())
  try:
    found = read_archive(Path(source))
  except (OSError, RunError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  wrong = [n for n, shape in wanted.items() if n not in found or found[n].shape != shape]
  if wrong:
    print(
      f"error: {source} is not the Inception-v3 of FID: {wrong[0]} is missing or has another shape.",
      file=sys.stderr,
    )
    return 1
  save_file({name: found[name] for name in wanted}, target)
  return 0


if __name__ == "__main__":
  if len(sys.argv) != 3:
    sys.exit(__doc__)
  sys.exit(main(*sys.argv[1:]))
