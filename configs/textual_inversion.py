"""Learned tokens versus plain prompts on the demo world `signs`, which the small models were not trained on.

  python -m genbench_jax.main --config configs/textual_inversion.py --workdir runs/inversion

Learns a token for each of the eight signs from five original images; original images are the baseline. Takes
about five minutes on two cores. Expected at 16 images per class: a CLER of 0.10 with plain prompts and 0.97
with tokens, and linear-probe accuracies of 0.13 and 0.95.

Arguments: `low` reduces the references to 4 pixels and scales them back, for the paper's result on
low-resolution references; `retrieval` also learns tokens from five retrieved images; `reference` uses the
published settings (5,000 steps, initialized with end-of-text, references squashed to 224 pixels). They can be
combined.
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
