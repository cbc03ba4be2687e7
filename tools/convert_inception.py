"""Convert `pt_inception-2015-12-05-6726825d.pth`, the network of FID, to safetensors with the same names.

  python tools/convert_inception.py pt_inception-2015-12-05-6726825d.pth inception.safetensors

The source is a pickle. A reader that makes arrays and rejects everything else reads it, without running code
and without PyTorch. Then use the network as `gb.embed_images(images, "inception:inception.safetensors")`.
A source with another SHA-256 than the published file is rejected, unless `--any` is given.
"""

import hashlib
import sys
from pathlib import Path

from safetensors.numpy import save_file

from genbench_jax.errors import RunError
from genbench_jax.models import weights
from genbench_jax.models.inception import parameter_shapes
from genbench_jax.models.torch_archive import read_archive

# Of the file that pytorch-fid and torch-fidelity publish.
PUBLISHED = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


def main(source: str, target: str, any_source: bool = False) -> int:
  """Convert the file; return the exit status.

  Args:
    source: the published archive.
    target: safetensors file to write.
    any_source: accept an archive with another SHA-256.
  """
  wanted = weights.torch_shapes(parameter_shapes())
  try:
    digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    if digest != PUBLISHED and not any_source:
      raise RunError(
        f"{source} has SHA-256 {digest}, the published file {PUBLISHED}; --any accepts it."
      )
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
  files = [word for word in sys.argv[1:] if word != "--any"]
  if len(files) != 2:
    sys.exit(__doc__)
  sys.exit(main(*files, any_source="--any" in sys.argv))
