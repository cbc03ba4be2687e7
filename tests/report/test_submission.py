"""Submissions: contents, privacy, validation, verification and the leaderboard."""

import copy
import json

import jsonschema
import pytest

from genbench_jax.cli.submit import main
from genbench_jax.errors import UsageError
from genbench_jax.report.board import board_data, measurements, read_entries, write_board
from genbench_jax.report.submission import checksum, public, submission, unpacked
from genbench_jax.report.submission_check import problems, schema, violations
from genbench_jax.store import files


@pytest.fixture
def workdir(rows, run, tmp_path):
  """A finished work folder: rows, run, manifest of one image set, features."""
  place = tmp_path / "my run"
  files.write_json_lines(place / "results.jsonl", rows)
  about = run | {
    "versions": {"genbench_jax": "1.0", **run["versions"]},
    "command": "genbench run /home/me/c.py --workdir ~/x",
    "config": json.dumps({"data_dir": "/data/tfds"}),
  }
  files.write_json(place / "report" / "run.json", {"run": about})
  made_from = {
    "dataset": "digits", "source": "generative", "strategy": "defined_template", "seed": 0, "steps": 8, "model": "ab12",
  }  # fmt: skip
  manifest = {
    "num_images": 160,
    "made_from": made_from,
    "shards": [{"sha256": "c0"}, {"sha256": "c1"}],
  }
  files.write_json(
    place
    / "images"
    / "digits"
    / "generative-defined_template-seed0-abc3781b5356"
    / "manifest.json",
    manifest,
  )
  for name in ("test-e929e1965d0e", "text-bd1bc7c4befb", "generative-x-dfe9d7b21afe"):
    (place / "embeddings" / "digits").mkdir(parents=True, exist_ok=True)
    (place / "embeddings" / "digits" / f"{name}.safetensors").touch()
  return place


@pytest.fixture
def document(workdir):
  return submission(workdir, "Ann", "a note")


def test_it_contains_rows_fingerprints_versions_plan_and_machine(document, rows):
  found = unpacked(document["rows"])
  assert len(found) == len(rows)
  assert found[5]["value"] == pytest.approx(rows[5]["value"], rel=1e-6)
  (images,) = document["image_sets"]
  assert images["fingerprint"] == "abc3781b5356"
  assert images["recipe"] == {"steps": 8, "model": "ab12"}
  assert document["features"]["digits"] == ["test-e929e1965d0e", "text-bd1bc7c4befb"]
  assert document["software"]["jax"] == "0.10.2"
  assert document["machine"]["device"] == "8 × cpu"
  # 4 strategies and the originals on 3 datasets at 5 budgets; controls are not counted.
  assert document["plan"]["cells_measured"] == 75


def test_it_contains_no_path_of_the_machine(document):
  text = json.dumps(document)
  assert "/home/me" not in text and "/data" not in text and "~/x" not in text
  assert document["plan"]["command"] == "genbench run …/c.py --workdir …/x"
  assert public({"a": ["C:\\Users\\me\\x.png", "zoo/clip"]}) == {"a": ["…/x.png", "zoo/clip"]}


def test_a_valid_submission_has_no_problems(document):
  assert problems(document) == []
  assert problems(json.loads(json.dumps(document))) == []
  jsonschema.validate(document, schema())


def _sealed(document, **changes):
  changed = copy.deepcopy(document) | changes
  return changed | {"checksum": checksum(changed)}


def test_manual_changes_are_detected(document):
  changed = copy.deepcopy(document)
  changed["rows"]["data"][3][changed["rows"]["columns"].index("value")] = 0.99
  assert any("changed by hand" in text for text in problems(changed))


def test_impossible_values_are_reported(document):
  columns, data = document["rows"]["columns"], document["rows"]["data"]
  place = columns.index("value")
  wrong = [list(row) for row in data]
  wrong[1][place] = 1.2
  found = problems(_sealed(document, rows={"columns": columns, "data": wrong}))
  assert "1.2 is not an accuracy" in found[0]
  twice = problems(_sealed(document, rows={"columns": columns, "data": [*data, data[0]]}))
  assert "is given twice" in twice[0]
  short = problems(_sealed(document, rows={"columns": columns, "data": [*data, [1]]}))
  assert "has 1 values" in short[0]
  plan = document["plan"] | {"cells_measured": 150}
  assert "but the rows are of 75 cells" in problems(_sealed(document, plan=plan))[0]


HOSTILE = (
  None, True, -1, 10**400, float("nan"), float("inf"), [], {}, "\ud800", "</script>", 1e308, "x" * 100,
)  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize("column", ["dataset", "quantity", "shots", "value", "ci_low", "encoder"])
def test_a_row_of_any_values_is_rejected_or_shown(document, column, value, tmp_path):
  columns = document["rows"]["columns"]
  data = [list(row) for row in document["rows"]["data"]]
  for row in data[:2]:
    row[columns.index(column)] = value
  changed = _sealed(document, rows={"columns": columns, "data": data})
  if not problems(changed):
    write_board([("a.json", changed)], tmp_path)


@pytest.mark.parametrize("value", [7, None, {}, [7], "digits"])
def test_features_are_lists_of_fingerprints(document, value):
  changed = _sealed(document, features={"digits": value})
  assert "submission.features.digits" in problems(changed)[0]
  with pytest.raises(jsonschema.ValidationError):
    jsonschema.validate(changed, schema())


def test_a_value_nested_too_deeply_is_reported(document):
  deep = {}
  for _ in range(100_000):
    deep = {"in": deep}
  assert "it is no JSON value" in problems(document | {"features": deep})[0]


@pytest.mark.parametrize(
  ("path", "content"),
  [
    ("results.jsonl", '{"dataset": [], "source": "s", "quantity": "q", "value": 1}\n'),
    ("results.jsonl", "[]\n"),
    ("images/digits/x-abc3781b5356/manifest.json", "[]"),
    ("images/digits/x-abc3781b5356/manifest.json", '{"num_images": 3, "shards": 7}'),
    ("report/run.json", '{"run": {}, "generators": 7}'),
  ],
)
def test_a_damaged_work_folder_is_one_line(workdir, path, content, tmp_path, capfd):
  files.write_text(workdir / path, content)
  assert main([str(workdir), "--out", str(tmp_path / "x.json")]) == 1
  error = capfd.readouterr().err
  assert "is damaged" in error and "Traceback" not in error
  assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
  ("path", "value"),
  [
    (("by",), 7), (("made",), "yesterday"), (("title",), "x" * 201), (("version",), 2), (("rows", "data"), []),
    (("machine", "devices"), -1), (("machine", "devices"), True), (("image_sets", 0, "fingerprint"), "ABC"),
    (("software",), {"jax": "1"}), (("plan",), []),
  ],
)  # fmt: skip
def test_the_checker_agrees_with_jsonschema(document, path, value):
  changed = copy.deepcopy(document)
  place = changed
  for key in path[:-1]:
    place = place[key]
  place[path[-1]] = value
  assert list(violations(changed, schema(), "submission"))
  with pytest.raises(jsonschema.ValidationError):
    jsonschema.validate(changed, schema())


@pytest.mark.parametrize("other", [None, [], "x", {}, {"format": "genbench-submission"}])
def test_other_files_are_rejected(other):
  assert problems(other)


def test_the_command_writes_and_checks(workdir, tmp_path, capfd):
  out = tmp_path / "entry.json"
  assert main([str(workdir), "--by", "Ann", "--out", str(out)]) == 0
  assert main(["--check", str(out)]) == 0
  assert "is valid" in capfd.readouterr().err
  out.write_text("{}")
  assert main(["--check", str(out)]) == 2
  assert main([]) == 2
  assert main([str(tmp_path / "nowhere")]) == 2
  said = capfd.readouterr().err
  assert "is not a valid submission: submission.format is missing." in said
  assert "Traceback" not in said


def _checked(documents):
  data = board_data(documents)
  names = [column["name"] for column in data["columns"]]
  rows = [dict(zip(names, row, strict=True)) for row in data["rows"]]
  return {
    (row["by"], row["dataset"], row["strategy"], row["shots"]): row["checked"]
    for row in rows
    if row["source"] == "generated"
  }


def test_verified_needs_another_run_with_the_same_inputs_and_values(document):
  other = _sealed(document, by="Ben")
  found = _checked([document, other])
  assert found["Ann", "digits", "defined template", 4] == "verified, 2 runs"
  # No image set of shapes is known, so the inputs may differ.
  assert found["Ann", "shapes", "defined template", 4] == "one run"
  assert _checked([document, document])["Ann", "digits", "defined template", 4] == "one run"


def test_a_value_that_differs_is_disputed(document):
  rows = copy.deepcopy(document["rows"])
  at = {name: rows["columns"].index(name) for name in ("dataset", "quantity", "value")}
  for row in rows["data"]:
    if row[at["dataset"]] == "digits" and row[at["quantity"]] == "linear_probe":
      row[at["value"]] -= 0.02
  found = _checked([document, _sealed(document, by="Ben", rows=rows)])
  assert found["Ann", "digits", "defined template", 4].startswith("disputed: linear probe")


def test_other_images_do_not_verify(document):
  sets = copy.deepcopy(document["image_sets"])
  sets[0]["fingerprint"] = "0123456789ab"
  found = _checked([document, _sealed(document, by="Ben", image_sets=sets)])
  assert found["Ann", "digits", "defined template", 4] == "one run"


def test_every_line_has_its_recipe(document):
  data = board_data([document])
  place = [column["kind"] for column in data["columns"]].index("recipe")
  names = [column["name"] for column in data["columns"]]
  row = next(
    row for row in data["rows"]
    if (row[names.index("dataset")], row[names.index("strategy")]) == ("digits", "defined template")
    and row[names.index("source")] == "generated"
  )  # fmt: skip
  recipe = dict(data["recipes"][row[place]])
  assert recipe["steps"] == "8"
  assert "abc3781b5356" in recipe["images"]
  assert len(measurements(0, document)) == 75


def test_an_invalid_file_stops_the_board(document, tmp_path):
  (tmp_path / "a.json").write_text(json.dumps(document))
  assert [name for name, _ in read_entries(tmp_path)] == ["a.json"]
  (tmp_path / "b.json").write_text(json.dumps(document | {"by": "Eve"}))
  with pytest.raises(UsageError, match=r"b\.json is not a valid submission"):
    read_entries(tmp_path)
  with pytest.raises(UsageError, match="no submission"):
    read_entries(tmp_path / "empty")


@pytest.mark.browser
def test_board_in_the_browser(browser, document, tmp_path):
  hostile = "<img src=x onerror='window.pwned = 1'>"
  browser.get_log("browser")
  page = write_board([("a.json", document), ("b.json", _sealed(document, by=hostile))], tmp_path)
  browser.get(page.as_uri())
  assert browser.execute_script("return window.pwned") is None
  heads = browser.execute_script(
    "return [...document.querySelectorAll('#board-table th button')].map(b => b.textContent)"
  )
  assert "checked" in heads and "recipe" in heads
  browser.execute_script(
    "[...document.querySelectorAll('#board-table th button')].find(b => b.textContent === 'linear probe').click()"
  )
  place = heads.index("linear probe")
  values = browser.execute_script(
    "return [...document.querySelectorAll('#board-table tbody tr')].map(r => r.children[arguments[0]].firstChild.textContent)", place
  )  # fmt: skip
  assert [float(value) for value in values] == sorted(map(float, values), reverse=True)
  assert "verified, 2 runs" in browser.page_source or browser.execute_script(
    "return document.body.textContent.includes('verified, 2 runs')"
  )
  assert browser.get_log("browser") == []


def test_the_entries_in_the_repository_are_valid_and_verify_each_other():
  from pathlib import Path

  folder = Path(__file__).parents[2] / "leaderboard" / "entries"
  data = board_data([document for _, document in read_entries(folder)])
  place = [column["name"] for column in data["columns"]].index("checked")
  checked = [row[place] for row in data["rows"]]
  assert checked.count("verified, 2 runs") == 4
  assert not any(text.startswith("disputed") for text in checked)


def test_rows_contain_no_path_of_the_machine(workdir, rows):
  changed = [{**row, "encoder": "/home/me/models/clip"} for row in rows]
  files.write_json_lines(workdir / "results.jsonl", changed)
  found = unpacked(submission(workdir)["rows"])
  assert {row["encoder"] for row in found} == {"…/clip"}
