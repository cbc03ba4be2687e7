"""The configuration: frozen, typed sections, made once from an ml_collections ConfigDict.

A config file starts from `default_config()`, so that every leaf can be overridden on the command line.
Every mistake ends here, by name.
"""

import dataclasses
import functools
import itertools
import json
import re
import types
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from ml_collections import ConfigDict

from genbench_jax.benchmark.own import is_own
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.diffusion.inversion.settings import Training
from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.metrics.registry import KnownQuantities
from genbench_jax.prompts.strategies import STRATEGIES
from genbench_jax.recognizers.settings import (
  CoopSettings,
  FineTuneSettings,
  FromScratchSettings,
  LoraSettings,
  TipAdapterSettings,
  VptSettings,
)
from genbench_jax.runtime.protocol import PROTOCOLS
from genbench_jax.runtime.settings import (
  Above,
  AtLeast,
  AtMost,
  Distinct,
  LocalPath,
  OneOf,
  read_section,
)
from genbench_jax.store.rows import SCORED

STAGES = ("images", "embed", "score", "recognize", "report")
SOURCES = ("generative", "original", "folder", "retrieval", "combined")
SCHEDULERS = (
  "pndm",
  "ddim",
  "dpmsolver++",
  "euler",
  "euler_ancestral",
  "lcm",
  "tcd",
  "auto",
)
IMPLEMENTATIONS = ("ours", "diffusers")
TRACKERS = ("tensorboard", "wandb")
SELECTIONS = ("none", "clip", "random")
BUDGETS = ("equal", "added", "long_tail")
RETRIEVAL_QUERIES = ("text_to_text", "text_to_image", "image_to_image")
RETRIEVAL_RANKINGS = ("mean", "max", "rerank")
# What the new tokens of textual inversion can be learned from.
TOKEN_REFERENCES = ("original", "retrieval", "folder")
RECOGNIZERS = (
  "linear_probe",
  "coop",
  "vpt",
  "tip_adapter",
  "lora",
  "fine_tune",
  "from_scratch",
)
MIXTURE_ORDERS = ("together", "real_last")


class KeptImages:
  """`all`, `none`, or how many images of each class are kept, as text."""

  def check(self, value: str, path: str) -> None:
    if value not in ("all", "none") and not (
      value.isascii() and value.isdecimal() and int(value) > 0
    ):
      raise UsageError(f"{path} is {value!r}, wanted 'all', 'none' or a number of images a class.")


@dataclasses.dataclass(frozen=True)
class Generation:
  """How images are made.

  Attributes:
    checkpoint: a Stable Diffusion folder or hub id; `zoo/diffusion` is the shipped small model.
    revision: the hub revision, a commit; empty for local folders.
    sha256: what `genbench pins` says of the checkpoint; a run with another one is refused.
    strategies: prompt strategies, each an image set.
    steps, guidance_scale, scheduler: the sampler.
    height, width: pixels; 0 is the model's own size.
    batch_per_device: images on a device at once; 0 takes as many as fit into its memory.
    keep_images: `all`; or `none`, or a number a class, such as `4`, as text: then the images are embedded on the
      devices that make them, and only their features are kept, besides so many images of each class.
    shard_size: images a shard; what is lost at most when a run is stopped.
    implementation: of the networks: `ours`, or `diffusers` for the stock Flax classes of diffusers below 0.40.
    backend: another program: `diffusers` for any pipeline of PyTorch's, or `module:function`; empty is this package.
    eta: share of fresh noise in `ddim` and `tcd`.
    guidance_rescale: how far guidance's deviation is brought back, 0 to 1.
    timesteps: to be visited, descending, in place of `steps`.
    scheduler_settings: keys of `scheduler_config.json` that count in place of the checkpoint's, as a JSON object.
    loras: files of low-rank changes, each as `FILE:WEIGHT`.
    autoencoder: folder or hub id of another autoencoder than the checkpoint's.
    negative_prompt: of every image, behind what its strategy says.
  """

  checkpoint: Annotated[str, LocalPath()] = "zoo/diffusion"
  revision: str = ""
  sha256: str = ""
  strategies: Annotated[tuple[str, ...], OneOf("strategy", STRATEGIES)] = ("defined_template",)
  steps: Annotated[int, AtLeast(1)] = 50
  guidance_scale: Annotated[float, AtLeast(0)] = 7.5
  scheduler: Annotated[str, OneOf("scheduler", SCHEDULERS)] = "dpmsolver++"
  height: Annotated[int, AtLeast(0)] = 0
  width: Annotated[int, AtLeast(0)] = 0
  batch_per_device: Annotated[int, AtLeast(0)] = 8
  keep_images: Annotated[str, KeptImages()] = "all"
  shard_size: Annotated[int, AtLeast(1)] = 512
  implementation: Annotated[str, OneOf("implementation", IMPLEMENTATIONS)] = "ours"
  backend: str = ""
  eta: Annotated[float, AtLeast(0), AtMost(1)] = 0.0
  guidance_rescale: Annotated[float, AtLeast(0), AtMost(1)] = 0.0
  timesteps: tuple[int, ...] = ()
  scheduler_settings: str = ""
  loras: tuple[str, ...] = ()
  autoencoder: str = ""
  negative_prompt: str = ""

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

  protocol: Annotated[str, OneOf("protocol", PROTOCOLS)] = "strict"
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

  method: Annotated[str, OneOf("selection", SELECTIONS)] = "none"
  candidates: Annotated[int, AtLeast(1)] = 4
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


FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")


@dataclasses.dataclass(frozen=True)
class Folder:
  """A user's own images, for the source `folder`.

  Attributes:
    path: of the images, in any of the forms in docs/howto/inputs.md; `{dataset}` in it stands for the dataset.
    paths: several of them in place of one, each `name=path`; the name stands in the rows and on the page.
    class_map: a file that says which class each of one's own names means: CSV, JSON or YAML.
    strict: whether a name that is no class is an error, rather than left out and told.
    real_images: how many real images their maker has seen of the dataset's, which the report says.
  """

  path: Annotated[str, LocalPath()] = ""
  paths: tuple[str, ...] = ()
  class_map: Annotated[str, LocalPath()] = ""
  strict: bool = False
  real_images: Annotated[int, AtLeast(0)] = 0

  @property
  def named_paths(self) -> dict[str, str]:
    """Name -> path; the name is empty where there is only `path`."""
    if not self.paths:
      return {"": self.path}
    return {name: path for name, _, path in (text.partition("=") for text in self.paths)}


@dataclasses.dataclass(frozen=True)
class Mixture:
  """Original and external images together, for the source `combined`.

  Attributes:
    with_sources: the sources that are mixed with originals, each with all its strategies; they and `original`
      are sources of the config themselves.
    ratio: external images for each original one.
    budget: `equal` shares the images of a cell among both; `added` adds the external images to the originals; `long_tail`
      leaves ever fewer originals from the first class to the last, in a seeded order, and fills each class up to the shots with
      external images.
    imbalance: of `long_tail`: originals of the first class for one of the last.
    loss_weights: of real and of external images in the loss, such as 0.8 and 0.2; empty weighs all images alike.
    order: `together`; or `real_last`: recognizers train on the external images first and then on the real ones.
  """

  with_sources: tuple[str, ...] = ("generative",)
  ratio: Annotated[float, Above(0)] = 1.0
  budget: Annotated[str, OneOf("budget", BUDGETS)] = "added"
  imbalance: Annotated[float, AtLeast(1)] = 10.0
  loss_weights: Annotated[tuple[float, ...], AtLeast(0)] = ()
  order: Annotated[str, OneOf("order", MIXTURE_ORDERS)] = "together"


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

  pool: Annotated[str, LocalPath()] = ""
  image_root: str = ""
  queries: Annotated[str, OneOf("kind of query", RETRIEVAL_QUERIES)] = "text_to_text"
  query_shots: Annotated[int, AtLeast(1)] = 1
  images_per_prompt: Annotated[int, AtLeast(1)] = 30
  ranking: Annotated[str, OneOf("ranking", RETRIEVAL_RANKINGS)] = "mean"
  duplicate_threshold: float = 0.97
  leak_threshold: float = 0.95
  recall_target: Annotated[float, Above(0), AtMost(1)] = 1.0


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

  references: Annotated[
    tuple[str, ...], Distinct(), OneOf("textual_inversion.references", ("", *TOKEN_REFERENCES))
  ] = ("",)
  shots: Annotated[int, AtLeast(1)] = 5
  scope: Annotated[str, OneOf("textual_inversion.scope", ("category", "dataset"))] = "category"
  templates: Annotated[str, OneOf("textual_inversion.templates", ("dataset", "simple"))] = "dataset"
  folder: str = ""
  real_images: Annotated[int, AtLeast(0)] = 0


@dataclasses.dataclass(frozen=True)
class Encoder:
  """The CLIP that embeds images and texts.

  Attributes:
    checkpoint: a folder or hub id; `zoo/clip` is the shipped small model.
    revision: the hub revision, a commit; empty for local folders.
    sha256: its checksum, as that of `generation`.
    batch_per_device: images on a device at once.
  """

  checkpoint: Annotated[str, LocalPath()] = "zoo/clip"
  revision: str = ""
  sha256: str = ""
  batch_per_device: Annotated[int, AtLeast(1)] = 64


@dataclasses.dataclass(frozen=True)
class Scoring:
  """Which metrics, under which protocols, with how many neighbors and bootstrap resamples.

  Attributes:
    feature_checkpoint: a DINOv2 or another CLIP, folder or hub id: metrics that need no text are measured on its features
      too; their rows name it as encoder.
    feature_revision: its hub revision, a commit; empty for local folders.
    feature_sha256: its checksum, as that of `generation`.
    guides: real training images a class for `class_chamfer` and `guide_ridge`, which no recognizer sees; they count as
      real images seen. Taken where `original` is among the sources; 0 for none.
  """

  quantities: Annotated[tuple[str, ...], OneOf("metric", KnownQuantities())] = SCORED
  feature_checkpoint: str = ""
  feature_revision: str = ""
  feature_sha256: str = ""
  protocols: Annotated[tuple[str, ...], OneOf("protocol", PROTOCOLS)] = ("strict",)
  top_k: Annotated[int, AtLeast(1)] = 10
  resamples: Annotated[int, AtLeast(1)] = 1000
  guides: Annotated[int, AtLeast(0)] = 8


@dataclasses.dataclass(frozen=True)
class Recognition:
  """Which recognizers, under which protocols.

  Attributes:
    recognizers: `linear_probe`; `coop` (learned context in the text tower), `vpt` (learned tokens in the vision tower),
      which have one protocol, strict; `tip_adapter` (a cache of features), `lora` (low rank in both towers), `fine_tune` (the
      vision tower itself), `from_scratch` (a network that knows the images of the cell alone).
    protocols: of all but `coop` and `vpt`.
    language_init: whether the linear probe starts from, and is drawn to, the zero-shot classifier.
      Without it the probe knows the external images alone, and shows what they are worth by themselves.
    save_predictions: whether the scores of all test images are kept: n_test x classes numbers a cell.
    save_every: steps of prompt training between two checkpoints.
  """

  recognizers: Annotated[tuple[str, ...], Distinct(), OneOf("recognizer", RECOGNIZERS)] = (
    "linear_probe",
  )
  protocols: Annotated[tuple[str, ...], Distinct(), OneOf("protocol", PROTOCOLS)] = ("strict",)
  language_init: bool = True
  save_predictions: bool = True
  save_every: Annotated[int, AtLeast(1)] = 100
  coop: CoopSettings = dataclasses.field(default_factory=CoopSettings)
  vpt: VptSettings = dataclasses.field(default_factory=VptSettings)
  tip_adapter: TipAdapterSettings = dataclasses.field(default_factory=TipAdapterSettings)
  lora: LoraSettings = dataclasses.field(default_factory=LoraSettings)
  fine_tune: FineTuneSettings = dataclasses.field(default_factory=FineTuneSettings)
  from_scratch: FromScratchSettings = dataclasses.field(default_factory=FromScratchSettings)

  def shots_of(self, recognizer: str) -> tuple[int, ...]:
    """The shots whose cells a recognizer trains; empty is all."""
    settings = getattr(self, recognizer, None)
    return getattr(settings, "shots", ())


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
  trackers: Annotated[tuple[str, ...], OneOf("tracker", TRACKERS)] = ()


@dataclasses.dataclass(frozen=True)
class Config:
  """A benchmark: datasets x sources x strategies x shots x seeds, and how each stage works.

  Attributes:
    data_dir: where TFDS datasets are prepared; empty is TFDS's own default.
    stand_in: images a class and split of drawn stand-ins, made in the work folder, in place of the
      datasets' own; 0 is the real data.
    shots: images a class, each a cell; the largest decides how many images are made.
    generators: name -> settings of a generator, in the order of names, those of `generation` where it doesn't give its own; empty is one generator,
      as `generation` has it. Strategies, kept images and the size of shards are those of `generation` for all.
    encoders: name -> settings of a further encoder, in the order of names: what is measured in `encoder` is measured in each, as
      far as it knows texts. Images are made, retrieved and chosen by `encoder`.
  """

  datasets: Annotated[tuple[str, ...], Distinct()] = ("digits",)
  sources: Annotated[tuple[str, ...], Distinct(), OneOf("source", SOURCES)] = (
    "generative",
    "original",
  )
  shots: Annotated[tuple[int, ...], Distinct(), AtLeast(1)] = (1, 2, 4, 8, 16)
  seeds: Annotated[tuple[int, ...], Distinct(), AtLeast(0), AtMost(2**32 - 1)] = (0,)
  data_dir: Annotated[str, LocalPath()] = ""
  stand_in: Annotated[int, AtLeast(0)] = 0
  generation: Generation = dataclasses.field(default_factory=Generation)
  generators: Mapping[str, Generation] = dataclasses.field(default_factory=dict)
  prompts: Prompts = dataclasses.field(default_factory=Prompts)
  selection: Selection = dataclasses.field(default_factory=Selection)
  folder: Folder = dataclasses.field(default_factory=Folder)
  mixture: Mixture = dataclasses.field(default_factory=Mixture)
  retrieval: Retrieval = dataclasses.field(default_factory=Retrieval)
  textual_inversion: TextualInversion = dataclasses.field(default_factory=TextualInversion)
  encoder: Encoder = dataclasses.field(default_factory=Encoder)
  encoders: Mapping[str, Encoder] = dataclasses.field(default_factory=dict)
  scoring: Scoring = dataclasses.field(default_factory=Scoring)
  recognition: Recognition = dataclasses.field(default_factory=Recognition)
  report: Report = dataclasses.field(default_factory=Report)

  @functools.cached_property
  def specs(self) -> dict[str, DatasetSpec]:
    """Name -> dataset, in the order of `datasets`. The user's own ones are looked up as they are now.

    Raises:
      UsageError: there is no such dataset, or two go by one name.
    """
    found: dict[str, DatasetSpec] = {}
    for spec in map(dataset_spec, self.datasets):
      if spec.name in found:
        raise UsageError(_two_called(spec, found[spec.name]))
      found[spec.name] = spec
    return found

  def spec(self, name: str) -> DatasetSpec:
    """A dataset of the config by its name."""
    return self.specs[name]

  def of_generator(self, name: str) -> "Config":
    """The config as if a generator of the table were the only one."""
    return dataclasses.replace(self, generation=self.generators[name], generators={})

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
  plain = {key: config_dict[key] for key in config_dict if key not in ("generators", "encoders")}
  config = read_section(Config, plain, "config")
  generators = read_generators(config.generation, config_dict.get("generators", {}))
  encoders = _read_table("encoders", config.encoder, config_dict.get("encoders", {}))
  config = dataclasses.replace(config, generators=generators, encoders=encoders)
  _ = config.specs  # refuses what is not there
  for check in _CHECKS:
    check(config)
  return dataclasses.replace(config, datasets=_canonical(config.datasets))


# Settings that all generators share, for they are those of the benchmark.
_SHARED = ("strategies", "keep_images", "shard_size")
_ENTRY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
Entry = TypeVar("Entry", Generation, Encoder)


def read_generators(base: Generation, table: Any) -> dict[str, Generation]:
  """Return the table of generators; `base` is what an entry doesn't say.

  Raises:
    UsageError: a name that can't be part of the name of a file, or a wrong setting.
  """
  found = _read_table("generators", base, table)
  for name, one in found.items():
    for key in _SHARED:
      if getattr(one, key) != getattr(base, key):
        raise UsageError(
          f"config.generators.{name}.{key} can't be set: config.generation.{key} is that of all."
        )
  return found


def _read_table(section: str, base: Entry, table: Any) -> dict[str, Entry]:
  """Name -> settings. An entry with a checkpoint of its own takes over neither revision nor checksum."""
  if not hasattr(table, "items"):
    raise UsageError(f"config.{section} is {table!r}, wanted a table: name -> settings.")
  found = {}
  for name, entry in sorted(table.items()):  # as a ConfigDict gives them
    path = f"config.{section}.{name}"
    if not _ENTRY_NAME.fullmatch(name):
      raise UsageError(f"{path}: a name may have letters, digits, '_' and '-', 80 at most.")
    given = read_section(type(base), entry, path)
    unpinned = {"revision": "", "sha256": ""} if "checkpoint" in entry else {}
    changed = unpinned | {key: getattr(given, key) for key in entry}
    found[name] = dataclasses.replace(base, **changed)
  return found


def generator_sweep(name: str, **settings: Any) -> dict[str, dict[str, Any]]:
  """Return generators for every combination of some settings, to be put into `config.generators`.

  `generator_sweep("sd21", guidance_scale=(1.5, 4), steps=(10, 25))` has `sd21-guidance_scale1_5-steps10` and three more.

  Args:
    name: the beginning of their names.
    settings: of each generator; those with several values are swept.
  """
  swept = {k: v for k, v in settings.items() if isinstance(v, list | tuple) and k != "loras"}
  fixed = {key: value for key, value in settings.items() if key not in swept}
  table = {}
  for values in itertools.product(*swept.values()):
    chosen = dict(zip(swept, values, strict=True))
    parts = [f"{key}{_in_name(value)}" for key, value in chosen.items()]
    table["-".join((name, *parts))] = fixed | chosen
  return table


def _in_name(value: Any) -> str:
  """A value as part of a generator's name, which has no dots."""
  text = f"{value:g}" if isinstance(value, float) else str(value)
  return re.sub(r"[^A-Za-z0-9_-]", "_", text)


def _read(text: str, kind: type, path: str) -> Any:
  try:
    if kind is bool:
      return {"true": True, "false": False}[text.lower()]
    return kind(text)
  except (ValueError, KeyError) as error:
    raise UsageError(f"{path} is {text!r}, wanted {kind.__name__}.") from error


def _canonical(datasets: tuple[str, ...]) -> tuple[str, ...]:
  """The datasets by our own names, whichever alias was given; the user's own ones as they were given."""
  return tuple(name if is_own(name) else dataset_spec(name).name for name in datasets)


def _two_called(spec: DatasetSpec, known: DatasetSpec) -> str:
  places = " and ".join(one.folder or one.tfds_name or one.name for one in (known, spec))
  return (
    f"two datasets are called '{spec.name}', {places}: give one of them a 'name' in a YAML file."
  )


# ---- what no single setting can say -------------------------------------------------------------


def _check_sources(config: Config) -> None:
  """Every source has what it asks for."""
  if "folder" in config.sources:
    _check_folders(config.folder)
  if "retrieval" in config.sources and not config.retrieval.pool:
    raise UsageError(
      "the source `retrieval` asks for config.retrieval.pool. Make one by genbench embed."
    )
  if "combined" in config.sources:
    for source in ("original", *config.mixture.with_sources):
      if source not in config.sources or source == "combined":
        raise UsageError(
          "the source `combined` mixes `original` with config.mixture.with_sources: put"
          f" {source!r} in config.sources."
        )


def _check_folders(folder: Folder) -> None:
  """There is one path, or several with names that can be parts of the names of files."""
  if not folder.path and not folder.paths:
    raise UsageError("the source `folder` asks for config.folder.path: where the images lie.")
  if folder.path and folder.paths:
    raise UsageError("give config.folder.path or config.folder.paths, not both.")
  for text in folder.paths:
    name, _, path = text.partition("=")
    if not FOLDER_NAME.fullmatch(name) or not path:
      raise UsageError(
        f"config.folder.paths has {text!r}, wanted 'name=path' with a name of letters, digits,"
        " '_', '.' and '-'."
      )
  if len(folder.named_paths) < len(folder.paths):
    raise UsageError(f"config.folder.paths gives a name twice: {', '.join(folder.paths)}.")


def _check_kept_images(config: Config) -> None:
  """Nothing reads images that are not kept."""
  kept, most = config.generation.keep_images, max(config.shots)
  if kept == "all":
    return
  reader, enough = "", "'all'"
  if config.scoring.feature_checkpoint or config.encoders:
    other = "scoring.feature_checkpoint" if config.scoring.feature_checkpoint else "encoders"
    reader = f"config.{other} embeds kept images"
  elif config.selection.is_on:
    reader = "config.selection.method chooses among kept images"
  elif (
    "vpt" in config.recognition.recognizers
    and "generative" in config.sources
    and config.generation.kept_images(most) < most
  ):
    reader, enough = "the recognizer `vpt` trains on images", f"'all' or '{most}'"
  if reader:
    raise UsageError(
      f"{reader}, and config.generation.keep_images is {kept!r}: set it to {enough}."
    )


def _check_encoders(config: Config) -> None:
  for name, one in config.encoders.items():
    if one.checkpoint == config.encoder.checkpoint:
      raise UsageError(
        f"config.encoders.{name} is {one.checkpoint!r}, config.encoder itself, in which all is"
        " measured anyway."
      )
  if config.scoring.feature_checkpoint == config.encoder.checkpoint:
    raise UsageError(
      f"config.scoring.feature_checkpoint is {config.encoder.checkpoint!r}, the encoder itself, on"
      " which all is measured anyway."
    )


def _check_inversion(config: Config) -> None:
  """New tokens have images to learn from."""
  settings = config.textual_inversion
  if "retrieval" in settings.references and "retrieval" not in config.sources:
    raise UsageError(
      "config.textual_inversion.references asks for 'retrieval': add it to config.sources, so that"
      " there are such images."
    )
  if "folder" in settings.references and not settings.folder:
    raise UsageError(
      "config.textual_inversion.references asks for 'folder': give config.textual_inversion.folder,"
      " where they lie."
    )


_CHECKS = (_check_sources, _check_kept_images, _check_encoders, _check_inversion)
