"""A config on a work folder: its models and its data."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from genbench_jax import checkpoints
from genbench_jax.benchmark.reader import Split, open_split
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.stand_in import prepare_stand_in
from genbench_jax.clip.features import ImageEmbedder
from genbench_jax.clip.model import Clip, load_clip
from genbench_jax.config import Config
from genbench_jax.diffusion.model import load_stable_diffusion
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.failures import Failures
from genbench_jax.parallel.hosts import Hosts, this_process
from genbench_jax.parallel.mesh import data_mesh


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """A config on a work folder. Models are loaded when a stage first needs them."""

  config: Config
  workdir: Path
  failures: Failures = dataclasses.field(default_factory=Failures)

  @functools.cached_property
  def hosts(self) -> Hosts:
    """This process among those of the run."""
    return this_process()

  @functools.cached_property
  def mesh(self) -> Mesh:
    """All devices of all processes, which score and recognise together."""
    return data_mesh()

  @functools.cached_property
  def local_mesh(self) -> Mesh:
    """The devices of this process, which makes its own images and features on them."""
    return data_mesh(jax.local_devices())

  @functools.cached_property
  def diffusion_fingerprint(self) -> str:
    generation = self.config.generation
    return checkpoints.fingerprint(checkpoints.locate(generation.checkpoint, generation.revision))

  @functools.cached_property
  def clip_fingerprint(self) -> str:
    encoder = self.config.encoder
    return checkpoints.fingerprint(checkpoints.locate(encoder.checkpoint, encoder.revision))

  @functools.cached_property
  def sampler(self) -> Sampler:
    settings = self.config.generation
    return Sampler(
      load_stable_diffusion(settings.checkpoint, settings.revision or None),
      self.local_mesh,
      settings.batch_per_device,
      settings.steps,
      settings.guidance_scale,
      settings.scheduler,
      settings.height or None,
      settings.width or None,
    )

  @functools.cached_property
  def clip(self) -> Clip:
    encoder = self.config.encoder
    return load_clip(encoder.checkpoint, encoder.revision or None)

  @functools.cached_property
  def embedder(self) -> ImageEmbedder:
    return ImageEmbedder(self.clip, self.local_mesh, self.config.encoder.batch_per_device)

  def with_config(self, config: Config) -> "Run":
    """The same run under another config with the same models and data; what is loaded is shared."""
    other = dataclasses.replace(self, config=config)
    vars(other).update(
      {name: value for name, value in vars(self).items() if name not in ("config", "workdir")}
    )
    return other

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
