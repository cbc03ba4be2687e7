"""Synthetic rows of many generators, encoders and recognizers, and the run's description."""

import json
import math

import numpy as np

# Name -> (quality in 0..1, guidance, steps, seconds per image). The first four are a sweep of one model.
GENERATORS = {
  "sd21-g1.5": (0.35, 1.5, 25, 2.4),
  "sd21-g3": (0.62, 3.0, 25, 2.4),
  "sd21-g7.5": (0.55, 7.5, 25, 2.4),
  "sd21-g7.5-s10": (0.42, 7.5, 10, 1.0),
  "sd-turbo": (0.38, 0.0, 1, 0.12),
  "lcm": (0.45, 1.0, 4, 0.42),
  "sdxl": (0.7, 5.0, 30, 9.5),
  "sdxl-lightning": (0.6, 0.0, 4, 1.4),
}
WORLDS = {
  "pets": (0.88, 0.05),
  "textures": (0.45, 0.18),
  "aircraft": (0.22, 0.3),
  "flowers": (0.66, 0.2),
}
ENCODERS = ("openai/clip-vit-base-patch32", "google/siglip2-base-patch16-224")
SHOTS = (1, 4, 16, 64)
TEST_IMAGES = 1200
RECOGNIZERS = {
  "linear_probe": 1.0,
  "from_scratch": 0.8,
  "fine_tune": 1.1,
  "cler": 0.6,
  "cler_image": 0.7,
}


def _row(key, quantity, value, half, encoder, **more):
  dataset, source, generator, strategy, shots, seed = key
  return {
    "dataset": dataset, "source": source, "generator": generator, "strategy": strategy, "shots": shots,
    "seed": seed, "protocol": "strict", "encoder": encoder, "quantity": quantity, "value": value,
    "ci_low": value - half, "ci_high": value + half, "n_external": 20 * shots, "n_test": TEST_IMAGES,
    "missing_classes": 0, "seconds": 0.5, "n_real": 0, **more,
  }  # fmt: skip


def _cell(key, encoder, base, lift, quality, random):
  """Return all quantities of a cell. `from_scratch` uses no encoder; metrics are quality plus noise."""
  shots = key[4]
  curve = 1 - 1.3 / (1 + math.sqrt(shots))
  for name, share in RECOGNIZERS.items():
    start = base if name != "from_scratch" else 0.1
    value = float(
      np.clip(
        start + lift * share * (curve * (0.4 + quality) - 0.25) + 0.006 * random.normal(),
        0.02,
        0.995,
      )
    )
    half = 1.96 * math.sqrt(value * (1 - value) / TEST_IMAGES)
    wide = {"generator_low": value - 1.5 * half, "generator_high": value + 1.5 * half}
    if name != "from_scratch" or encoder == ENCODERS[0]:
      yield _row(key, name, value, half, encoder, **wide)
  floor = 0.4 / shots
  yield _row(
    key, "fid", floor + 0.6 * (1 - quality) + 0.03 * random.normal(), 0.02, encoder, floor=floor
  )
  yield _row(key, "vendi", 4 + 6 * quality + 0.2 * random.normal(), 0.3, encoder)
  yield _row(key, "clip_score", 27 + 0.5 * random.normal(), 0.2, encoder)
  yield _row(key, "class_chamfer", 0.8 - 0.3 * quality + 0.01 * random.normal(), 0.01, encoder)


def many_rows(
  datasets=tuple(WORLDS), generators=tuple(GENERATORS), encoders=ENCODERS, seeds=(0, 1)
):
  """Return rows of `generators` and the originals on `datasets`, for each encoder and seed."""
  random = np.random.default_rng(5)
  rows = []
  for dataset in datasets:
    base, lift = WORLDS[dataset]
    for encoder in encoders:
      zero = base + 0.03 * (encoder != ENCODERS[0])
      rows.append(_row((dataset, "", "", "", 0, 0), "zero_shot", zero, 0.015, encoder))
      for seed in seeds:
        for shots in SHOTS:
          for name in generators:
            key = (dataset, "generative", name, "defined_template", shots, seed)
            rows += _cell(key, encoder, zero, lift, GENERATORS[name][0], random)
          rows += _cell(
            (dataset, "original", "", "", shots, seed), encoder, zero, lift, 0.95, random
          )
  return rows


def many_run(generators=tuple(GENERATORS), datasets=tuple(WORLDS)):
  """Return the description of the run: settings and costs of the generators."""
  table = {
    name: {"checkpoint": name.split("-")[0], "guidance_scale": GENERATORS[name][1], "steps": GENERATORS[name][2]}
    for name in generators
  }  # fmt: skip
  costs = {
    f"{dataset} generative-{name}-defined_template-seed0": {
      "images": 1280, "seconds": 1280 * GENERATORS[name][3] / 4 + 60, "chips": 4,
      "warm_images": 1200, "warm_seconds": 1200 * GENERATORS[name][3] / 4,
    }
    for dataset in datasets for name in generators
  }  # fmt: skip
  config = {
    "sources": ["generative", "original"],
    "generators": table,
    "recognition": {"language_init": True},
  }
  return {
    "title": "Which generator makes the best training images?",
    "config": json.dumps(config),
    "costs": costs,
    "price": 1.2,
    "device": "4 x TPU v5 lite",
    "devices": 4,
    "seconds": {"images": 5000.0, "score": 40.0},
    "versions": {"genbench_jax": "1.0", "jax": "0.10.2"},
  }
