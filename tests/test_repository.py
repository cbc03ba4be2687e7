"""Workflows, images, hooks and metadata refer to existing files and commands."""

import json
import os
import re
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import genbench_jax

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(path):
  for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
    yield from job["steps"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_existing_targets(path):
  makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
  for step in steps(path):
    assert ("uses" in step) != ("run" in step)
    assert re.fullmatch(r"[\w.-]+/[\w.-]+@\S+", step.get("uses", "a/b@v1"))
    for target in re.findall(r"^\s*make ([\w ]+)$", step.get("run", ""), re.MULTILINE):
      for name in target.split():
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name


def test_the_tests_run_on_every_supported_python():
  workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
  assert workflow["jobs"]["tests"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
  assert set(workflow["jobs"]) == {"lint", "types", "tests", "docs", "wheel"}


def test_forms_hooks_and_the_container_can_be_read():
  for path in [*(ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"), ROOT / ".pre-commit-config.yaml"]:
    assert yaml.safe_load(path.read_text(encoding="utf-8")), path
  assert json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())["postCreateCommand"]
  for file in re.findall(r"^COPY (\S+) \./$", (ROOT / "docker/Dockerfile").read_text(), re.M):
    assert (ROOT / file).exists(), file


def test_the_version_is_defined_once():
  asked = [sys.executable, "setup.py", "--version"]
  told = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
  assert told.split()[-1] == genbench_jax.__version__
  citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
  assert citation["version"] == genbench_jax.__version__


def test_dir_lists_public_names_only():
  assert set(dir(genbench_jax)) == set(genbench_jax.__all__)
  assert all(not name.startswith("_") for name in dir(genbench_jax))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  """The wheel, built from tracked files only, as `make wheel` does."""
  place = tmp_path_factory.mktemp("wheel")
  command = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", place / "dist"]
  source = place / "source"
  source.mkdir()
  for name in (
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "MANIFEST.in",
    "configs",
    "genbench_jax",
  ):
    (source / name).symlink_to(ROOT / name)
  done = subprocess.run(
    [sys.executable, *map(str, command), str(source)], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  [found] = (place / "dist").glob("*.whl")
  return found


def test_the_wheel_has_configs_types_and_checkpoints(wheel):
  names = zipfile.ZipFile(wheel).namelist()
  for name in (
    "py.typed",
    "configs/demo.py",
    "configs/full.py",
    "zoo/checkpoints/clip/model.safetensors",
  ):
    assert f"genbench_jax/{name}" in names
  assert not any("test" in name.split("/")[0] for name in names)


@pytest.mark.slow
def test_the_wheel_works_in_its_own_environment_from_another_folder(wheel, tmp_path):
  """All dependencies come from the environment of the tests."""
  venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
  python = tmp_path / "venv" / "bin" / "python"
  install = ["-m", "pip", "--python", str(python), "install", "-q", "--no-deps", str(wheel)]
  subprocess.run([sys.executable, *install], check=True, capture_output=True)
  [packages] = (tmp_path / "venv" / "lib").glob("python*/site-packages")
  (packages / "others.pth").write_text("\n".join(site.getsitepackages()) + "\n")
  elsewhere = tmp_path / "elsewhere"
  elsewhere.mkdir()
  environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

  def told(*command):
    done = subprocess.run(
      [str(tmp_path / "venv" / "bin" / command[0]), *command[1:]],
      cwd=elsewhere, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout

  assert told("genbench", "--version") == f"genbench {genbench_jax.__version__}\n"
  code = "import genbench_jax; print(genbench_jax.__file__)"
  assert told("python", "-c", code).startswith(str(packages))
  plan = told("genbench", "plan", "demo", "--config.datasets=('digits',)")
  assert "images to generate" in plan
  old_form = ("python", "-m", "genbench_jax.main", "--config", "configs/full.py:mock", "--plan")
  assert "22, 2548 classes" in told(*old_form, "--machine", "cpu")
  assert told("python", "-m", "genbench_jax.benchmark", "show", "digits").startswith(
    "digits: 10 classes"
  )
