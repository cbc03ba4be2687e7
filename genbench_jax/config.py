"""The configuration: frozen, typed sections, read once from an ml_collections ConfigDict.

Each room defines its settings (`diffusion/settings.py`, `recognizers/settings.py`, ...). This file
combines them and checks constraints between settings. A config file starts from `default_config()`,
so that every leaf can be overridden on the command line.
"""

import dataclasses
import functools
import json
import re
import types
from collections.abc import Mapping
from typing import Annotated, Any

from ml_collections import ConfigDict

from genbench_jax.benchmark.own import is_own
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.spec import DatasetSpec
from genbench_jax.diffusion.generators import generator_sweep as generator_sweep, read_generators
from genbench_jax.diffusion.inversion.settings import TextualInversion
from genbench_jax.diffusion.settings import Generation
from genbench_jax.embedding.settings import Encoder
from genbench_jax.errors import UsageError, unknown_name
from genbench_jax.metrics.registry import KnownQuantities
from genbench_jax.prompts.settings import Prompts
from genbench_jax.recognizers.settings import RECOGNIZERS as RECOGNIZERS, Recognition
from genbench_jax.retrieval.settings import Retrieval
from genbench_jax.runtime.protocol import PROTOCOLS
from genbench_jax.runtime.settings import (
  Above,
  AtLeast,
  AtMost,
  Distinct,
  LocalPath,
  OneOf,
  read_section,
  read_table,
)
from genbench_jax.store.rows import SCORED

STAGES = ("images", "embed", "score", "recognize", "report")
SOURCES = ("generative", "original", "folder", "retrieval", "combined")
TRACKERS = ("tensorboard", "wandb")
SELECTIONS = ("none", "clip", "random")
BUDGETS = ("equal", "added", "long_tail")
MIXTURE_ORDERS = ("together", "real_last")


@dataclasses.dataclass(frozen=True)
class Selection:
  """Selection among generated images; by default all are kept.

  Attributes:
    method: `none` keeps all images; `clip` generates more and keeps those nearest to "a photo of a
      <class>"; `random` generates as many and keeps a seeded choice, as a control.
    candidates: number of images generated for each one kept.
    checkpoint: the CLIP or SigLIP that judges, a folder or hub id; use another than the encoder
      that measures. The published choice is `openai/clip-vit-base-patch16`.
    revision: hub revision, a commit; empty for local folders.
    sha256: checksum of the checkpoint.
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
    """Number of images generated for each one kept."""
    return self.candidates if self.is_on else 1


# Letters of any script; in UTF-8 at most 120 bytes, because the name becomes part of a file name.
FOLDER_NAME = re.compile(r"[^\W_](?:[\w. -]{0,58}[\w.-])?")
LONGEST_FOLDER_NAME = 120


@dataclasses.dataclass(frozen=True)
class Folder:
  """A user's own images, for the source `folder`.

  Attributes:
    path: the images, in any form of docs/howto/inputs.md; `{dataset}` is replaced by the dataset's
      name.
    paths: several named folders instead of `path`, each `name=path`; rows and page use the names.
    class_map: CSV, JSON or YAML file that maps folder names to class names.
    strict: whether a name that matches no class is an error; otherwise it is left out with a
      warning.
    real_images: number of real images of the dataset that were used to make these, for the report.
  """

  path: Annotated[str, LocalPath()] = ""
  paths: tuple[str, ...] = ()
  class_map: Annotated[str, LocalPath()] = ""
  strict: bool = False
  real_images: Annotated[int, AtLeast(0)] = 0

  @property
  def named_paths(self) -> dict[str, str]:
    """Name -> path; the name of a single `path` is empty."""
    if not self.paths:
      return {"": self.path}
    return {name: path for name, _, path in (text.partition("=") for text in self.paths)}


@dataclasses.dataclass(frozen=True)
class Mixture:
  """Original and external images together, for the source `combined`.

  Attributes:
    with_sources: sources to mix with originals, each with all its strategies; they and `original`
      must be sources of the config.
    ratio: external images per original image.
    budget: `equal` divides the images of a cell between both; `added` adds the external images to
      the originals; `long_tail` gives classes decreasing numbers of originals, in a seeded order,
      and fills each up to the shots with external images.
    imbalance: for `long_tail`, the ratio of the originals of the first class to those of the last.
    loss_weights: weights of real and of external images in the loss, such as 0.8 and 0.2; empty
      weighs all images equally.
    order: `together`, or `real_last` to train on the external images first and on the real ones
      afterwards.
  """

  with_sources: tuple[str, ...] = ("generative",)
  ratio: Annotated[float, Above(0)] = 1.0
  budget: Annotated[str, OneOf("budget", BUDGETS)] = "added"
  imbalance: Annotated[float, AtLeast(1)] = 10.0
  loss_weights: Annotated[tuple[float, ...], Above(0)] = ()
  order: Annotated[str, OneOf("order", MIXTURE_ORDERS)] = "together"


@dataclasses.dataclass(frozen=True)
class Scoring:
  """The metrics.

  Attributes:
    quantities: names of metrics.
    protocols: `strict`, `reference` or both.
    top_k: number of neighbors of `topk_vote`.
    resamples: number of bootstrap resamples.
    guides: real training images per class for `class_chamfer` and similar scores, set aside if
      `original` is a source; 0 for none. No recognizer uses them, but they count as real images
      seen.
  """

  quantities: Annotated[tuple[str, ...], OneOf("metric", KnownQuantities())] = SCORED
  protocols: Annotated[tuple[str, ...], OneOf("protocol", PROTOCOLS)] = ("strict",)
  top_k: Annotated[int, AtLeast(1)] = 10
  resamples: Annotated[int, AtLeast(1)] = 1000
  guides: Annotated[int, AtLeast(0)] = 8


@dataclasses.dataclass(frozen=True)
class Report:
  """The page and the trackers.

  Attributes:
    title: title of the page.
    gallery_images: number of images per class in a gallery.
    trackers: `tensorboard` (needs tensorboardX) and `wandb`, if installed; none by default.
  """

  title: str = "How good are these images as training data?"
  gallery_images: int = 6
  trackers: Annotated[tuple[str, ...], OneOf("tracker", TRACKERS)] = ()


@dataclasses.dataclass(frozen=True)
class Config:
  """A benchmark: datasets x sources x strategies x shots x seeds, and the settings of each stage.

  Attributes:
    datasets: names, folders, YAML files or TFDS names.
    sources: sources of external images.
    shots: numbers of images per class, one cell each; the largest determines how many images are
      generated.
    seeds: seeds of images and recognizers, one cell each.
    data_dir: folder of TFDS datasets; empty for TFDS's default.
    stand_in: number of drawn images per class and split that replace the real data; 0 uses the real
      data.
    generators: name -> settings of a generator. Settings that an entry omits, and strategies, kept
      images and shard size of all entries, are those of `generation`. Empty means that `generation`
      is the only one.
    encoders: name -> settings of a further encoder, which measures the same as far as it has text.
      `encoder` generates, retrieves and selects the images.
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
    """Name -> dataset, in the order of `datasets`; a user's own datasets are read now.

    Raises:
      UsageError: a dataset is unknown, or two have the same name.
    """
    found: dict[str, DatasetSpec] = {}
    for spec in map(dataset_spec, self.datasets):
      if spec.name in found:
        raise UsageError(_two_called(spec, found[spec.name]))
      found[spec.name] = spec
    return found

  def spec(self, name: str) -> DatasetSpec:
    """Return a dataset of the config by its name."""
    return self.specs[name]

  def of_generator(self, name: str) -> "Config":
    """Return the config with one generator of the table as the only one."""
    return dataclasses.replace(self, generation=self.generators[name], generators={})

  def as_json(self) -> str:
    text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)
    # Paths may contain other bytes than UTF-8, which Python represents as surrogates: escape them.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def default_config() -> ConfigDict:
  """Return a ConfigDict of all settings with their defaults; config files start from it."""
  return ConfigDict(dataclasses.asdict(Config()))


def parse_arguments(text: str, **defaults: Any) -> types.SimpleNamespace:
  """Return the typed arguments of `configs/x.py:a=1,b=word`; a bare name sets a flag.

  Args:
    text: the text after the colon.
    **defaults: name -> default, which determines the type.

  Raises:
    UsageError: the config has no such argument, or its type is wrong.
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


# What the entries of the tables are.
_TABLES = {"generators": Generation, "encoders": Encoder}


def check_setting(path: str) -> None:
  """Check that a path such as `generation.steps` names a setting.

  Raises:
    UsageError: it does not; the message has the nearest name and those of the same section.
  """
  section: Any = Config()
  known_so_far: tuple[str, ...] = ("config",)
  names = path.split(".")
  if names[0] in _TABLES and len(names) > 1:  # an entry of a table: its name is the config's own
    section, known_so_far, names = _TABLES[names[0]](), ("config", *names[:2]), names[2:]
  for name in names:
    if not dataclasses.is_dataclass(section):
      raise UsageError(f"{'.'.join(known_so_far)} is a single setting and has no {name!r}.")
    fields = [field.name for field in dataclasses.fields(section)]
    if name not in fields:
      known = [".".join((*known_so_far, field)) for field in fields]
      raise unknown_name("setting", ".".join((*known_so_far, name)), known)
    section, known_so_far = getattr(section, name), (*known_so_far, name)


def make_config(config_dict: Mapping[str, Any] | ConfigDict) -> Config:
  """Return the typed configuration.

  Raises:
    UsageError: an unknown key, a wrong type, an unknown name or a value out of range.
  """
  plain = {key: config_dict[key] for key in config_dict if key not in ("generators", "encoders")}
  config = read_section(Config, plain, "config")
  generators = read_generators(config.generation, config_dict.get("generators", {}))
  encoders = read_table(config.encoder, config_dict.get("encoders", {}), "config.encoders")
  config = dataclasses.replace(config, generators=generators, encoders=encoders)
  _ = config.specs  # rejects unknown datasets
  for check in _CHECKS:
    check(config)
  return dataclasses.replace(config, datasets=_canonical(config.datasets))


def _read(text: str, kind: type, path: str) -> Any:
  try:
    if kind is bool:
      return {"true": True, "false": False}[text.lower()]
    return kind(text)
  except (ValueError, KeyError) as error:
    raise UsageError(f"{path} is {text!r}, expected {kind.__name__}.") from error


def _canonical(datasets: tuple[str, ...]) -> tuple[str, ...]:
  """Replace aliases of built-in datasets by their names; keep a user's own datasets as given."""
  return tuple(name if is_own(name) else dataset_spec(name).name for name in datasets)


def _two_called(spec: DatasetSpec, known: DatasetSpec) -> str:
  places = " and ".join(
    dataset.folder or dataset.tfds_name or dataset.name for dataset in (known, spec)
  )
  return f"two datasets have the name '{spec.name}', {places}. Give one of them another 'name' in a YAML file."


# ---- constraints between settings ---------------------------------------------------------------


def _check_sources(config: Config) -> None:
  """Check that every source has what it needs."""
  if "folder" in config.sources:
    _check_folders(config.folder)
  if "retrieval" in config.sources and not config.retrieval.pool:
    raise UsageError(
      "the source `retrieval` needs config.retrieval.pool. Make one with genbench embed."
    )
  if "combined" in config.sources:
    if len(config.mixture.loss_weights) not in (0, 2):
      raise UsageError(
        f"config.mixture.loss_weights is {config.mixture.loss_weights}, expected two: real and external."
      )
    for source in ("original", *config.mixture.with_sources):
      if source not in config.sources or source == "combined":
        raise UsageError(
          "the source `combined` mixes `original` with config.mixture.with_sources: put"
          f" {source!r} in config.sources."
        )


def _check_folders(folder: Folder) -> None:
  """Check that there is one path, or several with names that can be part of file names."""
  if not folder.path and not folder.paths:
    raise UsageError("the source `folder` needs config.folder.path, the folder of the images.")
  if folder.path and folder.paths:
    raise UsageError("give config.folder.path or config.folder.paths, not both.")
  for text in folder.paths:
    name, _, path = text.partition("=")
    is_name = FOLDER_NAME.fullmatch(name) and len(name.encode()) <= LONGEST_FOLDER_NAME
    if not is_name or not path:
      raise UsageError(
        f"config.folder.paths has {text!r}, expected 'name=path' with a name of letters, digits,"
        " spaces, '_', '.' and '-'."
      )
  if len(folder.named_paths) < len(folder.paths):
    raise UsageError(f"config.folder.paths contains a name twice: {', '.join(folder.paths)}.")


def _check_kept_images(config: Config) -> None:
  """Check that no setting reads images that are not kept."""
  kept, most = config.generation.keep_images, max(config.shots)
  if kept == "all":
    return
  reader, enough = "", "'all'"
  if config.encoders:
    reader = "config.encoders embeds kept images"
  elif config.selection.is_on:
    reader = "config.selection.method selects among kept images"
  elif "generative" in config.sources:
    for name in filter(config.recognition.trains_on_images, config.recognition.recognizers):
      needed = most if "combined" in config.sources else _most_shots(config, name)
      if config.generation.kept_images(most) < needed:
        reader, enough = f"the recognizer `{name}` trains on images", f"'all' or '{needed}'"
  if reader:
    raise UsageError(
      f"{reader}, and config.generation.keep_images is {kept!r}: set it to {enough}."
    )


def _most_shots(config: Config, recognizer: str) -> int:
  """Return the largest number of shots of a recognizer's cells; 0 if it has none."""
  only = config.recognition.shots_of(recognizer)
  return max((shots for shots in config.shots if not only or shots in only), default=0)


def _check_generators(config: Config) -> None:
  """Check each generator for itself."""
  config.generation.check("config.generation")
  for name, generator in config.generators.items():
    generator.check(f"config.generators.{name}")


def _check_encoders(config: Config) -> None:
  for name, encoder in config.encoders.items():
    if encoder.checkpoint == config.encoder.checkpoint:
      raise UsageError(
        f"config.encoders.{name} is {encoder.checkpoint!r}, the same as config.encoder: remove it."
      )


def _check_recognizers(config: Config) -> None:
  for name in config.recognition.recognizers:
    if recipe := getattr(getattr(config.recognition, name, None), "recipe", None):
      recipe.check(f"config.recognition.{name}.recipe")


def _check_inversion(config: Config) -> None:
  """Check that new tokens have images to learn from."""
  settings = config.textual_inversion
  if "retrieval" in settings.references and "retrieval" not in config.sources:
    raise UsageError(
      "config.textual_inversion.references has 'retrieval': add 'retrieval' to config.sources, which"
      " finds those images."
    )
  if "folder" in settings.references and not settings.folder:
    raise UsageError(
      "config.textual_inversion.references has 'folder': give config.textual_inversion.folder, the"
      " folder of the tokens."
    )


_CHECKS = (
  _check_sources, _check_kept_images, _check_generators, _check_encoders, _check_recognizers,
  _check_inversion,
)  # fmt: skip
