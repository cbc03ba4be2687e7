"""New tokens against plain prompts on the demo world `shapes`, whose pentagon the small diffusion model has never seen.

  python -m genbench_jax.main --config configs/textual_inversion.py --workdir runs/inversion

A token for each class, from five original images of it: 4,000 token-steps, some minutes on two cores. Without arguments the page
shows plain prompts beside them and originals as the yardstick. What tokens are worth for the unseen class alone:
`python -m genbench_jax.zoo.textual_inversion --work runs/zoo-inversion`.

Arguments: `reference` takes the published settings (5,000 steps, end-of-text start, references squashed to 224 pixels);
`low` shrinks the references to 8 pixels and back, the paper's finding on references of low resolution.
"""

from genbench_jax.config import default_config, parse_arguments
from genbench_jax.diffusion.inversion_settings import reference_training


def get_config(text=""):
  arguments = parse_arguments(text, reference=False, low=False)
  config = default_config()
  config.datasets = ("shapes",)
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
  inversion.steps = 500
  inversion.learning_rate = 0.01
  inversion.warm_up = 20
  inversion.categories_per_device = 8
  if arguments.reference:
    inversion.update(reference_training("original"))
    inversion.templates = "simple"
  if arguments.low:
    inversion.reference_resolution = 8
  return config
