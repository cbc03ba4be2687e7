"""A config on a work folder: its models and its data."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from genbench_jax import checkpoints
from genbench_jax.benchmark.reader import Split, open_split
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.stand_in import prepare_stand_in
from genbench_jax.clip.features import ImageEmbedder
from genbench_jax.clip.model import Clip, load_clip
from genbench_jax.clip.preprocess import Resize
from genbench_jax.config import Config
from genbench_jax.diffusion.cost import flops_of_image
from genbench_jax.diffusion.model import StableDiffusion, load_stable_diffusion
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.parallel.mesh import data_mesh
from genbench_jax.parallel.peak import peak_of
from genbench_jax.plan import ImageSetKey
from genbench_jax.throughput import Meter


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """A config on a work folder. Models are loaded when a stage first needs them."""

  config: Config
  workdir: Path

  @functools.cached_property
  def mesh(self) -> Mesh:
    return data_mesh()

  @functools.cached_property
  def diffusion_fingerprint(self) -> str:
    generation = self.config.generation
    return checkpoints.fingerprint(checkpoints.locate(generation.checkpoint, generation.revision))

  @functools.cached_property
  def clip_fingerprint(self) -> str:
    encoder = self.config.encoder
    return checkpoints.fingerprint(checkpoints.locate(encoder.checkpoint, encoder.revision))

  @functools.cached_property
  def diffusion(self) -> StableDiffusion:
    settings = self.config.generation
    return load_stable_diffusion(settings.checkpoint, settings.revision or None)

  @functools.cached_property
  def sampler(self) -> Sampler:
    return self._sampler()

  def embedding_sampler(self, resize: Resize) -> Sampler:
    """A sampler that embeds what it makes."""
    if resize not in self._embedding_samplers:
      self._embedding_samplers[resize] = self._sampler(self.clip, resize)
    return self._embedding_samplers[resize]

  @functools.cached_property
  def _embedding_samplers(self) -> dict[Resize, Sampler]:
    return {}

  def _sampler(self, clip: Clip | None = None, resize: Resize = "crop") -> Sampler:
    settings = self.config.generation
    return Sampler(
      self.diffusion,
      self.mesh,
      settings.batch_per_device or None,
      settings.steps,
      settings.guidance_scale,
      settings.scheduler,
      settings.height or None,
      settings.width or None,
      clip,
      resize,
    )

  def meter(self, key: ImageSetKey) -> Meter:
    """Counts what the images of a set cost while they are generated."""
    if key not in self._meters:
      self._meters[key] = Meter(
        self.mesh.size, self._flops_of_image, lambda: peak_of(self.mesh.devices.flat[0])
      )
    return self._meters[key]

  @functools.cached_property
  def _meters(self) -> dict[ImageSetKey, Meter]:
    return {}

  def _flops_of_image(self) -> float:
    sampler = next(iter(self._embedding_samplers.values()), None) or self.sampler
    shape = (sampler.evaluations, sampler.guided, sampler.latent_shape)
    return flops_of_image(self.diffusion, *shape, sampler.clip)

  @functools.cached_property
  def clip(self) -> Clip:
    encoder = self.config.encoder
    return load_clip(encoder.checkpoint, encoder.revision or None)

  @functools.cached_property
  def embedder(self) -> ImageEmbedder:
    return ImageEmbedder(self.clip, self.mesh, self.config.encoder.batch_per_device)

  @property
  def per_class(self) -> int:
    return max(self.config.shots)

  def split(self, dataset: str, split: str) -> Split:
    spec = dataset_spec(dataset)
    if self.config.stand_in and spec.tfds_name:
      folder = self.workdir / "stand_ins"
      prepare_stand_in(spec, folder, dict.fromkeys(spec.splits, self.config.stand_in))
      return open_split(spec, split, folder)
    return open_split(spec, split, self.config.data_dir or None)

  def labels(self, dataset: str, split: str) -> np.ndarray:
    """The labels of a split, read once."""
    if (dataset, split) not in self._labels:
      self._labels[dataset, split] = self.split(dataset, split).labels()
    return self._labels[dataset, split]

  @functools.cached_property
  def _labels(self) -> dict[tuple[str, str], np.ndarray]:
    return {}
