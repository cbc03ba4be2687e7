"""The prompts of generated image sets: made from a config, with class sentences, and linted.

Of a checkpoint only the tokenizer is read, and nothing is put on a device.
"""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.cells import ImageSetKey, image_sets, strategy_parts
from genbench_jax.config import Config
from genbench_jax.errors import NotPreparedError, UsageError
from genbench_jax.models import checkpoints
from genbench_jax.models.configuration import Settings
from genbench_jax.models.diffusion_parts import part_settings
from genbench_jax.models.single_file import single_file_parts
from genbench_jax.models.tokenizer import load_tokenizer
from genbench_jax.prompts.lint import Finding, lint_prompts
from genbench_jax.prompts.strategies import Prompt, prompts_of_class
from genbench_jax.run import Run, sentence_pin
from genbench_jax.runtime.progress import Progress, say
from genbench_jax.store import files
from genbench_jax.store.versions import VERSIONS

# More than any list of templates contains: further prompts of a class repeat these.
_DISTINCT_PROMPTS = 100
# Lint findings to print; the rest is in a file.
_SAID = 10


def made_from(run: Run, key: ImageSetKey) -> dict[str, Any]:
  """Return what determines a set's prompts besides its key and templates; empty if nothing does."""
  settings, strategy = run.config.prompts, prompt_strategy(key)
  about: dict[str, Any] = {}
  if settings.protocol != "strict":
    about["protocol"] = settings.protocol
  elif strategy == "restrictive_description":
    about["version"] = 2
  if strategy == "category_enhancement" and settings.sentence_file:
    about["sentences"] = files.sha256(_sentence_file(run.config, key.dataset))
  elif strategy == "category_enhancement" and settings.sentence_model:
    about["sentences"] = sentence_model_fingerprint(run)
  return {"prompts": about} if about else {}


def grammar_notes(config: Config) -> list[str]:
  """Return a note if Category Enhancement uses our grammar instead of the T5 of the paper's code."""
  prompts = config.prompts
  if prompts.sentence_file or prompts.sentence_model:
    return []
  sets = [key for key in image_sets(config) if prompt_strategy(key) == "category_enhancement"]
  if not sets:
    return []
  return [
    "category_enhancement uses this package's small grammar; the paper's code uses sentences of the T5 "
    "mrm8488/t5-base-finetuned-common_gen (prompts.sentence_model). The strategy category_grammar uses the grammar explicitly."
  ]


def prompt_strategy(key: ImageSetKey) -> str:
  """Return the prompt strategy of a set, without modifiers."""
  return strategy_parts(key.strategy)[0]


def prompts_of_set(
  config: Config,
  key: ImageSetKey,
  count: int,
  fits: Callable[[str], bool],
  sentences: Sequence[Sequence[str]] = (),
  names: Sequence[str] = (),
) -> list[list[Prompt]]:
  """Return class -> shot -> prompt, for the first `count` shots.

  Args:
    config: the config.
    key: the image set.
    count: number of prompts per class.
    fits: whether a text fits into the text encoder's input.
    sentences: sentences of each class, for Category Enhancement.
    names: name of each class in its own prompts; the class name by default.
  """
  spec = config.spec(key.dataset)
  return [
    prompts_of_class(
      prompt_strategy(key),
      label,
      [*spec.names[:label], own, *spec.names[label + 1 :]],
      spec.templates,
      count,
      key.seed,
      fits,
      config.prompts.protocol,
      sentences[label] if sentences else (),
    )
    for label, own in enumerate(names or spec.names)
  ]


# ---- sentences ----------------------------------------------------------------------------------


def class_sentences(run: Run, key: ImageSetKey) -> tuple[tuple[str, ...], ...]:
  """Return the sentences of each class, from the user's file or the model; empty if the grammar makes them.

  Raises:
    NotPreparedError: the model has not written them yet.
  """
  settings, spec = run.config.prompts, run.config.spec(key.dataset)
  if prompt_strategy(key) != "category_enhancement":
    return ()
  if settings.sentence_file:
    return _read_sentences(_sentence_file(run.config, key.dataset), spec.names)
  if not settings.sentence_model:
    return ()
  path = _written_path(run, key)
  if not path.exists():
    raise NotPreparedError(f"there are no sentences of {key.name}. Run the stage `images` first.")
  return _read_sentences(path, spec.names)


def write_class_sentences(run: Run, key: ImageSetKey) -> None:
  """Let the model write the sentences of each class, unless they exist; stored in `sentence_file`'s format."""
  settings = run.config.prompts
  is_wanted = prompt_strategy(key) == "category_enhancement" and settings.sentence_model
  if is_wanted and not settings.sentence_file and not _written_path(run, key).exists():
    files.write_json(_written_path(run, key), _write_sentences(run, key))


def _written_path(run: Run, key: ImageSetKey) -> Path:
  names, settings = run.config.spec(key.dataset).names, run.config.prompts
  about = {"names": names, "model": sentence_model_fingerprint(run), "seed": key.seed}
  digest = files.digest({**about, "protocol": settings.protocol, "version": VERSIONS["images"]})
  return run.workdir / "sentences" / f"{key.dataset}-seed{key.seed}-{digest}.json"


def _write_sentences(run: Run, key: ImageSetKey) -> dict[str, list[str]]:
  from genbench_jax.models.t5 import load_sentence_model
  from genbench_jax.prompts.keyword_to_sentence import write_sentences

  settings, names = run.config.prompts, tuple(dict.fromkeys(run.config.spec(key.dataset).names))
  model = load_sentence_model(settings.sentence_model, settings.sentence_revision or None)
  written = {}
  with Progress(f"sentences {key.dataset}", len(names), "classes") as progress:
    for name in names:
      written[name] = write_sentences(model, name, key.seed, settings.protocol)
      progress.advance(1)
  return written


def _sentence_file(config: Config, dataset: str) -> Path:
  path = Path(config.prompts.sentence_file.replace("{dataset}", dataset)).expanduser()
  if not path.is_file():
    raise UsageError(f"config.prompts.sentence_file: the file {str(path)!r} does not exist.")
  return path


def _read_sentences(path: Path, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
  """Read the sentences of each class from a JSON file `{"class name": ["sentence", ...]}`."""
  try:
    given = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError, RecursionError) as error:
    raise UsageError(f"{path} can't be read as JSON: {error}.") from error
  if not isinstance(given, dict):
    raise UsageError(f'{path} must be {{"class name": ["sentence", ...], ...}}.')
  if missing := [name for name in names if not _are_sentences(given.get(name))]:
    raise UsageError(
      f"{path} has no list of sentences for {len(missing)} of {len(names)} classes, the first being {missing[0]!r}."
    )
  return tuple(tuple(given[name]) for name in names)


def _are_sentences(value: Any) -> bool:
  return (
    isinstance(value, list)
    and bool(value)
    and all(isinstance(text, str) and text.strip() for text in value)
  )


def sentence_model_fingerprint(run: Run) -> str:
  """Return the fingerprint of the model that writes sentences."""
  return run.fingerprint(sentence_pin(run.config))


# ---- lint ---------------------------------------------------------------------------------------


def lint(config: Config, fits: Callable[[str], bool] | None = None) -> list[str]:
  """Return the problems of a config's prompts, one sentence per problem and image set.

  Sentences that a model has yet to write are skipped.

  Args:
    config: the config.
    fits: whether a text fits into the text encoder's input; by default the checkpoint's tokenizer decides.
  """
  found: list[str] = []
  limits: dict[tuple[str, str], Callable[[str], bool]] = {}
  for key in image_sets(config):
    written = prompt_strategy(key) == "category_enhancement" and config.prompts.sentence_model
    if key.source != "generative" or (written and not config.prompts.sentence_file):
      continue
    own = config.of_generator(key.generator) if config.generators else config
    # The limit of another program's text encoder is unknown.
    of_model = (lambda text: True) if own.generation.backend else fits or _limit_of(own, limits)
    sentences: Sequence[Sequence[str]] = ()
    if prompt_strategy(key) == "category_enhancement" and config.prompts.sentence_file:
      path = _sentence_file(config, key.dataset)
      sentences = _read_sentences(path, config.spec(key.dataset).names)
    found += [f"{key.name}: {finding}" for finding in _findings(config, key, of_model, sentences)]
  return found


def _limit_of(
  config: Config, known: dict[tuple[str, str], Callable[[str], bool]]
) -> Callable[[str], bool]:
  """Return the text limit of the config's model; cached per checkpoint."""
  model = config.generation.checkpoint, config.generation.revision
  if model not in known:
    known[model] = prompt_limit(config)
  return known[model]


def _findings(
  config: Config,
  key: ImageSetKey,
  fits: Callable[[str], bool],
  sentences: Sequence[Sequence[str]],
) -> Iterator[Finding]:
  count = min(max(config.shots), _DISTINCT_PROMPTS)
  prompts = prompts_of_set(config, key, count, fits, sentences)
  wants_negatives = prompt_strategy(key) == "negative_prompts"
  yield from lint_prompts(prompts, config.spec(key.dataset).names, fits, wants_negatives)


def tell_lint(run: Run) -> list[str]:
  """Print up to ten problems of the prompts, store all in the work folder for the report, and return them."""
  path = run.workdir / "prompts" / f"lint-{files.digest(run.config.as_json())}.txt"
  if path.exists():
    return files.read_text(path).split("\n")[:-1]
  found = lint(run.config)
  files.write_text(path, "".join(f"{line}\n" for line in found))
  for line in found[:_SAID]:
    say(f"prompts: {line}")
  if len(found) > _SAID:
    say(f"prompts: {len(found) - _SAID} more, see {path}")
  return found


def prompt_limit(config: Config) -> Callable[[str], bool]:
  """Return a function that checks whether a text fits into the diffusion model's text encoder."""
  settings = config.generation
  folder, text = _text_side(settings.checkpoint, settings.revision or None)
  tokenizer = load_tokenizer(folder)
  positions = text.integer("max_position_embeddings", 77)
  return within(tokenizer, min(tokenizer.model_max_length, positions))


def _text_side(checkpoint: str, revision: str | None) -> tuple[Path, Settings]:
  """Return the tokenizer's folder of a diffusion model, and the configuration of its first text tower."""
  if checkpoints.is_single_file(checkpoint):
    parts = single_file_parts(Path(checkpoint).expanduser())
    return parts.tokenizers[0], parts.configs["text_encoder"]
  wanted = ("tokenizer/*.json", "tokenizer/merges.txt", "text_encoder/config.json")
  folder = checkpoints.locate(checkpoint, revision, wanted)
  return folder / "tokenizer", part_settings(folder, "text_encoder")


def within(tokenizer: Any, length: int) -> Callable[[str], bool]:
  """Return a function that checks whether a text has at most `length` tokens, including start and end.

  CLIP's tokens never span white space, so a text's count is the sum over its words, which are cached.
  """

  @functools.cache
  def tokens(word: str) -> int:
    return len(tokenizer.tokenize(word))

  return lambda text: 2 + sum(map(tokens, text.split())) <= length
