"""The page follows the rows: edited, deleted or damaged files are noticed and made again."""

import csv
import dataclasses
import html
import json
import re
import shutil

import pytest

from genbench_jax.config import Config, Encoder, Recognition, Report, Scoring
from genbench_jax.errors import RunError
from genbench_jax.pipeline.stages import run_stages
from genbench_jax.report.comparison_page import compare_folders, short_names
from genbench_jax.report.from_disk import EDITED, rebuild
from genbench_jax.report.submission import submission
from genbench_jax.store import files
from genbench_jax.zoo.tiny import write_tiny_clip

STAGES = ("images", "embed", "score", "recognize", "report")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  clip = write_tiny_clip(tmp_path_factory.mktemp("models") / "clip")
  return Config(
    datasets=("shapes",),
    sources=("original",),
    shots=(1,),
    encoder=Encoder(str(clip), batch_per_device=16),
    scoring=Scoring(quantities=("zero_shot", "cler"), resamples=10),
    recognition=Recognition(language_init=False),
    report=Report(title="A"),
  )


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  run_stages(config, workdir, STAGES, "the command of A")
  return workdir


@pytest.fixture
def workdir(finished, tmp_path):
  return shutil.copytree(finished, tmp_path / "run")


def contents(workdir):
  return {
    path.relative_to(workdir).as_posix(): path.read_bytes()
    for path in workdir.rglob("*")
    if path.is_file()
  }


def page(workdir):
  return (workdir / "report" / "index.html").read_text(encoding="utf-8")


def about(workdir):
  return json.loads((workdir / "report" / "run.json").read_text())["run"]


def edit_rows(workdir):
  path = workdir / "results.jsonl"
  path.write_text(re.sub(r'"value": [0-9.]+', '"value": 0.999999', path.read_text()))


def edit_rows_and_rebuild(workdir):
  edit_rows(workdir)
  rebuild(workdir)


def damage_classes(workdir):
  for path in (workdir / "classes").rglob("*.jsonl"):
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize(
  "change",
  [
    edit_rows,
    edit_rows_and_rebuild,
    damage_classes,
    lambda workdir: shutil.rmtree(workdir / "classes"),
    lambda workdir: (workdir / "results.csv").unlink(),
    lambda workdir: (workdir / "report" / "tables" / "cells.csv").write_text("x"),
    lambda workdir: (workdir / "report" / "index.html").unlink(),
  ],
)
def test_changed_files_are_restored(config, finished, workdir, change):
  change(workdir)
  assert contents(workdir) != contents(finished)
  run_stages(config, workdir, STAGES, "the command of A")
  before, after = contents(finished), contents(workdir)
  assert after.keys() == before.keys()
  for name in ("results.jsonl", "results.csv", "report/tables/cells.csv"):
    assert _without_seconds(after[name]) == _without_seconds(before[name])
  assert {n: c for n, c in after.items() if n.startswith("classes/")} == {
    n: c for n, c in before.items() if n.startswith("classes/")
  }


def _without_seconds(content):
  lines = content.decode().splitlines()
  if lines[0].startswith("{"):
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
  return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(lines)]


def test_a_rebuilt_page_shows_the_same_images(workdir):
  before = page(workdir)
  assert "Nearest test image" in before
  rebuild(workdir)
  assert page(workdir).count("data:image") == before.count("data:image")


def test_a_page_of_edited_rows_says_so(workdir):
  edit_rows_and_rebuild(workdir)
  assert EDITED in page(workdir)


def test_rows_of_one_config_are_not_shown_under_another(config, workdir):
  other = dataclasses.replace(config, seeds=(7,), report=Report(title="B"))
  run_stages(other, workdir, STAGES[:3], "the command of B")
  rebuild(workdir)
  assert "<title>B" in page(workdir)
  assert about(workdir)["command"] == "the command of B"
  assert json.loads(about(workdir)["config"])["seeds"] == [7]
  run_stages(config, workdir, STAGES, "the command of A")
  assert "<title>A" in page(workdir) and about(workdir)["command"] == "the command of A"


def test_changed_code_redraws_the_page(config, workdir, monkeypatch):
  from genbench_jax.pipeline import report

  before = (workdir / "report" / "index.html").stat().st_mtime_ns
  run_stages(config, workdir, STAGES, "the command of A")
  assert (workdir / "report" / "index.html").stat().st_mtime_ns == before
  monkeypatch.setattr(report, "code_digest", lambda: "of another template")
  run_stages(config, workdir, STAGES, "the command of A")
  assert (workdir / "report" / "index.html").stat().st_mtime_ns > before


def test_old_rows_keep_the_versions_that_measured_them(config, workdir, monkeypatch):
  from genbench_jax.pipeline import cell_files, rows

  made_by = {row["versions"] for row in _rows(workdir)}
  assert len(made_by) == 1 and "jax 0." in made_by.copy().pop()
  for module in (rows, cell_files):
    monkeypatch.setattr(module, "versions", lambda: "genbench_jax 99, jax 99")
  damage_classes(workdir)
  run_stages(config, workdir, STAGES, "the command of A")
  found = {row["quantity"]: row["versions"] for row in _rows(workdir)}
  assert found["cler"] == "genbench_jax 99, jax 99"  # measured again
  assert {found["linear_probe"]} == made_by  # read from the probe's files


def _rows(workdir):
  return [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]


def test_a_rebuilt_page_shows_the_class_values_of_its_rows_alone(workdir):
  """Files of other data or an earlier version may have values of the same cells."""
  rebuild(workdir)
  before = page(workdir)
  for file in ("rows", "classes", "hits"):
    for path in (workdir / file).rglob("*.jsonl"):
      values = [
        {
          **line,
          **({"values": dict.fromkeys(line["values"], 0.0)} if file == "classes" else {}),
          "versions": "old",
        }
        for line in files.read_json_lines(path, sealed=True)
      ]
      files.write_json_lines(path.with_name(f"a-{path.name}"), values, sealed=True)
  rebuild(workdir)
  assert page(workdir) == before


def test_edited_rows_are_not_submitted_and_marked_in_a_comparison(
  workdir, finished, tmp_path, capsys
):
  edit_rows(workdir)
  with pytest.raises(RunError, match=r"changed after the run .* Run the same command again"):
    submission(workdir)
  shown = compare_folders([finished, workdir], tmp_path / "both").read_text()
  assert f"{short_names([finished, workdir])[1]}: {EDITED}" in html.unescape(shown)
  assert f"{workdir}: {EDITED}" in capsys.readouterr().err
  assert EDITED not in compare_folders([finished, finished], tmp_path / "same").read_text()
