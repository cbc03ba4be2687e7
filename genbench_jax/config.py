"""The configuration: frozen, typed sections, made once from an ml_collections ConfigDict.

A config file starts from `default_config()`, so that every leaf can be overridden on the command line.
Every mistake ends here, by name.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from genbench_jax.diffusion.inversion.settings import INITIALIZERS, RESIZES, SCHEDULES, Training
from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.prompts.strategies import STRATEGIES
from genbench_jax.recognizers.settings import DEPTHS, POSITIONS, CoopSettings, VptSettings
from genbench_jax.store.rows import SCORED

STAGES = ("images", "embed", "score", "recognize", "report")
SOURCES = ("generative", "original", "folder", "retrieval", "combined")
SCHEDULERS = ("pndm", "ddim", "dpmsolver++", "euler")
TRACKERS = ("tensorboard", "wandb")
SELECTIONS = ("none", "clip", "random")
BUDGETS = ("equal", "added")
PROTOCOLS = ("strict", "reference")
RETRIEVAL_QUERIES = ("text_to_text", "text_to_image", "image_to_image")
RETRIEVAL_RANKINGS = ("mean", "max", "rerank")
# What the new tokens of textual inversion can be learned from.
TOKEN_REFERENCES = ("original", "retrieval", "folder")
RECOGNIZERS = ("linear_probe", "coop", "vpt")


@dataclasses.dataclass(frozen=True)
class Generation:
  """How images are made.

  Attributes:
    checkpoint: a Stable Diffusion folder or hub id; `zoo/diffusion` is the shipped small model.
    revision: the hub revision, a commit; empty for local folders.
    sha256: what `python -m genbench_jax.pins` says of the checkpoint; a run with another one is refused.
    strategies: prompt strategies, each an image set.
    steps, guidance_scale, scheduler: the sampler.
    height, width: pixels; 0 is the model's own size.
    batch_per_device: images on a device at once; 0 takes as many as fit into its memory.
    keep_images: `all`; or `none`, or a number a class, such as `4`, as text: then the images are embedded on the
      devices that make them, and only their features are kept, besides so many images of each class.
    shard_size: images a shard; what is lost at most when a run is stopped.
  """

  checkpoint: str = "zoo/diffusion"
  revision: str = ""
  sha256: str = ""
  strategies: tuple[str, ...] = ("defined_template",)
  steps: int = 50
  guidance_scale: float = 7.5
  scheduler: str = "dpmsolver++"
  height: int = 0
  width: int = 0
  batch_per_device: int = 8
  keep_images: str = "all"
  shard_size: int = 512

  def kept_images(self, per_class: int) -> int:
    """How many images of each class are kept, of so many."""
    kept = {"all": per_class, "none": 0}.get(self.keep_images)
    return min(per_class, int(self.keep_images)) if kept is None else kept


@dataclasses.dataclass(frozen=True)
class Prompts:
  """How the prompts of generated images are written.

  Attributes:
    protocol: `strict`, or `reference` with the published code's choices.
    sentence_model: a keyword-to-sentence T5, folder or hub id, for Category Enhancement; empty is a small
      grammar of ours.
    sentence_revision: its hub revision, a commit; empty for local folders.
    sentence_sha256: its checksum, as that of `generation`.
    sentence_file: sentences of one's own, `{"class name": ["sentence", ...]}` in JSON, in place of a model's;
      `{dataset}` in it stands for the dataset.
  """

  protocol: str = "strict"
  sentence_model: str = ""
  sentence_revision: str = ""
  sentence_sha256: str = ""
  sentence_file: str = ""


@dataclasses.dataclass(frozen=True)
class Selection:
  """Which generated images are kept: off by default.

  Attributes:
    method: `none` keeps all that are made; `clip` makes more and keeps those nearest to "a photo of a <class>";
      `random` makes as many more and keeps a seeded choice, for comparison.
    candidates: images made for each one kept.
    checkpoint: the CLIP that judges, a folder or hub id: another than the one that measures. The published
      one is `openai/clip-vit-base-patch16`.
    revision: its hub revision, a commit; empty for local folders.
    sha256: its checksum, as that of `generation`.
  """

  method: str = "none"
  candidates: int = 4
  checkpoint: str = "zoo/clip"
  revision: str = ""
  sha256: str = ""

  @property
  def is_on(self) -> bool:
    return self.method != "none"

  @property
  def made_for_one(self) -> int:
    """Images made for each one kept."""
    return self.candidates if self.is_on else 1


@dataclasses.dataclass(frozen=True)
class Folder:
  """A user's own images, for the source `folder`.

  Attributes:
    path: holds a folder for each class, or images and `labels.csv`; `{dataset}` in it stands for the dataset.
    real_images: how many real images their maker has seen of the dataset's, which the report says.
  """

  path: str = ""
  real_images: int = 0


@dataclasses.dataclass(frozen=True)
class Mixture:
  """Original and external images together, for the source `combined`.

  Attributes:
    with_sources: the sources that are mixed with originals, each with all its strategies; they and `original`
      are sources of the config themselves.
    ratio: external images for each original one.
    budget: `equal` shares the images of a cell among both; `added` adds the external images to the originals.
  """

  with_sources: tuple[str, ...] = ("generative",)
  ratio: float = 1.0
  budget: str = "added"


@dataclasses.dataclass(frozen=True)
class Retrieval:
  """Images from a pool, for the source `retrieval`; docs/retrieval.md says more.

  Attributes:
    pool: a folder of embedding shards with metadata, by the encoder of the config; `zoo/pool` is a small one that is drawn and
      embedded in the work folder.
    image_root: the folder or folder of tars where the pool's images lie; a pool by `genbench_jax.embed` knows it.
    queries: one for each class and template, `text_to_text` as the reference or `text_to_image`, or `image_to_image`:
      `query_shots` of the original images a class.
    images_per_prompt: how many rows of the pool each query finds.
    ranking: of a class's images, by `mean` score over the queries that found them, as the reference, by `max`, or `rerank`:
      by the cosine of the image with the class's text.
    duplicate_threshold, leak_threshold: cosines from which on an image is one that the class has, or a test image.
    recall_target: below 1, TPUs search approximately, see `genbench_jax.retrieve`.
  """

  pool: str = ""
  image_root: str = ""
  queries: str = "text_to_text"
  query_shots: int = 1
  images_per_prompt: int = 30
  ranking: str = "mean"
  duplicate_threshold: float = 0.97
  leak_threshold: float = 0.95
  recall_target: float = 1.0


@dataclasses.dataclass(frozen=True)
class TextualInversion(Training):
  """New tokens for the classes of a dataset; the settings of their training are those of `Training`.

  Attributes:
    references: each makes image sets of every prompt strategy: `""` without new tokens, `original` or
      `retrieval` with tokens learned from such images, `folder` with tokens made elsewhere.
    shots: references a class.
    scope: a token for each `category`, or one for all classes of a `dataset`.
    templates: of the prompts in training: the `dataset`'s own, or `simple`, the name alone.
    folder: of tokens made elsewhere, `CLASS/learned_embeds.safetensors`; `{dataset}` in it stands for the dataset.
    real_images: how many real images of the dataset these have seen, which the report says.
  """

  references: tuple[str, ...] = ("",)
  shots: int = 5
  scope: str = "category"
  templates: str = "dataset"
  folder: str = ""
  real_images: int = 0


@dataclasses.dataclass(frozen=True)
class Encoder:
  """The CLIP that embeds images and texts.

  Attributes:
    checkpoint: a folder or hub id; `zoo/clip` is the shipped small model.
    revision: the hub revision, a commit; empty for local folders.
    sha256: its checksum, as that of `generation`.
    batch_per_device: images on a device at once.
  """

  checkpoint: str = "zoo/clip"
  revision: str = ""
  sha256: str = ""
  batch_per_device: int = 64


@dataclasses.dataclass(frozen=True)
class Scoring:
  """Which metrics, under which protocols, with how many neighbors and bootstrap resamples.

  Attributes:
    feature_checkpoint: a DINOv2 or another CLIP, folder or hub id: metrics that need no text are measured on its features
      too; their rows name it as encoder.
    feature_revision: its hub revision, a commit; empty for local folders.
    feature_sha256: its checksum, as that of `generation`.
  """

  quantities: tuple[str, ...] = SCORED
  feature_checkpoint: str = ""
  feature_revision: str = ""
  feature_sha256: str = ""
  protocols: tuple[str, ...] = ("strict",)
  top_k: int = 10
  resamples: int = 1000


@dataclasses.dataclass(frozen=True)
class Recognition:
  """Which recognizers, under which protocols.

  Attributes:
    recognizers: `linear_probe`, `coop` (learned context in the text tower), `vpt` (learned tokens in the
      vision tower). The latter two train for each cell, and have one protocol: strict.
    protocols: of the linear probe.
    language_init: whether the linear probe starts from, and is drawn to, the zero-shot classifier.
      Without it the probe knows the external images alone, and shows what they are worth by themselves.
    save_predictions: whether the scores of all test images are kept: n_test x classes numbers a cell.
    save_every: steps of prompt training between two checkpoints.
  """

  recognizers: tuple[str, ...] = ("linear_probe",)
  protocols: tuple[str, ...] = ("strict",)
  language_init: bool = True
  save_predictions: bool = True
  save_every: int = 100
  coop: CoopSettings = dataclasses.field(default_factory=CoopSettings)
  vpt: VptSettings = dataclasses.field(default_factory=VptSettings)


@dataclasses.dataclass(frozen=True)
class Report:
  """The page, and where else a run reports to.

  Attributes:
    title: of the page.
    gallery_images: how many images of each class a gallery shows.
    trackers: `tensorboard` (needs tensorboardX) and `wandb`, where each is installed; none by default.
  """

  title: str = "How good are these images as training data?"
  gallery_images: int = 6
  trackers: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Config:
  """A benchmark: datasets x sources x strategies x shots x seeds, and how each stage works.

  Attributes:
    data_dir: where TFDS datasets are prepared; empty is TFDS's own default.
    stand_in: images a class and split of drawn stand-ins, made in the work folder, in place of the
      datasets' own; 0 is the real data.
    shots: images a class, each a cell; the largest decides how many images are made.
  """

  datasets: tuple[str, ...] = ("digits",)
  sources: tuple[str, ...] = ("generative", "original")
  shots: tuple[int, ...] = (1, 2, 4, 8, 16)
  seeds: tuple[int, ...] = (0,)
  data_dir: str = ""
  stand_in: int = 0
  generation: Generation = dataclasses.field(default_factory=Generation)
  prompts: Prompts = dataclasses.field(default_factory=Prompts)
  selection: Selection = dataclasses.field(default_factory=Selection)
  folder: Folder = dataclasses.field(default_factory=Folder)
  mixture: Mixture = dataclasses.field(default_factory=Mixture)
  retrieval: Retrieval = dataclasses.field(default_factory=Retrieval)
  textual_inversion: TextualInversion = dataclasses.field(default_factory=TextualInversion)
  encoder: Encoder = dataclasses.field(default_factory=Encoder)
  scoring: Scoring = dataclasses.field(default_factory=Scoring)
  recognition: Recognition = dataclasses.field(default_factory=Recognition)
  report: Report = dataclasses.field(default_factory=Report)

  def as_json(self) -> str:
    return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)


def default_config() -> ConfigDict:
  """A ConfigDict of all leaves with their defaults; config files start from it."""
  return ConfigDict(dataclasses.asdict(Config()))


def parse_arguments(text: str, **defaults: Any) -> types.SimpleNamespace:
  """The typed arguments of `configs/x.py:a=1,b=word`; a bare name sets a flag.

  Raises:
    UsageError: an argument that the config doesn't have, or of the wrong type.
  """
  values = dict(defaults)
  for item in filter(None, text.split(",")):
    name, given, value = item.partition("=")
    if name not in defaults:
      raise unknown_name("config argument", name, defaults)
    values[name] = _read(
      value if given else "true", type(defaults[name]), f"config argument {name}"
    )
  return types.SimpleNamespace(**values)


def check_setting(path: str) -> None:
  """Refuses the path of a setting, such as `generation.steps`, that no config has.

  Raises:
    UsageError: it names the nearest setting and those of the same section.
  """
  section: Any = Config()
  known_so_far: tuple[str, ...] = ("config",)
  for name in path.split("."):
    if not dataclasses.is_dataclass(section):
      raise UsageError(f"{'.'.join(known_so_far)} is a single setting and has no {name!r}.")
    fields = [field.name for field in dataclasses.fields(section)]
    if name not in fields:
      known = [".".join((*known_so_far, field)) for field in fields]
      raise unknown_name("setting", ".".join((*known_so_far, name)), known)
    section, known_so_far = getattr(section, name), (*known_so_far, name)


def make_config(config_dict: Mapping[str, Any]) -> Config:
  """The typed configuration.

  Raises:
    UsageError: an unknown key, a wrong type, an unknown name or a value out of range.
  """
  config = _section(Config, config_dict, "config")
  _check_names(config)
  _check_places(config)
  _check_ranges(config)
  _check_inversion(config)
  return dataclasses.replace(config, datasets=_own_names(config.datasets))


def _section(section: type, values: Any, path: str) -> Any:
  if not isinstance(values, Mapping | ConfigDict):
    raise UsageError(f"{path} is {values!r}, wanted a section of settings.")
  fields = {field.name: field for field in dataclasses.fields(section)}
  hints = typing.get_type_hints(section)
  for key in values:
    if key not in fields:
      raise unknown_name("setting", f"{path}.{key}", [f"{path}.{name}" for name in fields])
  return section(**{key: _typed(values[key], hints[key], f"{path}.{key}") for key in values})


def _typed(value: Any, wanted: Any, path: str) -> Any:
  """The value as the type it should have; an integer passes for a float, a single value for a tuple."""
  if dataclasses.is_dataclass(wanted):
    return _section(typing.cast(type, wanted), value, path)
  if typing.get_origin(wanted) is tuple:
    item = typing.get_args(wanted)[0]
    values = value if isinstance(value, list | tuple) else (value,)
    return tuple(_typed(one, item, path) for one in values)
  if wanted is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
    kind = type(value).__name__
    raise UsageError(f"{path} is {value!r} ({kind}), wanted {wanted.__name__}.")
  return value


def _read(text: str, kind: type, path: str) -> Any:
  try:
    if kind is bool:
      return {"true": True, "false": False}[text.lower()]
    return kind(text)
  except (ValueError, KeyError) as error:
    raise UsageError(f"{path} is {text!r}, wanted {kind.__name__}.") from error


def _own_names(datasets: tuple[str, ...]) -> tuple[str, ...]:
  """The datasets by our own names, whichever alias, folder or TFDS name was given."""
  from genbench_jax.benchmark.registry import dataset_spec

  return tuple(dataset_spec(name).name for name in datasets)


def _check_names(config: Config) -> None:
  known: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("source", config.sources, SOURCES),
    ("budget", (config.mixture.budget,), BUDGETS),
    ("strategy", config.generation.strategies, STRATEGIES),
    ("scheduler", (config.generation.scheduler,), SCHEDULERS),
    ("kind of query", (config.retrieval.queries,), RETRIEVAL_QUERIES),
    ("ranking", (config.retrieval.ranking,), RETRIEVAL_RANKINGS),
    ("metric", config.scoring.quantities, SCORED),
    ("protocol", config.scoring.protocols + config.recognition.protocols, PROTOCOLS),
    ("protocol", (config.prompts.protocol,), PROTOCOLS),
    ("selection", (config.selection.method,), SELECTIONS),
    ("recognizer", config.recognition.recognizers, RECOGNIZERS),
    ("position of the context", (config.recognition.coop.position,), POSITIONS),
    ("depth of visual prompts", (config.recognition.vpt.depth,), DEPTHS),
    ("tracker", config.report.trackers, TRACKERS),
  )
  for kind, given, allowed in known:
    for name in given:
      if name not in allowed:
        raise unknown_name(kind, name, allowed)


def _check_places(config: Config) -> None:
  """Only the work folder may be in a bucket: what is read lies where every host can open it."""
  places = {
    "data_dir": config.data_dir,
    "folder.path": config.folder.path,
    "retrieval.pool": config.retrieval.pool,
    "generation.checkpoint": config.generation.checkpoint,
    "encoder.checkpoint": config.encoder.checkpoint,
  }
  for path, place in places.items():
    if "://" in place:
      raise UsageError(
        f"config.{path} is {place!r}, wanted a folder of this machine: copy or mount it. --workdir may be a URL."
      )


def _check_ranges(config: Config) -> None:
  at_least_one: dict[str, tuple[float, ...]] = {
    "config.shots": config.shots,
    "config.generation.steps": (config.generation.steps,),
    "config.generation.guidance_scale": (config.generation.guidance_scale,),
    "config.generation.shard_size": (config.generation.shard_size,),
    "config.selection.candidates": (config.selection.candidates,),
    "config.retrieval.query_shots": (config.retrieval.query_shots,),
    "config.retrieval.images_per_prompt": (config.retrieval.images_per_prompt,),
    "config.encoder.batch_per_device": (config.encoder.batch_per_device,),
    **_counts_of_training(config.recognition),
    "config.scoring.top_k": (config.scoring.top_k,),
    "config.scoring.resamples": (config.scoring.resamples,),
  }
  for path, values in at_least_one.items():
    for value in values:
      if value < 1:
        raise UsageError(f"{path} is {value}, wanted at least 1.")
  not_empty: dict[str, tuple[Any, ...]] = {
    "config.recognition.recognizers": config.recognition.recognizers,
    "config.recognition.protocols": config.recognition.protocols,
    "config.datasets": config.datasets,
    "config.sources": config.sources,
    "config.shots": config.shots,
    "config.seeds": config.seeds,
  }
  for path, given in not_empty.items():
    if not given:
      raise UsageError(f"{path} is empty, wanted at least one.")
    if len(set(given)) != len(given):
      raise UsageError(f"{path} names something twice: {given}.")
  for path, numbers in {
    "config.seeds": config.seeds,
    "config.stand_in": (config.stand_in,),
    "config.generation.batch_per_device": (config.generation.batch_per_device,),
    "config.folder.real_images": (config.folder.real_images,),
  }.items():
    if min(numbers) < 0:
      raise UsageError(f"{path} is {min(numbers)}, wanted none below 0.")
  if config.mixture.ratio <= 0:
    raise UsageError(f"config.mixture.ratio is {config.mixture.ratio}, wanted above 0.")
  if "combined" in config.sources:
    for source in ("original", *config.mixture.with_sources):
      if source not in config.sources or source == "combined":
        raise UsageError(
          f"the source `combined` mixes `original` with config.mixture.with_sources: put {source!r} in config.sources."
        )
  if "folder" in config.sources and not config.folder.path:
    raise UsageError("the source `folder` asks for config.folder.path: where the images lie.")
  if "retrieval" in config.sources and not config.retrieval.pool:
    raise UsageError(
      "the source `retrieval` asks for config.retrieval.pool. Make one by python -m genbench_jax.embed."
    )
  if not 0 < config.retrieval.recall_target <= 1:
    raise UsageError(
      f"config.retrieval.recall_target is {config.retrieval.recall_target}, wanted above 0 and at most 1."
    )
  _check_keep_images(config)
  if config.scoring.feature_checkpoint == config.encoder.checkpoint:
    raise UsageError(
      f"config.scoring.feature_checkpoint is {config.encoder.checkpoint!r}, the encoder itself, on which all is measured anyway."
    )


def _check_keep_images(config: Config) -> None:
  kept = config.generation.keep_images
  if kept not in ("all", "none") and not (kept.isascii() and kept.isdecimal() and int(kept)):
    raise UsageError(
      f"config.generation.keep_images is {kept!r}, wanted 'all', 'none' or a number of images a class."
    )
  if kept != "all" and config.scoring.feature_checkpoint:
    raise UsageError(
      f"config.scoring.feature_checkpoint embeds kept images, and config.generation.keep_images is {kept!r}: set it to 'all'."
    )
  if kept != "all" and config.selection.is_on:
    raise UsageError(
      f"config.selection.method chooses among kept images, and config.generation.keep_images is {kept!r}: set it to 'all'."
    )
  most = max(config.shots)
  trains_on_images = "vpt" in config.recognition.recognizers and "generative" in config.sources
  if trains_on_images and config.generation.kept_images(most) < most:
    raise UsageError(
      f"the recognizer `vpt` trains on images, and config.generation.keep_images is {kept!r}: set it to 'all' or '{most}'."
    )


def _counts_of_training(recognition: Recognition) -> dict[str, tuple[float, ...]]:
  """What is counted in the training of prompts, by path."""
  counts: dict[str, tuple[float, ...]] = {
    "config.recognition.save_every": (recognition.save_every,)
  }
  for name, section in (("coop", recognition.coop), ("vpt", recognition.vpt)):
    for field in (
      "context_length",
      "prompt_length",
      "steps",
      "batch_size",
      "classes_at_once",
      "images_at_once",
    ):
      if hasattr(section, field):
        counts[f"config.recognition.{name}.{field}"] = (getattr(section, field),)
  return counts


def _check_inversion(config: Config) -> None:
  settings = config.textual_inversion
  for kind, given, allowed in (
    ("references", settings.references, ("", *TOKEN_REFERENCES)),
    ("scope", (settings.scope,), ("category", "dataset")),
    ("templates", (settings.templates,), ("dataset", "simple")),
    ("schedule", (settings.schedule,), SCHEDULES),
    ("initializer", (settings.initializer,), INITIALIZERS),
    ("reference_resize", (settings.reference_resize,), RESIZES),
  ):
    for name in given:
      if name not in allowed:
        raise unknown_name(f"textual_inversion.{kind}", name, [repr(one) for one in allowed])
  if not settings.references or len(set(settings.references)) != len(settings.references):
    raise UsageError(
      f"config.textual_inversion.references is {settings.references}, wanted one or more, each once."
    )
  least = {"steps": 1, "batch": 1, "shots": 1, "categories_per_device": 1, "save_every": 1}
  least |= {"warm_up": 0, "weight_decay": 0, "crops": 0, "reference_resolution": 0}
  for name, limit in (least | {"clip_weight": 0, "real_images": 0}).items():
    if getattr(settings, name) < limit:
      raise UsageError(
        f"config.textual_inversion.{name} is {getattr(settings, name)}, wanted at least {limit}."
      )
  if not settings.learning_rate > 0:
    raise UsageError(
      f"config.textual_inversion.learning_rate is {settings.learning_rate}, wanted above 0."
    )
  if "retrieval" in settings.references and "retrieval" not in config.sources:
    raise UsageError(
      "config.textual_inversion.references asks for 'retrieval': add it to config.sources, so that there are such images."
    )
  if "folder" in settings.references and not settings.folder:
    raise UsageError(
      "config.textual_inversion.references asks for 'folder': give config.textual_inversion.folder, where they lie."
    )
