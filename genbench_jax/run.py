"""A config on a work folder: its models and its data."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from genbench_jax.benchmark.reader import Split, open_split
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.stand_in import prepare_stand_in
from genbench_jax.cells import ImageSetKey
from genbench_jax.config import Config
from genbench_jax.diffusion.cost import flops_of_image
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.embedding.embedder import ImageEmbedder
from genbench_jax.embedding.preprocess import Resize
from genbench_jax.models.clip import Clip, load_clip
from genbench_jax.models.image_encoder import ImageEncoder, load_image_encoder
from genbench_jax.models.pin import Pin
from genbench_jax.models.stable_diffusion import StableDiffusion, load_stable_diffusion
from genbench_jax.runtime.failures import Failures
from genbench_jax.runtime.hosts import Hosts, this_process
from genbench_jax.runtime.mesh import data_mesh
from genbench_jax.runtime.peak import peak_of
from genbench_jax.runtime.throughput import Cost, Meter


class FeatureSpace:
  """What embeds the images of a run. The model is loaded when it is first needed.

  Args:
    pin: which checkpoint.
    batch_per_device: images on a device at once.
    mesh: its devices share every batch.
    load: gives the model.
  """

  def __init__(
    self,
    pin: Pin,
    batch_per_device: int,
    mesh: Callable[[], Mesh],
    load: Callable[[], ImageEncoder],
  ) -> None:
    self.name, self._pin, self._load = pin.checkpoint, pin, load
    self._batch_per_device, self._mesh = batch_per_device, mesh

  @functools.cached_property
  def fingerprint(self) -> str:
    return self._pin.fingerprint()

  @functools.cached_property
  def embedder(self) -> ImageEmbedder:
    _ = self.fingerprint  # refuses another one than is pinned
    return ImageEmbedder(self._load(), self._mesh(), self._batch_per_device)


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
    """All devices of all processes, which score and recognize together."""
    return data_mesh()

  @functools.cached_property
  def local_mesh(self) -> Mesh:
    """The devices of this process, which makes its own images and features on them."""
    return data_mesh(jax.local_devices())

  @functools.cached_property
  def diffusion_fingerprint(self) -> str:
    return diffusion_pin(self.config).fingerprint()

  @property
  def clip_fingerprint(self) -> str:
    return self.space.fingerprint

  @functools.cached_property
  def diffusion(self) -> StableDiffusion:
    _ = self.diffusion_fingerprint  # refuses another one than is pinned
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
      self.local_mesh,
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
    """Counts what the images of a set cost while this process generates them."""
    which = key, self.per_class  # candidates of a selection are counted by themselves
    if which not in self._meters:
      self._meters[which] = Meter(
        self.local_mesh.size, self._flops_of_image, lambda: peak_of(self.local_mesh.devices.flat[0])
      )
    return self._meters[which]

  def cost(self, key: ImageSetKey) -> Cost:
    """What the images of a set, and candidates that were not chosen, have cost this process."""
    costs = [meter.cost() for (measured, _), meter in self._meters.items() if measured == key]
    return sum((cost for cost in costs if cost.images), Cost())

  @functools.cached_property
  def _meters(self) -> dict[tuple[ImageSetKey, int], Meter]:
    return {}

  def _flops_of_image(self) -> float:
    sampler = next(iter(self._embedding_samplers.values()), None) or self.sampler
    shape = (sampler.evaluations, sampler.guided, sampler.latent_shape)
    return flops_of_image(self.diffusion, *shape, sampler.clip)

  @functools.cached_property
  def clip(self) -> Clip:
    _ = self.clip_fingerprint  # refuses another one than is pinned
    encoder = self.config.encoder
    return load_clip(encoder.checkpoint, encoder.revision or None)

  @functools.cached_property
  def space(self) -> FeatureSpace:
    """The features of the run's CLIP, on which everything is measured."""
    batch = self.config.encoder.batch_per_device
    return FeatureSpace(encoder_pin(self.config), batch, lambda: self.local_mesh, lambda: self.clip)

  @functools.cached_property
  def other_space(self) -> FeatureSpace | None:
    """Those of `scoring.feature_checkpoint`, on which metrics without text are measured too; None where it is empty."""
    pin = feature_pin(self.config)
    if not pin.checkpoint:
      return None
    load = functools.partial(load_image_encoder, pin.checkpoint, pin.revision or None)
    batch = self.config.encoder.batch_per_device
    return FeatureSpace(pin, batch, lambda: self.local_mesh, load)

  @property
  def embedder(self) -> ImageEmbedder:
    return self.space.embedder

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


def diffusion_pin(config: Config) -> Pin:
  """The model that makes images."""
  from genbench_jax.models.diffusion_parts import DOWNLOADS

  asked = config.generation
  return Pin(asked.checkpoint, asked.revision, asked.sha256, DOWNLOADS, _settings("generation"))


def encoder_pin(config: Config) -> Pin:
  """The CLIP that measures."""
  from genbench_jax.models.clip import DOWNLOADS

  asked = config.encoder
  return Pin(asked.checkpoint, asked.revision, asked.sha256, DOWNLOADS, _settings("encoder"))


def feature_pin(config: Config) -> Pin:
  """The second encoder, on whose features is measured what needs no text; its name is empty where there is none."""
  from genbench_jax.models.clip import DOWNLOADS

  asked = config.scoring
  return Pin(
    asked.feature_checkpoint,
    asked.feature_revision,
    asked.feature_sha256,
    DOWNLOADS,
    _settings("scoring.feature", "_"),
  )


def judge_pin(config: Config) -> Pin:
  """The CLIP that chooses among candidates."""
  from genbench_jax.models.clip import DOWNLOADS

  asked = config.selection
  return Pin(asked.checkpoint, asked.revision, asked.sha256, DOWNLOADS, _settings("selection"))


def sentence_pin(config: Config) -> Pin:
  """The T5 that writes sentences."""
  from genbench_jax.models.t5 import DOWNLOADS

  asked = config.prompts
  return Pin(
    asked.sentence_model,
    asked.sentence_revision,
    asked.sentence_sha256,
    DOWNLOADS,
    _settings("prompts.sentence", "_"),
  )


def _settings(section: str, joint: str = ".") -> tuple[str, str]:
  return f"config.{section}{joint}revision", f"config.{section}{joint}sha256"


def pins(config: Config) -> Iterator[Pin]:
  """All checkpoints that a run of the config reads."""
  if "generative" in config.sources:
    yield diffusion_pin(config)
  yield encoder_pin(config)
  if config.scoring.feature_checkpoint:
    yield feature_pin(config)
  if config.selection.method == "clip":
    yield judge_pin(config)
  if config.prompts.sentence_model:
    yield sentence_pin(config)
