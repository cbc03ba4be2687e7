"""New tokens against plain prompts on the demo world `signs`, which the small models have never seen, nor read a name of.

  python -m genbench_jax.main --config configs/textual_inversion.py --workdir runs/inversion

A token for each of the eight signs, from five original images of it; originals are the yardstick. About five minutes on two cores.
Expect of 16 images a class a CLER of 0.10 by plain prompts and 0.97 by tokens, and a linear probe at 0.13 and 0.95.

Arguments: `low` shrinks the references to 4 pixels and back, the paper's finding on references of low resolution;
`retrieval` learns tokens from five retrieved images beside those from originals; `reference` takes the published
settings (5,000 steps, end-of-text start, references squashed to 224 pixels). They can be combined.
"""

from genbench_jax.config import default_config, parse_arguments
from genbench_jax.diffusion.inversion.settings import reference_training


def get_config(text=""):
  arguments = parse_arguments(text, reference=False, low=False, retrieval=False)
  config = default_config()
  config.datasets = ("signs",)
  config.sources = ("generative", "original")
  config.shots = (1, 4, 16)
  config.generation.strategies = ("defined_template",)
  config.generation.steps = 8
  config.generation.guidance_scale = 5.0
  config.generation.batch_per_device = 32
  config.generation.shard_size = 64
  config.encoder.batch_per_device = 128
  config.recognition.language_init = False
  inversion = config.textual_inversion
  inversion.references = ("", "original")
  inversion.shots = 5
  inversion.steps = 300
  inversion.learning_rate = 0.005
  inversion.warm_up = 20
  inversion.flip = True
  inversion.categories_per_device = 8
  if arguments.retrieval:
    config.sources = (*config.sources, "retrieval")
    config.retrieval.pool = "zoo/pool"
    config.retrieval.duplicate_threshold = config.retrieval.leak_threshold = 0.998
    inversion.references = ("", "original", "retrieval")
  if arguments.reference:
    inversion.update(reference_training("original"))
    inversion.templates = "simple"
  if arguments.low:
    inversion.reference_resolution = 4
  return config
