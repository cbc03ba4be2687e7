"""`evaluate`: from a folder of images to the table and the page."""

import dataclasses
import shutil

import pytest

import genbench_jax as gb
from genbench_jax.benchmark.reader import open_split
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.cli.evaluate import main
from genbench_jax.errors import RunError, UsageError
from genbench_jax.pipeline.evaluate import (
  Question,
  _remembered,
  evaluate,
  named_sources,
  own_dataset,
  shots_up_to,
  with_earlier,
)
from genbench_jax.report.text_ranking import ranking
from genbench_jax.store import files
from genbench_jax.store.rows import COLUMNS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Digits by name, three of each class but the last, and a folder that matches no class."""
  root = tmp_path_factory.mktemp("given") / "my_images"
  spec = dataset_spec("digits")
  split = open_split(spec, "train")
  left = dict.fromkeys(range(9), 3)
  for index in range(200):
    example = split.example(index)
    if left.get(example["label"]):
      left[example["label"]] -= 1
      path = root / spec.names[example["label"]].upper() / f"{index}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      example["image"].save(path)
  assert not any(left.values())
  (root / "unicorn").mkdir()
  return root


@pytest.mark.slow
def test_one_call_gives_the_rows_and_the_page(folder, tmp_path):
  settings = {"scoring.resamples": 20, "scoring.quantities": ("zero_shot", "cler", "clip_score")}
  rows = gb.evaluate_folder(folder, "digits", tmp_path / "out", shots=(3,), settings=settings)
  assert {tuple(row) for row in rows} == {COLUMNS}
  found = {row["quantity"]: row for row in rows if row["source"] == "folder"}
  assert {row["generator"] for row in found.values()} == {"my_images"}
  assert set(found) == {"zero_shot", "cler", "clip_score", "linear_probe"}
  cler = found["cler"]
  assert cler["value"] > 0.9
  assert (cler["n_external"], cler["n_real"], cler["missing_classes"]) == (27, 0, 1)
  page = (tmp_path / "out" / "report" / "index.html").read_text(encoding="utf-8")
  assert "How good are the images of my_images as training data?" in page
  assert "unicorn" in page
  assert "1 class has no image" in page


def test_usage_errors_are_one_line(folder, tmp_path, capsys):
  assert main([str(tmp_path / "none"), "--dataset", "digits"]) == 2
  assert "there is no folder" in capsys.readouterr().err
  assert main([str(folder), "--dataset", "shapes"]) == 2
  assert "is a class of 'shapes'" in capsys.readouterr().err
  assert main([str(folder), "--dataset", "digit"]) == 2
  assert "Did you mean 'digits'?" in capsys.readouterr().err


def test_shots_grow_by_a_factor_of_four():
  assert [shots_up_to(n) for n in (1, 3, 4, 20)] == [(1,), (1, 3), (1, 4), (1, 4, 16, 20)]


def question(sources, **changes):
  return Question(sources, "digits", (1,), settings={"scoring.resamples": 20, "scoring.quantities": ("zero_shot", "cler")}, **changes)  # fmt: skip


@pytest.fixture(scope="module")
def two(folder, tmp_path_factory):
  """A work folder with two sources measured in one command, and the output of the command."""
  workdir = tmp_path_factory.mktemp("two")
  other = workdir / "other"
  shutil.copytree(folder, other)
  rows = evaluate(question({"mine": str(folder), "theirs": str(other)}), workdir / "out")
  return workdir / "out", rows


def test_several_sources_are_ranked_and_compared_on_one_page(two):
  workdir, rows = two
  found = {(row["source"], row["generator"], row["quantity"]) for row in rows}
  assert {("folder", "mine", "cler"), ("folder", "theirs", "linear_probe")} <= found
  text = ranking(workdir, rows)
  # Equal images have equal scores, and neither is better.
  assert "Ranked by linear probe at 1 image per class" in text
  assert "1. mine" in text and "1. theirs" in text
  assert "mine minus theirs: 0.0" in text and "can’t be told apart" in text
  page = (workdir / "report" / "index.html").read_text(encoding="utf-8")
  assert "How good are the images of mine and theirs as training data?" in page


def test_a_second_run_adds_and_says_what_it_replaces(two, folder, tmp_path, capsys):
  workdir, _ = two
  added = with_earlier(question({"third": str(folder)}), workdir)
  assert list(added.sources) == ["mine", "theirs", "third"]
  assert "earlier results of mine and theirs stay on the page." in capsys.readouterr().err
  changed = with_earlier(question({"mine": str(tmp_path)}), workdir)
  assert changed.sources["mine"] == str(tmp_path) and "theirs" in changed.sources
  assert (
    "the path of mine has changed; the earlier results are replaced." in capsys.readouterr().err
  )
  other = with_earlier(dataclasses.replace(question({"x": "y"}), dataset="shapes"), workdir)
  assert list(other.sources) == ["x"]
  assert "results for digits are replaced by those for shapes" in capsys.readouterr().err


def test_a_second_run_keeps_settings_that_it_does_not_give(tmp_path, capsys):
  (tmp_path / "a").mkdir()
  first = Question(
    {"a": str(tmp_path / "a")}, "digits", (1, 4), (0, 1), "zoo/clip", True, str(tmp_path / "m.csv")
  )
  files.write_json(tmp_path / "sources.json", _remembered(first))
  second = with_earlier(Question({"b": "b"}, "digits", (), (0,)), tmp_path)
  assert dataclasses.replace(second, sources=first.sources, seeds=(0, 1)) == first
  said = capsys.readouterr().err
  assert "--shots is 1,4, as before." in said and "--with-originals is on, as before." in said
  assert "--seeds is 0, before it was 0,1; the earlier results are replaced." in said
  third = with_earlier(Question({"b": "b"}, "digits", (8,), (0, 1), "other"), tmp_path)
  assert (third.shots, third.encoder) == ((8,), "other")
  said = capsys.readouterr().err
  assert "--encoder is other, before it was zoo/clip; the earlier results are replaced." in said
  (tmp_path / "a").rmdir()
  assert list(with_earlier(Question({"b": "b"}, "digits"), tmp_path).sources) == ["b"]
  assert "a no longer exists and leaves the page." in capsys.readouterr().err


def test_a_second_run_says_which_setting_replaces_a_default(tmp_path, capsys):
  files.write_json(tmp_path / "sources.json", _remembered(Question({"a": "a"}, "digits")))
  with_earlier(Question({"a": "a"}, "digits", (4,), with_originals=True), tmp_path)
  assert capsys.readouterr().err.splitlines() == [
    f"{tmp_path}: --shots is 4, before it was not given; the earlier results are replaced."
  ]


def test_a_path_that_looks_like_a_named_source_is_a_path(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "scale=3").mkdir()
  assert named_sources(["scale=3"]) == {"scale_3": "scale=3"}
  assert named_sources(["low=scale=3", "scale=3"]) == {"low": "scale=3", "scale_3": "scale=3"}


def test_names_of_sources():
  assert named_sources(["a/b"]) == {"b": "a/b"}
  assert named_sources(["x=a/b.zip", "c/d.tar.gz"]) == {"x": "a/b.zip", "d": "c/d.tar.gz"}
  assert named_sources(["a=1"]) == {"a": "1"}
  assert named_sources(["SD 1.5=a/b=c", "Modèle=d"]) == {"SD 1.5": "a/b=c", "Modèle": "d"}
  assert named_sources(["a/sd1.4", "a/sd1.5"]) == {"sd1.4": "a/sd1.4", "sd1.5": "a/sd1.5"}
  assert named_sources(["x/日本.zip", "a/b=c"]) == {"日本": "x/日本.zip", "b_c": "a/b=c"}
  assert list(named_sources(["x/a-{000..031}.tar", "x/--", "x/my images"])) == [
    "a",
    "images",
    "my images",
  ]
  (long,) = named_sources(["日" * 80 + "=x"])
  assert long == "日" * 40
  with pytest.raises(UsageError, match="a source is empty"):
    named_sources([""])
  with pytest.raises(UsageError, match=r"have the name 'b'. Name them, as in a=a/b b=c/b\."):
    named_sources(["a/b", "b=c/b"])


def test_a_test_folder_with_templates_and_names_is_a_dataset(folder, tmp_path):
  (tmp_path / "names.csv").write_text(
    "label,class\nTHREE,three|drei\n".replace("|", ","), encoding="utf-8"
  )
  (tmp_path / "templates.txt").write_text("a {}.\nthe {}.\n")
  own = own_dataset(tmp_path, "", str(folder), [str(tmp_path / "templates.txt")])
  spec = dataset_spec(own)
  assert spec.templates == ("a {}.", "the {}.") and "THREE" in spec.label_names
  known = dataset_spec(own_dataset(tmp_path, "digits", templates=["digit {}"]))
  assert (known.data_name, known.templates) == ("digits", ("digit {}",))
  with pytest.raises(UsageError, match="need no preparing"):
    own_dataset(tmp_path, "")
  with pytest.raises(UsageError, match="give --dataset"):
    own_dataset(tmp_path, "digits", str(folder))


def test_an_unprepared_dataset_is_reported_before_embedding(folder, tmp_path, capsys):
  (tmp_path / "map.json").write_text('{"ONE": "cat"}')
  arguments = [
    "--dataset",
    "cifar10",
    "--data-dir",
    str(tmp_path),
    "--class-map",
    str(tmp_path / "map.json"),
  ]
  assert main([str(folder), *arguments]) == 2
  error = capsys.readouterr().err.splitlines()[-1]
  assert "'cifar10' is not ready" in error and "benchmark prepare cifar10" in error


def test_strict_rejects_unknown_classes(folder, capsys):
  assert main([str(folder), "--dataset", "digits", "--strict"]) == 2
  assert "'unicorn'" in capsys.readouterr().err


def test_a_plan_lists_the_images_and_writes_nothing(folder, tmp_path, capsys, monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  workdir = tmp_path / "w"
  assert main([str(folder), "--dataset", "digits", "--plan", "--workdir", str(workdir)]) == 0
  told = capsys.readouterr().out
  assert "27 images of 9 of the 10 classes of 'digits'" in told
  assert "unicorn" in told and "images to embed" in told
  assert not workdir.exists()


def test_class_names_with_odd_separators_are_kept(folder, tmp_path):
  odd = "three\u2028four\x85five\x7f"
  shutil.copytree(folder, tmp_path / "test")
  (tmp_path / "test" / "THREE").rename(tmp_path / "test" / odd)
  (tmp_path / "names.csv").write_text(f"label,class\n{odd},word\u2029s\n", encoding="utf-8")
  own = own_dataset(tmp_path, "", str(tmp_path / "test"), class_names=str(tmp_path / "names.csv"))
  spec = dataset_spec(own)
  assert spec.class_names[spec.label_names.index(odd)] == ("word\u2029s",)


@pytest.mark.parametrize("content", ["{", "[1]", "{}", '{"dataset": "digits", "sources": [1]}'])
def test_a_damaged_list_of_sources_is_one_line(folder, tmp_path, content):
  (tmp_path / "sources.json").write_text(content)
  with pytest.raises(RunError, match=r"sources\.json is damaged"):
    with_earlier(Question({"a": str(folder)}, "digits"), tmp_path)


def test_templates_that_are_no_text_are_one_line(folder, tmp_path):
  (tmp_path / "t.txt").write_bytes(b"\xff")
  with pytest.raises(UsageError, match="file of templates"):
    own_dataset(tmp_path, "digits", templates=[str(tmp_path / "t.txt")])
