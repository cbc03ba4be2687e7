"""The documentation says what is so: commands, examples, links, settings.

Commands of the package are held against its real flags and configs; what is cheap is really run. Of others (git, cd, pip ...) it is
checked that they are of the few that we know. `make demo` and the tests' own targets are run by `.ci/run`.
"""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# The beginnings of commands that aren't ours.
FOREIGN = (
  "git clone", "cd genbench_jax", "pip install", "tensorboard --logdir",
)  # fmt: skip
# What makes no work: run as it is written.
CHEAP = ("genbench_jax.benchmark show", "h100x8 --price")


def blocks(path, language):
  text = path.read_text(encoding="utf-8")
  return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands():
  for path in PAGES:
    for block in blocks(path, "sh"):
      for line in block.replace("\\\n", " ").splitlines():
        for command in line.partition("  #")[0].split(" && "):
          if command.strip() and not command.startswith("#"):
            yield pytest.param(command.strip(), id=f"{path.name}: {command.strip()[:70]}")


@pytest.mark.parametrize("command", list(commands()))
def test_command(command, monkeypatch):
  monkeypatch.chdir(ROOT)
  if command.startswith(FOREIGN):
    return
  words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=.*", word)]
  if words[0] == "make":
    assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
  elif launched := next((word for word in words if word.startswith("launch/")), None):
    check_script(ROOT / launched, words[words.index(launched) + 1 :])
  elif words[:2] == ["python", "-m"]:
    check_module(words[2], words[3:])
  else:
    raise AssertionError(f"nobody knows {words[0]}")
  if any(part in command for part in CHEAP):
    done = subprocess.run(
      [sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def check_module(module, arguments):
  if module == "genbench_jax.main":
    from genbench_jax.config import make_config
    from genbench_jax.main import _parse, _stages

    values = _parse(["main", *arguments])
    make_config(values.config)
    _stages(values.stages)
  elif module.startswith("genbench_jax"):
    found = importlib.util.find_spec(module)
    place = f"{module}.__main__" if found and found.submodule_search_locations else module
    parser = importlib.import_module(place)._parser()
    parser.parse_args(arguments)
  else:
    assert module in ("pytest", "mkdocs", "pip", "venv")


def check_script(path, arguments):
  """The script is there and knows its first argument and every option; what it passes on, the command knows."""
  text = path.read_text(encoding="utf-8")
  begin = next((i for i, word in enumerate(arguments) if word in ("--", "--config")), None)
  own, passed_on = (arguments, []) if begin is None else (arguments[:begin], arguments[begin:])
  for word in own:
    assert (
      word.partition("=")[0].lstrip("-") in (*re.findall(r"[\w-]+", text), "help") or word.isdigit()
    )
  if passed_on:
    check_module("genbench_jax.main", [word for word in passed_on if word != "--"])


def examples():
  page = ROOT / "docs" / "extending.md"
  for number, block in enumerate(blocks(page, "python")):
    yield pytest.param(block, id=block.split("\n")[0][:40] + f" {number}")


@pytest.mark.parametrize("example", list(examples()))
def test_example_of_extending_it_runs(example):
  code = [line for line in example.splitlines() if line.strip()]
  assert len(code) < 40
  from genbench_jax.sources.registry import SOURCES

  known = dict(SOURCES)
  try:
    exec(compile(example, "docs/extending.md", "exec"), {"__name__": "example"})
    for name in SOURCES.keys() - known:
      made_by_a_stage(SOURCES[name], name)
  finally:
    for name in SOURCES.keys() - known:
      del SOURCES[name]


def made_by_a_stage(source, name):
  """The example's source makes an image set as the stage would."""
  from genbench_jax.artefacts import image_layout
  from genbench_jax.config import Config
  from genbench_jax.plan import ImageSetKey
  from genbench_jax.run import Run

  run, key = Run(Config(shots=(1, 2)), Path("unused")), ImageSetKey("digits", name, "", 0)
  layout = image_layout(run, key)
  records = [record for _, some in source.records(run, key, layout, [0]) for record in some]
  assert [record.index for record in records] == list(range(20))
  assert {record.label for record in records} == set(range(10))


def test_python_of_the_readme_names_what_there_is():
  import genbench_jax as gb

  for block in blocks(ROOT / "README.md", "python"):
    compile(block, "README.md", "exec")
    for name in re.findall(r"\bgb\.(\w+)\(", block):
      assert callable(getattr(gb, name)), name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
  text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
  for target in re.findall(r"\]\(([^)#\s]+)", text):
    if not target.startswith(("http://", "https://")):
      assert (path.parent / target).exists(), target


def test_the_configuration_reference_is_current(monkeypatch):
  """If this fails: python tools/config_reference.py"""
  monkeypatch.syspath_prepend(str(ROOT / "tools"))
  import config_reference

  assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == config_reference.page()


def test_the_pages_build_without_a_warning(tmp_path):
  pytest.importorskip("mkdocs")
  done = subprocess.run(
    [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
    cwd=ROOT, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout + done.stderr
  assert "frechet_distance" in (tmp_path / "api.html").read_text(encoding="utf-8")
