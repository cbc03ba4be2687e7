"""GenBench for TPU and GPU: how good are generated images as training data for recognition?

The functions take arrays and return numbers, without a config. Each is imported when it is first
used.

    import genbench_jax as gb
    gb.cler(image_features, labels, text_features, test_features, test_labels)
"""

from genbench_jax.runtime import quiet_start as _quiet_start  # noqa: F401, I001  before all others
import importlib
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# Commands are in cli/; this keeps the short names, such as `python -m genbench_jax.evaluate`.
__path__.append(str(Path(__file__).parent / "cli"))

_WHERE = {
  "cler": "genbench_jax.metrics.cler",
  "clip_score": "genbench_jax.metrics.clip_score",
  "cmmd": "genbench_jax.metrics.kernels",
  "embed_images": "genbench_jax.embedding.library",
  "embed_texts": "genbench_jax.embedding.library",
  "evaluate_folder": "genbench_jax.pipeline.evaluate",
  "fine_tune": "genbench_jax.recognizers.fine_tune",
  "fid_between_folders": "genbench_jax.pipeline.fid",
  "fid_inception": "genbench_jax.metrics.inception",
  "forget_models": "genbench_jax.diffusion.generate",
  "frechet_distance": "genbench_jax.metrics.frechet",
  "from_scratch": "genbench_jax.recognizers.from_scratch",
  "generate": "genbench_jax.diffusion.generate",
  "inception_score": "genbench_jax.metrics.inception",
  "kernel_distance": "genbench_jax.metrics.kernels",
  "kid_inception": "genbench_jax.metrics.inception",
  "linear_probe": "genbench_jax.recognizers.linear_probe",
  "lora": "genbench_jax.recognizers.lora",
  "precision_recall_density_coverage": "genbench_jax.metrics.manifold",
  "proxy_a_distance": "genbench_jax.metrics.proxy",
  "register_encoder": "genbench_jax.models.image_encoder",
  "retrieve": "genbench_jax.retrieval.retrieve",
  "tip_adapter": "genbench_jax.recognizers.tip_adapter",
  "vendi": "genbench_jax.metrics.vendi",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
  if name not in _WHERE:
    raise AttributeError(f"module 'genbench_jax' has no attribute {name!r}")
  return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
  return list(__all__)
