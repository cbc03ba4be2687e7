"""GenBench in full: 22 datasets, 2548 classes, five prompt strategies, up to 500 images a class.

  python -m genbench_jax.main --config configs/full.py --workdir runs/full
  python -m genbench_jax.main --config configs/full.py:mock --workdir runs/mock

6.4 million images at 512 x 512: weeks on one accelerator, days on a pod. Prepare the datasets first, see
`python -m genbench_jax.benchmark`. Leave some out with --config.datasets="('dtd','food101')".

Argument: `mock` runs the same grid on drawn stand-ins of every dataset, in its own features and splits, with the
shipped small models and few images a class. Its numbers mean nothing; it shows that every dataset goes
through every stage. Under ten minutes on two cores.
"""

from genbench_jax.benchmark.registry import known_datasets
from genbench_jax.config import default_config, parse_arguments


def get_config(text=""):
  arguments = parse_arguments(text, mock=False)
  config = default_config()
  config.datasets = known_datasets()
  config.shots = (1, 2, 4, 8, 16, 64, 128, 256, 500)
  config.generation.checkpoint = "stabilityai/stable-diffusion-2-1-base"
  config.generation.strategies = (
    "simple_template",
    "defined_template",
    "category_enhancement",
    "restrictive_description",
    "negative_prompts",
  )
  config.generation.steps = 25
  config.generation.shard_size = 2048
  config.encoder.checkpoint = "openai/clip-vit-base-patch32"
  config.encoder.batch_per_device = 256
  if arguments.mock:
    config.stand_in = 2
    config.shots = (1, 2)
    config.generation.checkpoint = "zoo/diffusion"
    config.generation.strategies = ("defined_template", "negative_prompts")
    config.generation.steps = 2
    config.generation.guidance_scale = 3.0
    config.generation.batch_per_device = 64
    config.encoder.checkpoint = "zoo/clip"
    config.scoring.resamples = 50
    config.report.gallery_images = 1
  return config
