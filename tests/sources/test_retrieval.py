"""Retrieved images as a source, with the shipped encoder and the demo's pool: ranking, records, restarts, errors."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from genbench_jax.benchmark.worlds import SHAPE_NAMES
from genbench_jax.cells import ImageSetKey, image_sets
from genbench_jax.config import Config, Retrieval, TextualInversion
from genbench_jax.embedding.input_pipeline import opened
from genbench_jax.errors import RunError, UsageError
from genbench_jax.main import main
from genbench_jax.pipeline.artifacts import image_folder
from genbench_jax.pipeline.embed import embed_features, features_of_test
from genbench_jax.pipeline.images import make_images
from genbench_jax.pipeline.ledger import Ledger
from genbench_jax.retrieval.demo_pool import demo_pool
from genbench_jax.retrieval.pool import open_pool
from genbench_jax.run import Run
from genbench_jax.sources import inversion
from genbench_jax.sources.retrieval import choose_images, chosen_images, leak_notes, shortages
from genbench_jax.store.embedding_set import load_embeddings
from genbench_jax.store.image_set import ImageSet

KEY = ImageSetKey("shapes", "retrieval", "", 0)
SETTINGS = {"duplicate_threshold": 0.998, "leak_threshold": 0.998}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
  """Return a function that creates a run with retrieval settings, with one shared work folder and pool."""
  workdir = tmp_path_factory.mktemp("retrieval")

  def made(shots=(1, 4), **settings):
    retrieval = Retrieval(pool="zoo/pool", **(SETTINGS | settings))
    config = Config(datasets=("shapes",), sources=("retrieval",), shots=shots, retrieval=retrieval)
    return Run(config, workdir)

  return made


def embedded_test(run, dataset="shapes"):
  """Return the features of the test images, which the stage computes first."""
  features = features_of_test(run, dataset, run.space)
  embed_features(run, [features])
  return load_embeddings(features.path)


def choose(run, key=KEY):
  """Return the images that the source chooses in the stage."""
  choose_images(run, key, embedded_test(run, key.dataset))
  return chosen_images(run, key)


@pytest.mark.slow
def test_retrieval_makes_an_ordinary_image_set(run_of):
  run = run_of()
  assert make_images(run, Ledger(run.workdir, run.config, "")) == 32
  images = ImageSet(image_folder(run, KEY))
  records = list(images)
  assert [record.label for record in records] == list(range(8)) * 4
  assert [record.index for record in records] == list(range(32))
  assert {record.prompt for record in records if record.label == 2} <= {
    "a photo of a triangle.",
    "a drawing of a triangle.",
    "a triangle on a plain background.",
  }
  assert all(record.origin.startswith("images.tar/shapes_") for record in records)
  assert make_images(run, Ledger(run.workdir, run.config, "")) == 0


def test_fewer_shots_are_a_prefix_of_more(run_of):
  few, more = run_of((1, 2)), run_of()
  rows = [image.row for _, _, image in choose(more).images]
  assert [image.row for _, _, image in choose(few).images] == rows[:16]
  alone = run_of((2,), images_per_prompt=29)
  wider = run_of((5,), images_per_prompt=29)
  first = [image.row for _, _, image in choose(alone).images]
  assert first == [image.row for _, _, image in choose(wider).images][:16]


def test_leaks_and_duplicates_are_dropped_and_reported(run_of):
  run = run_of((16,))
  selection = choose(run)
  assert selection.counts.leaks > 0
  assert selection.counts.duplicates > 0
  assert len({image.sha256 for _, _, image in selection.images}) == len(selection.images)
  pool = open_pool(run.workdir / "pool" / "pool")
  kept = pool.features("image", np.array([image.row for _, _, image in selection.images]))
  test = embedded_test(run).features
  unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
  cosines = (unit(kept) @ unit(test).T).max(axis=1)
  assert cosines.max() < 0.998
  found = [image.cosine_to_test for _, _, image in selection.images]
  np.testing.assert_allclose(found, cosines, atol=1e-5)
  [note] = leak_notes(run)
  assert f"{selection.counts.leaks} of {selection.counts.looked_at} candidates" in note
  assert "0.998" in note


def test_classes_with_too_few_hits_keep_all_and_are_named(run_of):
  run = run_of((4,), images_per_prompt=1)
  assert 8 <= len(choose(run).images) < 32
  [note] = shortages(run)
  assert "classes have fewer than 4 images" in note
  assert not shortages(run_of())


@pytest.mark.parametrize("ranking", ["max", "rerank"])
def test_other_rankings(run_of, ranking):
  images = choose(run_of((4,), ranking=ranking)).images
  scores = [image.score for label, _, image in images if label == 0]
  assert scores == sorted(scores, reverse=True)
  if ranking == "rerank":
    assert _share_right(images) >= _share_right(choose(run_of((4,))).images)


def _share_right(images):
  """Return the share of images of the right class: the pool cycles through the classes."""
  place = [int(image.origin[-9:-4]) % 8 for _, _, image in images]
  return np.mean([label == here for (label, _, _), here in zip(images, place, strict=True)])


def test_texts_find_images_without_their_captions(run_of):
  images = choose(run_of((4,), queries="text_to_image")).images
  assert len(images) == 32 and _share_right(images) > 0.6


def test_originals_as_queries_are_counted(run_of):
  from genbench_jax.sources.registry import SOURCES

  run = run_of((2,), queries="image_to_image", query_shots=2)
  images = choose(run).images
  assert len(images) == 16
  assert {query for _, query, _ in images} == {""}
  assert SOURCES["retrieval"].real_images(run, KEY) == {2: 16}
  assert SOURCES["retrieval"].real_images(run_of((2,)), KEY) == {2: 0}


def test_retrieved_images_are_references_of_textual_inversion(run_of):
  run = run_of()
  make_images(run, Ledger(run.workdir, run.config, ""))
  learning = dataclasses.replace(
    run.config,
    sources=("generative", "retrieval"),
    textual_inversion=TextualInversion(references=("", "retrieval"), shots=2),
  )
  run, stored = Run(learning, run.workdir), ImageSet(image_folder(run, KEY))
  plain, modified, retrieved = image_sets(learning)
  assert (plain.references, modified.references, retrieved) == ("", "retrieval", KEY)
  concepts, paths = inversion._concepts(run, modified, [stored])
  assert [concept.class_names for concept in concepts] == [(name,) for name in SHAPE_NAMES]
  assert len(paths) == len(set(paths.values())) == 8
  for label, concept in enumerate(concepts):
    wanted = [opened(stored[row].image) for row in (label, 8 + label)]
    assert [image.tobytes() for image in concept.images()] == [
      reference.tobytes() for reference in wanted
    ]
  assert inversion.real_images(run, modified) == 0


def test_a_pool_of_urls_requires_an_image_root(run_of, tmp_path):
  run = run_of()
  source = open_pool(demo_pool(run.workdir / "pool", run.clip, run.local_mesh)).folder
  for name in ("img_emb", "text_emb", "metadata"):
    (tmp_path / name).symlink_to(source / name)
  lost = dataclasses.replace(run.config.retrieval, pool=str(tmp_path), images_per_prompt=28)
  with pytest.raises(RunError, match=r"config\.retrieval\.image_root"):
    choose(_with(run, lost))
  found = dataclasses.replace(lost, image_root=str(run.workdir / "pool" / "pool" / "collection"))
  assert len(choose(_with(run, found)).images) == 32


def _with(run, retrieval):
  return Run(dataclasses.replace(run.config, retrieval=retrieval), run.workdir)


def test_a_pool_of_another_encoder_is_rejected(run_of, tmp_path):
  np.save(tmp_path / "a.npy", np.ones((3, 64), np.float16))
  (tmp_path / "pool.json").write_text(json.dumps({"version": 0}))
  with pytest.raises(UsageError, match="embedded by another version"):
    choose(_with(run_of(), Retrieval(str(tmp_path))))
  (tmp_path / "pool.json").write_text(json.dumps({"clip": "another"}))
  with pytest.raises(UsageError, match="embedded by another encoder"):
    choose(_with(run_of(), Retrieval(str(tmp_path))))


def test_a_mistake_in_the_settings_gives_one_line(tmp_path, capfd):
  command = [
    "main",
    "--config=configs/demo.py",
    f"--workdir={tmp_path}",
    "--config.retrieval.pool=",
  ]
  assert main(command) == 2
  assert "needs config.retrieval.pool" in capfd.readouterr().err
  assert main([*command[:-1], "--config.retrieval.ranking=best"]) == 2
  assert "unknown ranking 'best'" in capfd.readouterr().err


def test_the_audit_of_a_folder_of_images(tmp_path, capfd):
  from genbench_jax.benchmark.worlds import world_example
  from genbench_jax.cli.leaks import main as audit

  for name, split in (("leak", "test"), ("other", "zoo")):
    Image.fromarray(world_example("shapes", split, 5).image).save(tmp_path / f"{name}.png")
  assert audit([str(tmp_path), "--dataset=shapes", "--threshold=0.999", "--json"]) == 0
  told = json.loads(capfd.readouterr().out)
  assert told["images"] == 2
  [pair] = told["flagged"]
  assert (pair["image"], pair["test_row"]) == ("leak.png", 5)
  assert audit([str(tmp_path / "absent.npy"), "--test=x.npy"]) == 2
  assert audit([str(tmp_path), "--dataset=shapes", "--threshold=2"]) == 2
