"""Run every command of the documentation, page by page in the order below, in one folder.

Downloads are replaced by files of the package, large sizes by small ones, and the clouds' tools by
substitutes that print their arguments. NOT_RUN lists the commands that are not run, with the
reason; their words are still checked against the parser. The commands of a page build on earlier
ones.
"""

import contextlib
import importlib
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genbench_jax.benchmark.reader import open_split
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.cli.genbench import COMMANDS, main as genbench
from genbench_jax.zoo.tiny import SHALLOW_UNET, write_tiny_dinov2, write_tiny_stable_diffusion

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
# The first pages make what the others use.
FIRST = ("docs/commands.md", "README.md", "launch/README.md")
OTHERS = (path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("docs/**/*.md")))
PAGES = tuple(dict.fromkeys([*FIRST, *OTHERS, "CONTRIBUTING.md", "genbench_jax/zoo/README.md"]))
# The beginning of a command, and why it is not run here.
NOT_RUN = {
  "git clone": "the network",
  "cd genbench_jax": "we are there",
  "pip install": "the network; `make install` is what CI starts with",
  "make demo": ".ci/run runs it",
  "make test": "the tests themselves; .ci/run runs `make test-all`, which this is in",
  "make lint": ".ci/run runs it",
  "make types": ".ci/run runs it",
  "make docs": "test_docs.py builds the pages by the same command",
  "make mock": "ten minutes; the README's run of full.py is run on the same stand-ins",
  "tensorboard": "a server of others; test_trackers.py reads what it would show",
  "genbench benchmark prepare": "the network; benchmark/test_tfds_prepare.py prepares a small one",
  "genbench selfcheck": "pipeline/test_selfcheck.py runs it",
  "genbench submit": "report/test_submission.py runs it on a finished folder",
  "python leaderboard/build.py": "report/test_submission.py builds the page",
  "docker": "a daemon and the network; test_repository.py reads the file",
  "genbench embed ~/tensorflow_datasets": "400 million rows; retrieval/test_records.py makes such pools",
  "genbench fid": "Inception's weights, which don't ship; pipeline/test_fid.py runs it with a small encoder",
  "genbench sanity": "a minute; metrics/test_sanity.py runs it on small features",
  "python -m genbench_jax.zoo.": "trains models, for an hour or more; zoo/test_training.py takes single steps",
  "python -m pytest": "the tests themselves",
  "pytest": "the tests themselves",
  "python benchmarks/soak.py": "an hour",
  "genbench evaluate imgs": "20,000 images, for minutes; pipeline/test_evaluate.py scores small folders",
  "python tools/mutate.py": "runs tests again and again, for an hour",
  "python tools/signal_trials.py": "sends signals for an hour; runtime/test_stopping.py sends some",
  "python tools/run_notebooks.py": "writes into examples/; test_examples.py runs the notebooks",
  "python tools/config_reference.py": "writes into docs/; test_docs.py holds the page against it",
  "pip-audit": "the network",
  "genbench pins": "the network; test_pins.py runs it on folders",
  "uv pip compile": "the network",
}
# Arguments that readers replace or download, and their substitutes.
REPLACED = {
  "openai/clip-vit-base-patch32": "zoo/clip",
  "facebook/dinov2-base": "tiny_dinov2",
  "--dataset cifar10": "--dataset digits",
  'run full --config.datasets="(\'cifar10\',)" --config.shots="(1, 4, 16, 64)" --workdir': "run full:mock "
  "--config.datasets=\"('cifar10',)\" --workdir",
  "compare A B": "compare demo quick",
  "compare demo other": "compare demo quick",
  "--config ... --workdir ...": "--config configs/demo.py --workdir demo",
  "--config ...": "--config configs/demo.py",
  ".sh ...": ".sh --config configs/demo.py --workdir demo",
}
# Files that every run leaves in its work folder.
FILES = ("results.csv", "results.jsonl", "report/index.html")
# Settings of every run, unless the command sets them. The diffusion model has random weights and
# compiles in seconds.
SMALL = {
  "datasets": "('digits',)",
  "shots": "(1,)",
  "generation.strategies": "('defined_template', 'negative_prompts')",
  "generation.checkpoint": "tiny_diffusion",
  "generation.steps": "1",
  "generation.batch_per_device": "4",
  "generation.shard_size": "8",
  "encoder.batch_per_device": "64",
  "scoring.quantities": "('zero_shot', 'cler', 'clip_score', 'fid')",
  "scoring.resamples": "10",
  "textual_inversion.steps": "1",
  "textual_inversion.shots": "1",
  "textual_inversion.batch": "1",
}
# Work folder of the evaluation that measures everything; the others measure little.
WHOLE_EVALUATION = "out"
EVALUATION = {
  "scoring.quantities": ("zero_shot", "cler", "clip_score", "fid"),
  "scoring.resamples": 10,
}
# The demo's few-step generator is a LoRA of the shipped model, not of the one with random weights.
DEMO = {"generators.few_step.loras": "()", "generation.strategies": "('defined_template',)"}
# Commands are tested here, not numbers: fast compilation may give slower programs.
QUICKLY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# Prints its arguments, one word a line, on standard error.
NOTES = '#!/usr/bin/env bash\nprintf "%s\\n" "$0" "$@" --END-- >&2\n'
STAND_INS = {
  "gcloud": NOTES + 'if [[ $4 == describe ]]; then echo READY; fi\n',
  "srun": NOTES,
  "python": NOTES,
  "sbatch": '#!/usr/bin/env bash\nwhile [[ $1 == --* ]]; do shift; done\nexec bash "$@"\n',
  "kubectl": '#!/usr/bin/env bash\nfor word; do [[ $word != *.yaml ]] || test -s "$word" || exit 1; done\n',
}  # fmt: skip


# In prose: a command by its name alone, or with placeholders in capitals.
_REFERENCE = re.compile(r"^python -m [\w.]+$|^genbench \w+$|^genbench .* [A-Z]{1,8}( |$)")


def commands():
  """Return the commands of all pages, each once: lines of shell blocks, and inline code with arguments."""
  found = {}
  for page in PAGES:
    text = (ROOT / page).read_text(encoding="utf-8")
    fenced = r"^```(\w*)\n(.*?)^```"
    lines = [
      part.strip()
      for language, block in re.findall(fenced, text, re.MULTILINE | re.DOTALL)
      if language == "sh"
      for line in block.replace("\\\n", " ").splitlines()
      for part in line.partition("  #")[0].split(" && ")
    ]
    prose = re.sub(fenced, "", text, flags=re.MULTILINE | re.DOTALL)
    start = r"(?:[A-Z_]+=\S+ )*(?:(?:genbench|python|make|pytest|sbatch|kubectl|uv|pip-audit|launch/\S+) \S|--plan ).*"
    lines += [code for code in re.findall(r"`([^`\n]+)`", prose) if re.fullmatch(start, code)]
    for line in lines:
      words = " ".join(line.split())
      is_reference = _REFERENCE.search(words) and line in prose
      if words and not words.startswith("#") and not is_reference:
        found.setdefault(words, page)
  return [pytest.param(words, id=f"{page}: {words[:70]}") for words, page in found.items()]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A folder like a reader's: the checkout's configs, own images, and the substitutes."""
  folder = tmp_path_factory.mktemp("reader")
  (folder / "configs").symlink_to(ROOT / "configs")
  spec, split = dataset_spec("digits"), open_split(dataset_spec("digits"), "train")
  for index in range(30):
    example = split.example(index)
    image = folder / "my_images" / spec.names[example["label"]] / f"{index}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    example["image"].save(image)
    image.with_suffix(".txt").write_text(f"a photo of the number {spec.names[example['label']]}")
  own_dataset(folder)
  shutil.make_archive(folder / "other_images", "zip", folder / "my_images")
  made_by_another_program(folder)
  write_tiny_stable_diffusion(folder / "tiny_diffusion", unet=SHALLOW_UNET)
  write_tiny_dinov2(folder / "tiny_dinov2")
  tools = folder / "tools"
  tools.mkdir()
  for name, script in STAND_INS.items():
    (tools / name).write_text(script)
    (tools / name).chmod(0o755)
  stand_in = tools / "genbench_jax"
  stand_in.mkdir()
  (stand_in / "__init__.py").touch()
  (stand_in / "main.py").write_text(
    "import sys\nprint('python', '-m', 'genbench_jax.main', *sys.argv[1:], '--END--', sep='\\n', file=sys.stderr)\n"
  )
  return folder


def own_dataset(folder):
  """Make the dataset of the tutorial, with its YAML, and images to score on it."""
  page = (ROOT / "docs/tutorial/3_own_dataset.md").read_text(encoding="utf-8")
  [text] = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
  for place in ("leaves/train", "leaves/test", "my_leaves"):
    for number, name in enumerate(("healthy", "rust")):
      (folder / place / name).mkdir(parents=True)
      for shot in range(3):
        image = Image.new("RGB", (16, 16), (200 * number, 90 * shot, 50 + len(place)))
        image.save(folder / place / name / f"{shot}.jpg")
  (folder / "leaves" / "dataset.yaml").write_text(text, encoding="utf-8")
  page = (ROOT / "docs/howto/inputs.md").read_text(encoding="utf-8")
  [text] = re.findall(r"^```csv\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
  (folder / "map.csv").write_text(text, encoding="utf-8")


def made_by_another_program(folder):
  """Make the list of the page on other generators, and the images that its code makes from it."""
  page = (ROOT / "docs/howto/any_generator.md").read_text(encoding="utf-8")
  code, shown, command = (
    re.search(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1]
    for language in ("python", "json", "sh")
  )
  with contextlib.chdir(folder):
    assert genbench(shlex.split(command)[1:]) == 0
    assert shown.strip() in (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    draw = np.random.default_rng(0)
    pixels = lambda *_, seed: Image.fromarray(draw.integers(0, 255, (8, 8, 3), np.uint8))  # noqa: E731
    exec(compile(code, "docs/howto/any_generator.md", "exec"), {"my_model": pixels})


@pytest.fixture(scope="module")
def ran(place):
  """A function that runs a module in one process on one device; it returns status and output."""
  process = subprocess.Popen(
    [sys.executable, str(Path(__file__).with_name("documented_program.py"))],
    env={**os.environ, "XLA_FLAGS": QUICKLY, "PYTHONPATH": str(ROOT)},
    cwd=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
  )  # fmt: skip

  def run(module, arguments):
    settings = {} if WHOLE_EVALUATION in arguments else EVALUATION
    print(json.dumps([module, arguments, settings]), file=process.stdin, flush=True)
    return json.loads(process.stdout.readline())

  with process:
    yield run
    process.kill()


@pytest.mark.parametrize("command", commands())
def test_command(command, place, ran, monkeypatch):
  monkeypatch.chdir(place)
  named = re.sub(r"^([A-Z_]+=\S* )+", "", command)
  reason = next((why for start, why in NOT_RUN.items() if named.startswith(start)), None)
  given = command if reason else with_stand_ins(command, place)
  words = [word for word in shlex.split(given) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
  words = as_module(words)
  if words[0] == "make":
    assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
  elif any(word.startswith("launch/") for word in words):
    run_launched(given, place)
  elif words[:2] == ["python", "-m"] and words[2].startswith("genbench_jax"):
    parse(words[2], words[3:]) if reason else run_module(words[2], words[3:], ran)
  elif words[:1] == ["python"] and words[1].endswith(".py"):
    assert reason and (ROOT / words[1]).exists()
  else:
    assert reason, f"unknown command {words[0]}"


def as_module(words):
  """Return `genbench NAME ...` as its module with arguments."""
  if words[0] != "genbench" or words[1].startswith("-"):
    return words
  name, rest = words[1], words[2:]
  if name in ("run", "plan"):
    rest = rest if rest[0].startswith("-") else ["--config", *rest]
    rest = [*rest, *(["--plan"] if name == "plan" else [])]
    return ["python", "-m", "genbench_jax.main", *rest]
  module = "import_images" if name == "import" else name
  return ["python", "-m", f"genbench_jax.cli.{module}", *rest]


def test_every_reason_has_its_command():
  known = [parameter.values[0] for parameter in commands()]
  for start in NOT_RUN:
    assert any(start in command for command in known), start


def with_stand_ins(command, place):
  """Return the command with substitutes for downloads, and with existing names."""
  if command.startswith("--plan"):
    command = f"genbench run full {command}"
  for written, instead in REPLACED.items():
    command = command.replace(written, instead)
  for kind, ending in (("images", ""), ("embeddings", ".safetensors")):
    for written in re.findall(rf"\w+/{kind}/digits/[\w-]+\*?{ending}", command):
      name = Path(written).stem.replace("SET", "generative-defined_template-seed0-0")
      label = name.rpartition("-")[0]
      found = min(place.glob(f"{written.partition('/')[0]}/{kind}/digits/{label}-*{ending}"))
      command = command.replace(written, str(found.relative_to(place)))
  return command


def parse(module, arguments):
  """Check that the module knows the words, without running it."""
  found = importlib.util.find_spec(module)
  name = module.rpartition(".")[2]
  if name == "main":
    parse_run(arguments)
  elif name in COMMANDS and module in (f"genbench_jax.{name}", f"genbench_jax.cli.{name}"):
    importlib.import_module(f"genbench_jax.cli.{name}").main.parse(arguments)
  else:
    source = Path(found.origin).read_text(encoding="utf-8")
    assert all(f'"{word}"' in source for word in arguments if word.startswith("--"))


def parse_run(arguments):
  """Check that the words are flags and settings of a run."""
  from genbench_jax.config import make_config
  from genbench_jax.main import run

  make_config(run.parse(arguments).config)


def run_module(module, arguments, ran):
  """Run the command and check the files that it names."""
  if module == "genbench_jax.main":
    give_tokens(arguments)
    settings = {"datasets": SMALL["datasets"]} if "--plan" in arguments else SMALL
    if Path(arguments[1]).stem == "demo":  # `demo:quick` has one generator
      settings = settings | DEMO
    small = [f"--config.{path}={value}" for path, value in settings.items()]
    # Settings of the command come last and win.
    arguments = [*arguments[:2], *small, *arguments[2:]]
  if module == "genbench_jax.cli.evaluate" and "--encoder" not in arguments:
    arguments = [*arguments, "--encoder", "zoo/clip"]
  status, said = ran(module, arguments)
  # The table of datasets ends with status 1 if some are not ready.
  assert status == (1 if not arguments and module.endswith(".benchmark") else 0), said
  assert said
  made = [b for a, b in itertools.pairwise(arguments) if a in ("--out", "--workdir")]
  made += [f"{work}/{file}" for work in made for file in FILES if module == "genbench_jax.main"]
  made += arguments[-1:] if "--to" in arguments else []
  assert all(Path(path).exists() for path in made), said


def give_tokens(arguments):
  """Provide tokens by class name: those that the previous command has learned."""
  if any("my_tokens" in word for word in arguments) and not Path("my_tokens").exists():
    learned = sorted(Path("runs/inversion").rglob("learned_embeds.safetensors"))
    for name, path in zip(dataset_spec("digits").names, learned, strict=True):
      (Path("my_tokens") / name).mkdir(parents=True)
      shutil.copy(path, Path("my_tokens") / name)


def run_launched(command, place):
  """Run a launch script with substitutes; check what reaches `genbench_jax.main` against its flags."""
  command = re.sub(r"(?<!\S)launch/", f"{ROOT}/launch/", command)
  command = re.sub(r"^python ", f"{sys.executable} ", command)
  done = subprocess.run(
    ["bash", "-c", command],
    env={"PATH": f"{place / 'tools'}:/usr/bin:/bin", "PYTHONPATH": str(place / "tools"), "PAUSE": "0", "HOME": str(place)},
    capture_output=True, text=True, timeout=120, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  # Output of parallel processes is interleaved: sort the lines by process.
  number = re.compile(r"^\[\d+\] |^")
  lines = sorted(done.stderr.splitlines(True), key=lambda line: number.match(line).group())
  said = "".join(number.sub("", line, count=1) for line in lines)
  calls = [call.splitlines() for call in said.split("--END--\n")]
  # Over ssh, the command is one word.
  calls += [shlex.split(call[-1].removeprefix("--command=")) for call in calls if call[-1:]]
  mains = [
    call[call.index("genbench_jax.main") + 1 :] for call in calls if "genbench_jax.main" in call
  ]
  assert mains or "--config" not in command
  for arguments in mains:
    parse_run(arguments)
