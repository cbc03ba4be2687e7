"""The documentation is correct: examples, links, settings. test_documented_commands.py runs its
commands.
"""

import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest
from selenium.webdriver.support.ui import WebDriverWait

from genbench_jax.metrics.registry import METRICS
from genbench_jax.models.image_encoder import ENCODERS
from genbench_jax.sources.registry import SOURCES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path, language):
  text = path.read_text(encoding="utf-8")
  return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def examples():
  page = ROOT / "docs" / "extending.md"
  for number, block in enumerate(blocks(page, "python")):
    yield pytest.param(block, id=block.split("\n")[0][:40] + f" {number}")


@pytest.fixture
def _registries_as_before():
  """Remove what an example registers, which later tests in this process would find."""
  sources, encoders, metrics = dict(SOURCES), dict(ENCODERS), list(METRICS)
  yield
  for registry, before in ((SOURCES, sources), (ENCODERS, encoders)):
    registry.clear()
    registry.update(before)
  METRICS[:] = metrics


@pytest.mark.parametrize("example", list(examples()))
def test_example_of_extending_runs(example, _registries_as_before):
  code = [line for line in example.splitlines() if line.strip()]
  assert len(code) < 40
  known = set(SOURCES)
  exec(compile(example, "docs/extending.md", "exec"), {"__name__": "example"})
  for name in SOURCES.keys() - known:
    made_by_a_stage(SOURCES[name], name)


def made_by_a_stage(source, name):
  """Make an image set with the example's source, as the stage does."""
  from genbench_jax.cells import ImageSetKey
  from genbench_jax.config import Config
  from genbench_jax.pipeline.artifacts import image_layout
  from genbench_jax.run import Run

  run, key = Run(Config(shots=(1, 2)), Path("unused")), ImageSetKey("digits", name, "", 0)
  layout = image_layout(run, key)
  records = [record for _, some in source.records(run, key, layout, [0]) for record in some]
  assert [record.index for record in records] == list(range(20))
  assert {record.label for record in records} == set(range(10))


def test_python_of_the_readme_names_existing_functions():
  import genbench_jax as gb

  for block in blocks(ROOT / "README.md", "python"):
    compile(block, "README.md", "exec")
    for name in re.findall(r"\bgb\.(\w+)\(", block):
      assert callable(getattr(gb, name)), name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_are_valid(path):
  text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
  for target in re.findall(r"\]\(([^)#\s]+)", text):
    if not target.startswith(("http://", "https://")):
      assert (path.parent / target).exists(), target


def test_the_configuration_reference_is_current(monkeypatch):
  """If this fails: python tools/config_reference.py"""
  monkeypatch.syspath_prepend(str(ROOT / "tools"))
  import config_reference

  assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == config_reference.page()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
  """The built site; it is built without a warning."""
  pytest.importorskip("mkdocs")
  folder = tmp_path_factory.mktemp("site")
  done = subprocess.run(
    [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
    cwd=ROOT, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout + done.stderr
  return folder


@pytest.mark.browser
def test_search_and_equations_work_from_disk(site, browser):
  browser.get_log("browser")
  for query, page in (("--strict", "inputs.html"), ("tfds:beans", "3_own"), ("Fréch", "metrics")):
    browser.get(f"{(site / 'search.html').as_uri()}?{urllib.parse.urlencode({'q': query})}")
    WebDriverWait(browser, 10).until(
      lambda opened, page=page: opened.find_elements(
        "css selector", f"#mkdocs-search-results a[href*='{page}']"
      )
    )
  browser.get((site / "how_it_works.html").as_uri())
  count = "return document.querySelectorAll(arguments[0]).length"
  assert browser.execute_script(count, ".arithmatex .katex") > 10
  assert browser.execute_script(count, ".katex-error") == 0
  assert browser.get_log("browser") == []


def test_the_pages_build_without_a_warning(site):
  assert "frechet_distance" in (site / "api.html").read_text(encoding="utf-8")
  # The site contains its own renderer of equations, notebooks, pages from other folders, and an offline search.
  page = (site / "how_it_works.html").read_text(encoding="utf-8")
  assert 'class="arithmatex"' in page and "assets/katex/katex.min.js" in page
  assert (site / "assets" / "katex" / "katex.min.js").stat().st_size > 100_000
  assert (site / "notebooks" / "choose_guidance.html").exists()
  assert (site / "launch.html").exists()
  assert (site / "search" / "index.js").read_text().startswith("window.searchDocuments = [")
  for built in site.rglob("*.html"):
    outside = re.findall(
      r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', built.read_text()
    )
    assert not outside, (built, outside)
