"""Zero-shot accuracy compared with published values, to check the setup.

The reference is OpenAI's CLIP ViT-B/32 as reported by CLIP_benchmark
(https://github.com/LAION-AI/CLIP_benchmark, results of `openai` ViT-B-32). Their prompts are the
dataset's templates with small differences in wording. A value within its band therefore shows that
data, labels, preprocessing, tokenizer and weights are right, not that both programs agree exactly.
Most errors of a setup, such as labels in another order, are far outside the band.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from genbench_jax.benchmark.reader import SplitImages, open_split
from genbench_jax.benchmark.readiness import readiness
from genbench_jax.benchmark.registry import dataset_spec, known_datasets
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.embedding.embedder import ImageEmbedder, text_prototypes
from genbench_jax.embedding.settings import SHIPPED_CLIP
from genbench_jax.embedding.stored import embed_stored
from genbench_jax.metrics.accuracy import recognition_score
from genbench_jax.models.image_encoder import TextEncoder, load_text_encoder
from genbench_jax.recognizers.zero_shot import zero_shot_scores
from genbench_jax.runtime.mesh import data_mesh
from genbench_jax.runtime.progress import Progress

# In percent, with the dataset's metric here.
PUBLISHED = {
  "imagenet2012": 63.3, "cifar10": 89.8, "cifar100": 64.5, "mnist": 48.6, "sun397": 62.5, "cars196": 59.4,
  "dtd": 44.3, "eurosat": 50.7, "resisc45": 53.8, "patch_camelyon": 62.2, "gtsrb": 33.1, "fer2013": 40.9,
  "country211": 17.2, "rendered_sst2": 59.0, "kitti_distance": 27.4, "caltech101": 87.9,
  "oxford_iiit_pet": 87.0, "oxford_flowers102": 66.5, "fgvc_aircraft": 19.7, "voc2007": 76.0,
}  # fmt: skip
# The small CLIP on its own datasets, as measured after training (genbench_jax/zoo/README.md).
OWN = {"digits": 98.6, "digits_hard": 87.9, "shapes": 88.8}
# In points. Bands are wider for datasets that are sensitive to prompt wording or that we split.
BAND, WIDE_BAND, OWN_BAND = 2.0, 6.0, 1.0
WIDE = (
  "mnist", "patch_camelyon", "rendered_sst2", "kitti_distance", "eurosat", "resisc45", "fer2013", "gtsrb",
  "caltech101", "voc2007",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Check:
  """Zero-shot accuracy of one dataset and the published value, in percent.

  Attributes:
    error: twice the standard error, if only a part of the test images was used.
  """

  dataset: str
  measured: float
  published: float
  band: float
  error: float
  images: int

  @property
  def passes(self) -> bool:
    """Whether the value is within the band, widened by the sampling error."""
    return bool(abs(self.measured - self.published) <= self.band + self.error)


def ready_datasets(data_dir: str | None) -> list[str]:
  """Return the prepared datasets with real data that have a published value."""
  states = {name: readiness(dataset_spec(name), data_dir) for name in known_datasets()}
  return [n for n, state in states.items() if n in PUBLISHED and state.ready and not state.stand_in]


def check_datasets(
  names: Sequence[str], checkpoint: str, data_dir: str | None = None, most_images: int = 0
) -> list[Check]:
  """Measure the zero-shot accuracy of each dataset.

  Args:
    names: datasets with a published value.
    checkpoint: the CLIP of these values.
    data_dir: TFDS's data folder.
    most_images: number of test images, spread evenly; 0 uses all.
  """
  published = OWN if checkpoint == SHIPPED_CLIP else PUBLISHED
  encoder = load_text_encoder(checkpoint)
  return [
    _check(encoder, dataset_spec(name), published[name], data_dir, most_images) for name in names
  ]


def _check(
  encoder: TextEncoder, spec: DatasetSpec, published: float, data_dir: str | None, most_images: int
) -> Check:
  split = open_split(spec, "test", data_dir)
  count = min(most_images or len(split), len(split))
  rows = np.unique(np.linspace(0, len(split) - 1, count).astype(int))
  embedder = ImageEmbedder(encoder, data_mesh())
  with Progress(f"embed {spec.name} test", len(rows), "images") as progress:
    features, valid = embed_stored(
      embedder, SplitImages(split), rows.tolist(), spec.resize, progress, spec.name
    )
  kept = valid.astype(bool)
  labels = np.asarray(split.labels())[rows][kept]
  texts = text_prototypes(encoder, spec.names, spec.templates)
  scores = zero_shot_scores(features[kept], texts)
  measured = 100 * recognition_score(scores, labels, spec.metric)
  band = OWN_BAND if spec.name in OWN else WIDE_BAND if spec.name in WIDE else BAND
  error = 0.0 if count == len(split) else 100 * 2 * np.sqrt(0.25 / len(rows))
  return Check(spec.name, measured, published, band, error, len(rows))
