"""A config on a work folder, with its models and data."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from genbench_jax.benchmark.digests import split_digest
from genbench_jax.benchmark.reader import Split, open_split
from genbench_jax.benchmark.stand_in import prepare_stand_in
from genbench_jax.cells import ImageSetKey
from genbench_jax.config import Config, Encoder, Selection
from genbench_jax.diffusion import backends
from genbench_jax.diffusion.cost import flops_of_image
from genbench_jax.diffusion.options import parse_loras, parse_scheduler_settings
from genbench_jax.diffusion.sampler import Sampler
from genbench_jax.embedding.embedder import ImageEmbedder
from genbench_jax.embedding.feature_space import FeatureSpace
from genbench_jax.embedding.preprocess import Resize
from genbench_jax.errors import UsageError
from genbench_jax.models.checkpoints import is_single_file
from genbench_jax.models.clip import Clip
from genbench_jax.models.diffusion_model import StableDiffusion
from genbench_jax.models.diffusion_parts import CheckpointParts
from genbench_jax.models.image_encoder import (
  ImageEncoder,
  TextEncoder,
  kind_and_place,
  load_image_encoder,
  load_text_encoder,
)
from genbench_jax.models.pin import AnyPin, LoraPin, Pin, distinct
from genbench_jax.models.stable_diffusion import load_stable_diffusion, open_parts
from genbench_jax.runtime.failures import Failures
from genbench_jax.runtime.hosts import Hosts, this_process
from genbench_jax.runtime.mesh import data_mesh
from genbench_jax.runtime.peak import peak_of
from genbench_jax.runtime.shared_values import SharedValues
from genbench_jax.runtime.throughput import Cost, Meter
from genbench_jax.store.digests import FileDigests


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """A config on a work folder. Models are loaded when a stage first needs them.

  Attributes:
    is_plan: whether this is a plan, which writes nothing and uses no device.
    shared: values that this run shares with runs of `with_config`.
    generator: name in `config.generators` of the original config, if this run has one of them only.
  """

  config: Config
  workdir: Path
  failures: Failures = dataclasses.field(default_factory=Failures)
  is_plan: bool = False
  shared: SharedValues = dataclasses.field(default_factory=SharedValues)
  generator: str = ""

  @functools.cached_property
  def hosts(self) -> Hosts:
    """This process among those of the run."""
    return Hosts() if self.is_plan else this_process()

  @functools.cached_property
  def mesh(self) -> Mesh:
    """All devices of all processes, used for scoring and recognition."""
    return data_mesh()

  @functools.cached_property
  def local_mesh(self) -> Mesh:
    """The devices of this process, used for its images and features."""
    return data_mesh(jax.local_devices())

  def fingerprint(self, pin: AnyPin) -> str:
    """Return the checksum of a checkpoint; reject another than the pinned one."""
    return self.shared.get(("fingerprint", pin), pin.fingerprint)

  @property
  def diffusion_fingerprint(self) -> str:
    """The digest of everything that determines the images: checkpoint, LoRAs, autoencoder, program."""
    asked = self.config.generation
    if backends.is_function(asked.backend):
      return backends.function_fingerprint(asked.backend)
    pinned = self.fingerprint(self._diffusion_pin)
    for pin in part_pins(self.config, self.generator):
      self.fingerprint(pin)  # rejects another file than the pinned one
    # A single-file checkpoint has its tokenizer beside it, or uses CLIP's; both are part of the
    # fingerprint.
    if not (asked.loras or asked.autoencoder or is_single_file(asked.checkpoint)):
      return pinned
    return self.shared.get(("parts", self._model_settings), lambda: self._parts().fingerprint)

  @property
  def _diffusion_pin(self) -> Pin:
    return diffusion_pin(self.config, self.generator)

  @property
  def _model_settings(self) -> Hashable:
    asked = self.config.generation
    parts = asked.loras, asked.autoencoder, asked.autoencoder_revision
    return self._diffusion_pin, asked.implementation, *parts

  def _parts(self) -> CheckpointParts:
    asked = self.config.generation
    loras = parse_loras(asked.loras)
    return open_parts(asked.checkpoint, asked.revision or None, loras, self._autoencoder())

  def _autoencoder(self) -> Path | str:
    """Return the folder of the separate autoencoder, at its pinned revision; empty if there is none."""
    found = autoencoder_pin(self.config, self.generator)
    return found.folder() if found else ""

  @property
  def encoder_fingerprint(self) -> str:
    return self.space.fingerprint

  @property
  def diffusion(self) -> StableDiffusion:
    _ = self.diffusion_fingerprint  # rejects another checkpoint than the pinned one
    return self.shared.only("diffusion", self._model_settings, self._load_diffusion)

  def _load_diffusion(self) -> StableDiffusion:
    settings = self.config.generation
    return load_stable_diffusion(
      settings.checkpoint,
      settings.revision or None,
      implementation=settings.implementation,
      loras=parse_loras(settings.loras),
      autoencoder=self._autoencoder(),
    )

  @property
  def sampler(self) -> Sampler:
    return self.shared.only("sampler", self._sampler_settings, self._sampler)

  def embedding_sampler(self, resize: Resize) -> Sampler:
    """Return a sampler that embeds the images that it generates."""
    key = (self._sampler_settings, encoder_pin(self.config), resize)
    return self.shared.only("embedding sampler", key, lambda: self._sampler(self.encoder, resize))

  @property
  def _sampler_settings(self) -> Hashable:
    settings = self.config.generation
    of_sampler = (
      "batch_per_device", "steps", "guidance_scale", "scheduler", "height", "width",
      "eta", "guidance_rescale", "timesteps", "scheduler_settings",
    )  # fmt: skip
    return self._model_settings, *(getattr(settings, name) for name in of_sampler)

  def _sampler(self, encoder: TextEncoder | None = None, resize: Resize = "crop") -> Sampler:
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
      encoder,
      resize,
      eta=settings.eta,
      guidance_rescale=settings.guidance_rescale,
      timesteps=settings.timesteps or None,
      scheduler_settings=parse_scheduler_settings(settings.scheduler_settings),
    )

  def meter(self, key: ImageSetKey) -> Meter:
    """Return the meter of an image set's generation cost in this process."""
    # Candidates of a selection are further images per class and are counted separately.
    meters = self._meters(key)
    if self.per_class not in meters:
      peak = functools.partial(peak_of, self.local_mesh.devices.flat[0])
      meters[self.per_class] = Meter(self.local_mesh.size, self._flops_of_image, peak)
    return meters[self.per_class]

  def cost(self, key: ImageSetKey) -> Cost:
    """Return this process's cost of the images of a set, including rejected candidates."""
    costs = [meter.cost() for meter in self._meters(key).values()]
    return sum((cost for cost in costs if cost.images), Cost())

  def _meters(self, key: ImageSetKey) -> dict[int, Meter]:
    return self.shared.get(("meters", key), dict)

  def _flops_of_image(self) -> float:
    keep_all = self.config.generation.keep_images == "all"
    sampler = self.sampler if keep_all else self.embedding_sampler("crop")
    shape = (sampler.evaluations, sampler.guided, sampler.latent_shape)
    return flops_of_image(self.diffusion, *shape, sampler.encoder)

  @property
  def encoder(self) -> TextEncoder:
    """The main encoder: a CLIP, a SigLIP, or a registered one that embeds texts."""
    return self._text_encoder(encoder_pin(self.config))

  @property
  def clip(self) -> Clip:
    """The main encoder, for recognizers that modify CLIP's towers; see `refuse_other_than_clip`."""
    assert isinstance(self.encoder, Clip)
    return self.encoder

  def refuse_other_than_clip(self, recognizer: str) -> None:
    """Reject other encoders for a recognizer that puts tokens into CLIP's towers; load nothing.

    Raises:
      UsageError: the main encoder is not a CLIP.
    """
    pin = encoder_pin(self.config)
    kind, _ = kind_and_place(pin.checkpoint, pin.revision or None)
    if kind not in ("clip", "openclip"):
      raise UsageError(
        f"the recognizer `{recognizer}` puts tokens into the towers of a CLIP, but config.encoder.checkpoint"
        f" {pin.checkpoint!r} is of type {kind!r}: leave it out of config.recognition.recognizers."
      )

  def _text_encoder(self, pin: Pin) -> TextEncoder:
    _ = self.fingerprint(pin)  # rejects another checkpoint than the pinned one
    load = functools.partial(load_text_encoder, pin.checkpoint, pin.revision or None)
    return self.shared.get(("encoder", pin), load)

  @functools.cached_property
  def space(self) -> FeatureSpace:
    """The features of the main encoder, on which everything is measured."""
    return self._space(encoder_pin(self.config), lambda: self.encoder)

  @functools.cached_property
  def other_spaces(self) -> tuple[FeatureSpace, ...]:
    """The further encoders by name."""
    return tuple(
      self._space(
        pin, functools.partial(load_image_encoder, pin.checkpoint, pin.revision or None), name
      )
      for name, pin in encoder_pins(self.config).items()
    )

  @property
  def judge(self) -> TextEncoder:
    """The encoder that selects among candidates."""
    return self._text_encoder(judge_pin(self.config))

  @property
  def judge_space(self) -> FeatureSpace:
    """The features on which candidates are judged."""
    return self._space(judge_pin(self.config), lambda: self.judge)

  def _space(self, pin: Pin, load: Callable[[], ImageEncoder], name: str = "") -> FeatureSpace:
    batch = (self.config.encoders.get(name) or self.config.encoder).batch_per_device
    make = lambda: ImageEmbedder(load(), self.local_mesh, batch)  # noqa: E731
    embedder = functools.partial(self.shared.get, ("embedder", pin, batch), make)
    return FeatureSpace(name or pin.checkpoint, functools.partial(self.fingerprint, pin), embedder)

  @property
  def embedder(self) -> ImageEmbedder:
    return self.space.embedder

  def with_config(self, config: Config) -> "Run":
    """Return the same run with another config. Models are shared if the configs agree on them."""
    return dataclasses.replace(self, config=config)

  def of(self, key: ImageSetKey) -> "Run":
    """Return the run as if the generator of an image set were the only one."""
    if not self.config.generators or key.source != "generative":
      return self
    if key.generator not in self._by_generator:
      config = self.config.of_generator(key.generator)
      self._by_generator[key.generator] = dataclasses.replace(
        self, config=config, generator=key.generator
      )
    return self._by_generator[key.generator]

  @functools.cached_property
  def _by_generator(self) -> dict[str, "Run"]:
    return {}

  @property
  def per_class(self) -> int:
    return max(self.config.shots)

  # ---- data -------------------------------------------------------------------------------------

  def split(self, dataset: str, split: str) -> Split:
    """Return a split of a dataset, opened for reading."""
    return self.shared.get(
      ("split", *self._data, dataset, split), lambda: self._open(dataset, split)
    )

  def labels(self, dataset: str, split: str) -> np.ndarray:
    """Return the labels of a split, read once."""
    read = self.split(dataset, split).labels
    return self.shared.get(("labels", *self._data, dataset, split), read)

  def digest(self, dataset: str, split: str) -> str:
    """Return the digest of a split's content, see `benchmark.digests`."""
    make = functools.partial(self._digest, dataset, split)
    return self.shared.get(("digest", *self._data, dataset, split), make)

  def file_digests(self, name: str) -> FileDigests:
    """Return the digests of files, cached in the work folder under a name."""
    may_write = self.hosts.is_first and not self.is_plan
    return FileDigests(self.workdir / "digests" / f"{name}.json", may_write)

  @property
  def _data(self) -> tuple[str, int]:
    return self.config.data_dir, self.config.stand_in

  def _open(self, dataset: str, split: str) -> Split:
    spec = self.config.spec(dataset)
    if self.config.stand_in and spec.tfds_name:
      folder = self.workdir / "stand_ins" / str(self.config.stand_in)
      if not self.is_plan:
        prepare_stand_in(spec, folder, dict.fromkeys(spec.splits, self.config.stand_in))
      return open_split(spec, split, folder)
    return open_split(spec, split, self.config.data_dir or None)

  def _digest(self, dataset: str, split: str) -> str:
    return split_digest(self.split(dataset, split), self.file_digests(f"{dataset}-{split}"))


def diffusion_pin(config: Config, generator: str = "") -> Pin:
  """Return the pin of the model that generates images.

  Args:
    config: a config with one generator, see `Config.of_generator`.
    generator: its name in the table of the original config; empty for `config.generation`.
  """
  from genbench_jax.models.diffusion_parts import DOWNLOADS

  asked = config.generation
  files = backends.DOWNLOADS if asked.backend == backends.DIFFUSERS else DOWNLOADS
  prefix = _generation_prefix(generator)
  return Pin(asked.checkpoint, asked.revision, asked.sha256, files, (prefix,))


def autoencoder_pin(config: Config, generator: str = "") -> Pin | None:
  """Return the pin of the generator's separate autoencoder, if it has one; see `diffusion_pin`."""
  from genbench_jax.models.diffusion_parts import AUTOENCODER_DOWNLOADS

  asked = config.generation
  if not asked.autoencoder:
    return None
  pinned = asked.autoencoder, asked.autoencoder_revision, asked.autoencoder_sha256
  prefix = f"{_generation_prefix(generator)}autoencoder_"
  return Pin(*pinned, AUTOENCODER_DOWNLOADS, (prefix,), part="vae")


def part_pins(config: Config, generator: str = "") -> Iterator[AnyPin]:
  """Yield the pins of what a generator adds to its checkpoint; see `diffusion_pin`."""
  asked = config.generation
  if asked.loras:
    files = tuple(file for file, _ in parse_loras(asked.loras))
    yield LoraPin(files, asked.lora_sha256, (_generation_prefix(generator),))
  if found := autoencoder_pin(config, generator):
    yield found


def encoder_pin(config: Config) -> Pin:
  """Return the pin of the main encoder."""
  return _encoder_pin(config.encoder, "config.encoder.")


def encoder_pins(config: Config) -> dict[str, Pin]:
  """Return the pins of the further encoders by name."""
  return {
    name: _encoder_pin(encoder, _entry_prefix("encoders", name))
    for name, encoder in config.encoders.items()
  }


def judge_pin(config: Config) -> Pin:
  """Return the pin of the encoder that selects among candidates."""
  return _encoder_pin(config.selection, "config.selection.")


def fine_tune_pin(config: Config) -> Pin | None:
  """Return the pin of the network that the recognizer `fine_tune` starts from, if it is not the encoder."""
  from genbench_jax.models.classifiers import DOWNLOADS

  asked = config.recognition.fine_tune
  if "fine_tune" not in config.recognition.recognizers or not asked.checkpoint:
    return None
  prefix = "config.recognition.fine_tune."
  return Pin(asked.checkpoint, asked.revision, asked.sha256, DOWNLOADS, (prefix,))


def _encoder_pin(asked: Encoder | Selection, prefix: str) -> Pin:
  from genbench_jax.models.clip import DOWNLOADS

  return Pin(asked.checkpoint, asked.revision, asked.sha256, DOWNLOADS, (prefix,))


def sentence_pin(config: Config) -> Pin:
  """Return the pin of the T5 that writes sentences."""
  from genbench_jax.models.t5 import DOWNLOADS

  asked = config.prompts
  pinned = asked.sentence_model, asked.sentence_revision, asked.sentence_sha256
  return Pin(*pinned, DOWNLOADS, ("config.prompts.sentence_",))


def _generation_prefix(generator: str) -> str:
  return _entry_prefix("generators", generator) if generator else "config.generation."


def _entry_prefix(table: str, name: str) -> str:
  """Return the beginning of an entry's settings; names with hyphens are no attributes in Python."""
  return f"config.{table}.{name}." if name.isidentifier() else f'config.{table}["{name}"].'


def pins(config: Config) -> Iterator[AnyPin]:
  """Yield all checkpoints that a run of the config reads, each once."""
  yield from distinct(_pins(config))


def _pins(config: Config) -> Iterator[AnyPin]:
  if "generative" in config.sources:
    for name in config.generators or ("",):
      run = config.of_generator(name) if name else config
      if not backends.is_function(run.generation.backend):
        yield diffusion_pin(run, name)
        yield from part_pins(run, name)
  yield encoder_pin(config)
  yield from encoder_pins(config).values()
  if config.selection.method == "clip":
    yield judge_pin(config)
  if config.prompts.sentence_model:
    yield sentence_pin(config)
  if found := fine_tune_pin(config):
    yield found
