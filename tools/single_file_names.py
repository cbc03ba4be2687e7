"""Write tests/data/single_file_names.json.gz: original name -> diffusers' name of every tensor of published U-Nets.

  torchenv/bin/pip install torch==2.13.0 diffusers==0.42.0
  PYTHONPATH=. python -c "import tools.single_file_names as names; names.propose('ours.json')"      # with JAX
  PYTHONPATH=. torchenv/bin/python tools/single_file_names.py ours.json                             # with PyTorch

The original code publishes no list of names. So ours are proposed first, and stored only if diffusers' own
converter maps them to exactly the names that it expects.
"""

import gzip
import json
import sys
from pathlib import Path

DATA = Path(__file__).parent.parent / "tests" / "data"
MODELS = ("stable-diffusion-1.5", "stable-diffusion-2.1", "sdxl-base-1.0")


def published() -> dict:
  return json.loads(gzip.decompress((DATA / "state_dict_keys.json.gz").read_bytes()))


def propose(path: str) -> None:
  """Write our proposed names to a file."""
  from genbench_jax.models.original_unet import unet_names

  names = {model: unet_names(set(published()[f"{model}/unet"]["shapes"])) for model in MODELS}
  Path(path).write_text(json.dumps(names))


def main() -> None:
  import diffusers
  import torch
  from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

  proposed = json.loads(Path(sys.argv[1]).read_text())
  for model, names in proposed.items():
    with torch.device("meta"):
      config = dict(
        diffusers.UNet2DConditionModel.from_config(published()[f"{model}/unet"]["config"]).config
      )
    tensors = {f"model.diffusion_model.{name}": (name,) for name in names}
    converted = convert_ldm_unet_checkpoint(tensors, config)
    assert {name: tensor[0] for name, tensor in converted.items()} == {
      ours: theirs for theirs, ours in names.items()
    }, model
  text = json.dumps(proposed, sort_keys=True).encode()
  (DATA / "single_file_names.json.gz").write_bytes(gzip.compress(text, mtime=0))
  print({model: len(names) for model, names in proposed.items()})


if __name__ == "__main__":
  main()
