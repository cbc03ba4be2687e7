"""Synthetic rows with the shape of real ones."""

import io
import math
import zlib

import pytest

STRATEGIES = (
  "simple_template",
  "defined_template",
  "category_enhancement",
  "restrictive_description",
  "negative_prompts",
)
# Zero-shot accuracy, and gains of generated and original images with many shots.
WORLDS = {
  "digits": (0.965, 0.012, 0.022),
  "digits_hard": (0.44, 0.11, 0.31),
  "shapes": (0.82, 0.05, 0.12),
}
TEST_IMAGES = 400


def _noise(*key):
  """Return a number in [-1, 1] that depends only on the key."""
  return zlib.crc32(repr(key).encode()) / 2**31 - 1


def _row(dataset, source, strategy, shots, quantity, value, interval=True, seed=0):
  half = 1.96 * math.sqrt(max(value * (1 - value), 1e-4) / TEST_IMAGES) if interval else None
  return {
    "dataset": dataset, "source": source, "strategy": strategy, "shots": shots, "seed": seed,
    "protocol": "strict", "encoder": "zoo/clip", "quantity": quantity, "value": value,
    "ci_low": None if half is None else value - half, "ci_high": None if half is None else value + half,
    "n_external": 10 * shots, "n_test": TEST_IMAGES, "missing_classes": 0, "seconds": 0.5,
  }  # fmt: skip


def _cell(dataset, source, strategy, shots, base, lift, full=False):
  """Return all quantities of a cell: a saturating curve in shots, and metrics that follow the probe."""
  key = (dataset, source, strategy, shots)
  trained = min(0.999, base + lift * (1 - 1.6 / (1 + shots)) + 0.012 * _noise(*key))
  cler = min(0.999, base + 0.6 * (trained - base) + 0.006 * _noise("cler", *key))
  yield _row(*key, "linear_probe", trained)
  yield _row(*key, "cler", cler)
  yield _row(*key, "cler_gain", cler - base, interval=False) | {
    "ci_low": cler - base - 0.02,
    "ci_high": cler - base + 0.02,
  }
  yield _row(*key, "cler_image", min(0.999, cler - 0.05))
  yield _row(*key, "topk_vote", min(0.999, cler - 0.08 + 0.02 * _noise("vote", *key)))
  yield _row(
    *key, "clip_score", 28 + 10 * (trained - base) + 0.3 * _noise("clip", *key), interval=False
  )
  yield _row(*key, "fid", 0.4 - 1.2 * (trained - base) + 0.03 * _noise("fid", *key), interval=False)
  if full:
    for name in ("topk_vote_text", "coop", "vpt"):
      yield _row(*key, name, min(0.999, trained + 0.02 * _noise(name, *key)))
    for name in ("kid", "cmmd", "density", "coverage", "vendi", "proxy_a_distance"):
      low, high = 0.4, 0.6
      row = _row(*key, name, 0.5 + 0.1 * _noise(name, *key), interval=False)
      yield row | {"ci_low": low, "ci_high": high}
  yield _row(*key, "precision", 0.5 + 0.3 * _noise("precision", *key), interval=False)
  yield _row(*key, "recall", 0.5 + (trained - base) + 0.05 * _noise("recall", *key), interval=False)


def make_rows(worlds, sources, shots, full=False):
  """Return rows; `sources` maps a source to its strategies, and every CLER has a control."""
  rows = []
  for dataset, (base, generated, original) in worlds.items():
    rows.append(_row(dataset, "", "", 0, "zero_shot", base))
    for source, strategies in sources.items():
      for index, strategy in enumerate(strategies):
        lift = original if source == "original" else generated * (1.15 - 0.12 * index)
        for count in shots:
          rows += _cell(dataset, source, strategy, count, base, lift, full)
          # As in a run, the strategy of a control says which images were shuffled.
          control = ("control", strategy or source, count)
          rows.append(_row(dataset, *control, "cler", base - 0.04 - 0.02 / count))
  return rows


@pytest.fixture(scope="session")
def rows():
  """Rows like the demo's: three datasets, four strategies, originals, controls, five budgets."""
  return make_rows(
    WORLDS, {"generative": STRATEGIES[:2] + STRATEGIES[3:], "original": ("",)}, (1, 2, 4, 8, 16)
  )


@pytest.fixture(scope="session")
def full_rows():
  """Rows of 22 datasets x 5 strategies x 3 sources x 9 shots, all quantities."""
  worlds = {
    f"dataset_{i:02d}": (
      0.6 + 0.35 * _noise(i),
      0.03 + 0.08 * _noise("g", i),
      0.1 + 0.09 * _noise("o", i),
    )
    for i in range(22)
  }
  sources = {"generative": STRATEGIES, "retrieval": STRATEGIES, "original": STRATEGIES}
  return make_rows(worlds, sources, (1, 2, 4, 8, 16, 32, 64, 128, 256), full=True)


@pytest.fixture(scope="session")
def many():
  """The module `many.py`: rows of many generators, encoders and recognizers."""
  import importlib.util
  from pathlib import Path

  spec = importlib.util.spec_from_file_location("many", Path(__file__).with_name("many.py"))
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def png(color, size=32):
  from PIL import Image, ImageDraw

  image = Image.new("RGB", (size, size), (24, 26, 30))
  ImageDraw.Draw(image).ellipse((6, 6, size - 7, size - 7), fill=color)
  stream = io.BytesIO()
  image.save(stream, "PNG")
  return stream.getvalue()


HOSTILE = '"><script>window.pwned = 1</script><img src=x onerror="window.pwned = 2">{{ 7 * 7 }}'


@pytest.fixture(scope="session")
def galleries():
  from genbench_jax.report.gallery import Entry, Gallery, ImageVerdict

  colors = {"circle": (86, 180, 233), "disc": (230, 159, 0), HOSTILE: (0, 158, 115)}

  def entries(prompts, count):
    return [
      Entry(
        name,
        png(color),
        f"a photo of a {name}" if prompts else None,
        "blurry, </figcaption>" if prompts else None,
        seed if prompts else None,
        judged=ImageVerdict(
          "disc" if seed == 2 else name, seed != 2, -0.1 if seed == 2 else 0.4 - 0.1 * seed
        ),
        index=seed,
      )
      for name, color in colors.items()
      for seed in range(count)
    ]

  return [
    Gallery(dataset, source, strategy, entries(source == "generative", 4))
    for dataset in WORLDS
    for source, strategy in (
      ("generative", "simple_template"),
      ("generative", "defined_template"),
      ("original", ""),
    )
  ]


@pytest.fixture(scope="session")
def full_page(full_rows, run, tmp_path_factory):
  """The page of the full benchmark, with far more example images than fit."""
  from genbench_jax.report.gallery import Entry, Gallery
  from genbench_jax.report.page import write_report

  image = png((86, 180, 233)) + bytes(12_000)
  negative = ", ".join(f"class {i}" for i in range(1000))
  entries = [Entry(f"class {i % 10}", image, "a photo", negative, i) for i in range(60)]
  examples = [
    Gallery(f"dataset_{i:02d}", source, "", entries)
    for i in range(22)
    for source in ("generative", "retrieval", "original")
  ]
  return write_report(full_rows, examples, run, tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="session")
def run():
  return {
    "title": "The demo worlds",
    "command": "python -m genbench_jax.main --config configs/demo.py --workdir demo",
    "config": '{"seed": 0, "note": "</script><script>window.pwned = 3</script>"}',
    "versions": {"jax": "0.10.2", "flax": "0.12.8"},
    "device": "8 × cpu",
    "devices": 8,
    "started": "2026-01-31 12:00 UTC",
    "seconds": {"images": 120.0, "embed": 20.0, "score": 3.2, "recognize": 40.0},
    "images": {"images": 4800, "embed": 6000},
    "datasets": [*WORLDS, "cifar10"],
    "warnings": ["<b>bold</b> is not markup here."],
  }
