"""Write outputs of torch-fidelity's Inception-v3 with random weights, and of FID's two resize methods.

  python tools/golden_inception.py tests/data/golden_inception.npz

Requires torch, torch-fidelity and clean-fid in a separate environment. The weights (`tiny.inception_weights`)
depend only on names and shapes, so that the file contains none.
"""

import sys
import tempfile
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

from genbench_jax.zoo import tiny

SIZES = ((32, 32), (299, 299), (300, 200), (640, 480))


def without_torchvision() -> None:
  """Replace torchvision, which torch-fidelity imports for other networks."""
  for part in ("", ".datasets", ".transforms", ".transforms.functional", ".models", ".ops"):
    sys.modules.setdefault(f"torchvision{part}", MagicMock())


def random_network() -> Any:
  """Return torch-fidelity's network with the weights of `inception_weights`."""
  from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

  original = FeatureExtractorInceptionV3.load_state_dict

  def remember(module: torch.nn.Module, state: dict, *args: object) -> object:
    own = module.state_dict()
    shapes = {n: tuple(t.shape) for n, t in own.items() if "num_batches" not in n}
    drawn = {n: torch.tensor(t) for n, t in tiny.inception_weights(shapes).items()}
    counts = {n: t for n, t in own.items() if "num_batches" in n}
    return original(module, drawn | counts)

  FeatureExtractorInceptionV3.load_state_dict = remember
  with tempfile.NamedTemporaryFile(suffix=".pth") as file:
    torch.save({}, file.name)
    wanted = ["2048", "logits_unbiased"]
    return FeatureExtractorInceptionV3("x", wanted, feature_extractor_weights_path=file.name)


def main(path: str) -> None:
  without_torchvision()
  from cleanfid.resize import make_resizer
  from torch_fidelity.interpolate_compat_tensorflow import (
    interpolate_bilinear_2d_like_tensorflow1x,
  )

  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (2, 299, 299, 3), np.uint8)
  images[1] = np.linspace(0, 255, 299, dtype=np.uint8)[:, None, None]
  with torch.no_grad():
    features, logits = random_network()(torch.tensor(images.transpose(0, 3, 1, 2)))
  arrays = {"features": features.numpy(), "logits": logits.numpy()}
  clean = make_resizer("PIL", False, "bicubic", (299, 299))
  for height, width in SIZES:
    small = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    stacked = torch.tensor(small.transpose(2, 0, 1)[None].astype(np.float32))
    legacy = interpolate_bilinear_2d_like_tensorflow1x(stacked, (299, 299), align_corners=False)
    # Every seventh pixel is as informative as all of them.
    arrays[f"clean/{height}x{width}"] = clean(small)[::7, ::7]
    arrays[f"legacy/{height}x{width}"] = legacy[0].numpy().transpose(1, 2, 0)[::7, ::7]
  np.savez_compressed(path, **arrays)


if __name__ == "__main__":
  main(sys.argv[1])
