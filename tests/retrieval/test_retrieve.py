"""Exact retrieval against NumPy for any blocks and devices, and unusable pools."""

import numpy as np
import pytest

import genbench_jax as gb
from genbench_jax.errors import RunError, UsageError
from genbench_jax.retrieval import retrieve, search
from genbench_jax.retrieval.pool import open_pool


def _write(folder, features, cuts=(), dtype=np.float16, name="img_emb"):
  (folder / name).mkdir(parents=True, exist_ok=True)
  for number, part in enumerate(np.split(features.astype(dtype), cuts)):
    np.save(folder / name / f"{name}_{number}.npy", part)
  return folder


def _retrieve(*arguments, **options):
  """Inner products with rows as they come: most tests have integers, whose products are exact."""
  return gb.retrieve(*arguments, **options, normalize=False)


def _reference(queries, features, k):
  """Return scores and rows of the k largest inner products; ties go to the lower row."""
  scores = queries.astype(np.float64) @ features.astype(np.float64).T
  order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
  return np.take_along_axis(scores, order, 1), order


K, WIDTH = 12, 16  # the same in all tests, so that few programs are compiled


@pytest.fixture(scope="module")
def grid():
  """Return features with few distinct values: products are exact and ties are common."""
  rng = np.random.default_rng(0)
  return rng.integers(-2, 3, (5003, WIDTH)), rng.integers(-2, 3, (67, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_is_exact_with_ties_on_odd_sizes(tmp_path, grid, dtype):
  features, queries = grid
  pool = _write(tmp_path, features, (17, 1900, 1901), dtype)
  scores, rows = _retrieve(queries, pool, K)
  wanted_scores, wanted_rows = _reference(queries, features, K)
  np.testing.assert_array_equal(rows, wanted_rows)
  np.testing.assert_array_equal(scores, wanted_scores)


def test_is_exact_on_real_numbers_and_more_queries_than_a_tile(tmp_path):
  rng = np.random.default_rng(1)
  features = rng.standard_normal((3001, WIDTH)).astype(np.float32)
  queries = rng.standard_normal((1100, WIDTH)).astype(np.float32)
  scores, rows = _retrieve(queries, _write(tmp_path, features, (1000,), np.float32), 1)
  wanted_scores, wanted_rows = _reference(queries, features, 1)
  np.testing.assert_array_equal(rows, wanted_rows)
  np.testing.assert_allclose(scores, wanted_scores, rtol=1e-5, atol=1e-5)


def test_block_size_and_devices_change_no_bit(tmp_path, one_device_mesh):
  rng = np.random.default_rng(2)
  pool = _write(tmp_path, rng.standard_normal((2500, WIDTH)), (800, 801))
  queries = rng.standard_normal((5, WIDTH)).astype(np.float32)
  wanted = _retrieve(queries, pool, K, block_rows=1024, mesh=one_device_mesh)
  others = [
    _retrieve(queries, pool, K, block_rows=64, mesh=one_device_mesh),
    _retrieve(queries, pool, K, block_rows=999),
    _retrieve(queries, pool, K),
  ]
  for found in others:
    for one, other in zip(found, wanted, strict=True):
      np.testing.assert_array_equal(one, other)


def test_identical_rows_come_in_their_order(tmp_path):
  pool = _write(tmp_path, np.ones((2100, WIDTH)), (5,))
  scores, rows = _retrieve(np.ones((2, WIDTH), np.float32), pool, K)
  np.testing.assert_array_equal(rows, np.tile(np.arange(K), (2, 1)))
  assert (scores == WIDTH).all()


def test_fewer_rows_than_k_leave_nothing_at_the_end(tmp_path):
  rng = np.random.default_rng(3)
  features = rng.standard_normal((5, WIDTH)).astype(np.float16)
  queries = np.ones((1, WIDTH), np.float32)
  scores, rows = _retrieve(queries, _write(tmp_path, features), K)
  np.testing.assert_array_equal(rows[:, :5], _reference(queries, features, 5)[1])
  assert (rows[:, 5:] == -1).all()
  assert np.isneginf(scores[:, 5:]).all()


def test_approximate_search_recalls_what_it_says(tmp_path, one_device_mesh):
  """On CPU it falls back to the exact search of a tile, so that everything is found."""
  rng = np.random.default_rng(4)
  pool = _write(tmp_path, rng.standard_normal((3000, WIDTH)))
  queries = rng.standard_normal((20, WIDTH)).astype(np.float32)
  exact = _retrieve(queries, pool, K)[1]
  found = _retrieve(queries, pool, K, recall_target=0.9, mesh=one_device_mesh)[1]
  recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(exact, found, strict=True)])
  assert recall == 1


def test_one_program_serves_all_blocks(tmp_path, one_device_mesh):
  pool = _write(tmp_path, np.ones((2500, WIDTH)), (2049,))
  queries = np.ones((3, WIDTH), np.float32)
  program = search._search_program(one_device_mesh, 1.0)
  program.clear_cache()
  _retrieve(queries, pool, K, block_rows=1024, mesh=one_device_mesh)
  assert program._cache_size() == 1


def test_image_features_are_searched_unless_text_is_asked_for(tmp_path):
  rng = np.random.default_rng(6)
  images, texts = rng.standard_normal((2, 50, WIDTH))
  _write(tmp_path, images)
  _write(tmp_path, texts, name="text_emb")
  query = rng.standard_normal((1, WIDTH)).astype(np.float32)
  for modality, features in ((None, images), ("image", images), ("text", texts)):
    rows = _retrieve(query, tmp_path, K, modality=modality)[1]
    np.testing.assert_array_equal(rows, _reference(query, features.astype(np.float16), K)[1])


def test_a_folder_of_shards_alone_is_a_pool(tmp_path):
  features = np.eye(WIDTH, dtype=np.float16)
  np.save(tmp_path / "b.npy", features[2:])
  np.save(tmp_path / "a.npy", features[:2])
  rows = _retrieve(features.astype(np.float32), tmp_path, K)[1]
  assert rows[:, 0].tolist() == list(range(WIDTH))


QUERY = np.ones((1, WIDTH), np.float32)


@pytest.mark.parametrize(
  ("shards", "words"),
  [
    ({"a": np.array([[None] * WIDTH], object)}, "can't be read as an array of numbers"),
    ({"a": np.ones((3, WIDTH), np.int32)}, "int32 [3, 16], expected float16 or float32"),
    ({"a": np.ones(16, np.float32)}, "[16], expected float16 or float32"),
    ({"a": np.ones((3, WIDTH), np.float32), "b": np.ones((3, 9), np.float32)}, "is 9 wide"),
    ({"a": np.ones((3, 7), np.float32)}, "must be 7 wide"),
    ({"a": np.full((3, WIDTH), np.nan, np.float16)}, "hold NaN or infinity"),
    ({}, "holds no .npy shards"),
  ],
)
def test_pools_that_cannot_be_used(tmp_path, shards, words):
  for name, array in shards.items():
    np.save(tmp_path / f"{name}.npy", array)
  with pytest.raises(UsageError) as error:
    gb.retrieve(QUERY, tmp_path, K)
  assert words in str(error.value)
  assert "\n" not in str(error.value)


def test_a_shard_shorter_than_it_says(tmp_path):
  np.save(tmp_path / "a.npy", np.ones((100, WIDTH), np.float32))
  content = (tmp_path / "a.npy").read_bytes()
  (tmp_path / "a.npy").write_bytes(content[:-50])
  with pytest.raises(UsageError, match="can't be read as an array of numbers"):
    gb.retrieve(QUERY, tmp_path, K)


def test_image_and_text_shards_must_match(tmp_path):
  _write(tmp_path, np.ones((5, WIDTH)))
  _write(tmp_path, np.ones((6, WIDTH)), name="text_emb")
  with pytest.raises(UsageError, match="1 shards of 5 rows and 1 shards of 6 rows"):
    gb.retrieve(QUERY, tmp_path, K)


@pytest.mark.parametrize(
  ("settings", "words"),
  [({"k": 0}, "k is 0"), ({"recall_target": 0.0}, "recall_target is 0.0"), ({"modality": "text"}, "no text features")],
)  # fmt: skip
def test_settings_that_cannot_be_used(tmp_path, settings, words):
  _write(tmp_path, np.ones((5, WIDTH)))
  with pytest.raises(UsageError, match=words):
    gb.retrieve(QUERY, tmp_path, **settings)


def test_queries_must_be_finite(tmp_path):
  _write(tmp_path, np.ones((5, WIDTH)))
  with pytest.raises(UsageError, match="query_features"):
    gb.retrieve(np.full((1, WIDTH), np.inf), tmp_path)


def test_rows_of_any_length_are_taken_by_their_direction(tmp_path, capsys):
  rng = np.random.default_rng(7)
  directions = rng.standard_normal((600, WIDTH)).astype(np.float32)
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  lengths = np.ones((600, 1), np.float32)
  lengths[400] = 40  # one long row behind those that are looked at first
  queries = directions[:20]
  found = gb.retrieve(queries, _write(tmp_path / "one", directions * lengths, (), np.float32), K)
  assert found[1][:, 0].tolist() == list(range(20))
  assert "do not have unit norm" in capsys.readouterr().err
  raw = rng.uniform(5, 15, (600, 1)).astype(np.float32)
  again = gb.retrieve(queries, _write(tmp_path / "all", directions * raw, (), np.float32), K)
  np.testing.assert_array_equal(again[1], found[1])
  np.testing.assert_allclose(again[0], found[0], atol=1e-6)
  gb.retrieve(queries, _write(tmp_path / "unit", directions), K)
  assert capsys.readouterr().err.count("do not have unit norm") == 1  # of `all` alone


def test_shards_are_paired_by_their_numbers(tmp_path):
  import pyarrow as pa
  from pyarrow import parquet

  from genbench_jax.retrieval.pool import open_pool

  def pool(name, features, tables):
    (tmp_path / name / "metadata").mkdir(parents=True)
    (tmp_path / name / "img_emb").mkdir()
    for number in features:
      np.save(
        tmp_path / name / "img_emb" / f"img_emb_{number}.npy", np.eye(3, WIDTH, dtype=np.float16)
      )
    for number, file in tables:
      about = pa.table({"caption": [f"{number} {row}" for row in range(3)]})
      parquet.write_table(about, tmp_path / name / "metadata" / file)
    return open_pool(tmp_path / name)

  padded = pool("padded", range(11), [(n, f"metadata_{n:04d}.parquet") for n in range(11)])
  for shard in padded.shards["image"]:
    number = shard.path.stem.rpartition("_")[2]
    assert padded.metadata([shard.start])[shard.start]["caption"] == f"{number} 0"
  with pytest.raises(UsageError, match=r"can't be paired.*img_emb_0.npy.*metadata_3.parquet"):
    pool("partial", (0, 1, 2), [(n, f"metadata_{n}.parquet") for n in (1, 2, 3)])
  with pytest.raises(UsageError, match=r"can't be paired.*img_emb_0.npy.*metadata_1.parquet"):
    pool("one of each", (0,), [(1, "metadata_1.parquet")])
  assert pool("without a number", (0,), [(1, "metadata.parquet")]).tables


def test_one_row_and_blocks_of_one_row_are_enough(tmp_path):
  features = np.eye(WIDTH)[:5]
  pool = _write(tmp_path, features, (2,))
  scores, rows = _retrieve(features[[3, 1]].astype(np.float32), pool, 1, block_rows=1)
  assert rows.tolist() == [[3], [1]] and scores.tolist() == [[1], [1]]


def test_a_broken_link_is_not_taken_for_a_missing_manifest(tmp_path):
  np.save(tmp_path / "a.npy", np.ones((2, 3), np.float32))
  (tmp_path / "pool.json").symlink_to("nowhere")
  with pytest.raises(RunError, match=r"pool\.json is a broken link"):
    _ = open_pool(tmp_path).manifest


def test_an_archive_or_a_damaged_header_is_no_shard(tmp_path):
  np.savez(tmp_path / "a.npz", x=np.ones((2, 3), np.float32))
  (tmp_path / "a.npz").rename(tmp_path / "a.npy")
  with pytest.raises(UsageError, match="an archive of arrays"):
    open_pool(tmp_path)
  header = b"{'descr': '<f4', 'shape': (1,\n"
  (tmp_path / "a.npy").write_bytes(
    b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
  )
  with pytest.raises(UsageError, match="can't be read as an array"):
    open_pool(tmp_path)


def test_text_shards_are_paired_with_image_shards_by_their_numbers(tmp_path):
  """By name, image shard 10 comes before 2, but text shard 0010 after 0002."""
  for folder, digits in (("img_emb", 1), ("text_emb", 4)):
    (tmp_path / folder).mkdir()
    for number in range(11):
      row = np.full((1, 2), number, np.float16)
      np.save(tmp_path / folder / f"{folder}_{number:0{digits}d}.npy", row)
  pool = open_pool(tmp_path)
  images, texts = (pool.features(kind, np.arange(11)) for kind in ("image", "text"))
  np.testing.assert_array_equal(images, texts)
  assert images[:3, 0].tolist() == [0, 1, 10]


def test_thirty_rows_are_found_unless_told_otherwise(tmp_path):
  pool = _write(tmp_path, np.eye(40, WIDTH))
  assert _retrieve(QUERY, pool)[1].shape == (1, 30)


@pytest.mark.parametrize("recall", [-0.1, 1.5, float("nan")])
def test_a_recall_is_a_share(tmp_path, recall):
  with pytest.raises(UsageError, match="more than 0 and at most 1"):
    gb.retrieve(QUERY, _write(tmp_path, np.eye(3, WIDTH)), recall_target=recall)


@pytest.mark.parametrize(
  ("lengths", "unit"),
  [([1, 1, 1], True), ([1, 0, 1], True), ([1, 1, 0.5], False), ([2, 1, 1], False), ([3, 3, 3], False),
   ([1.009, 0.991, 1], True), ([1.011, 1, 1], False), ([0.989, 1, 1], False)],
)  # fmt: skip
def test_a_pool_that_begins_with_other_lengths_is_normalized_at_once(tmp_path, lengths, unit):
  """Squared lengths up to 0.02 from 1 are rounding, and rows of zeros are images without caption."""
  rows = np.eye(3, WIDTH) * np.array(lengths)[:, None]
  pool = open_pool(_write(tmp_path, rows, dtype=np.float32))
  assert retrieve._begins_unit_norm(pool, "image") == unit


def test_only_a_recall_below_one_searches_approximately(one_device_mesh, monkeypatch):
  def approximately(*arguments):
    raise RuntimeError("approximate")

  monkeypatch.setattr(search, "_approximately", approximately)
  search._search_program.cache_clear()
  blocks = np.eye(5, WIDTH, dtype=np.float32)
  found = search.best_rows(QUERY, [blocks], 1, one_device_mesh)
  assert found.row.tolist() == [[0]]
  with pytest.raises(RuntimeError, match="approximate"):
    search.best_rows(QUERY, [blocks], 1, one_device_mesh, recall_target=0.9)
  search._search_program.cache_clear()


@pytest.mark.parametrize(
  ("images", "texts"),
  [(("a_1", "b_1"), ("t_1",)), (("a_1",), ("t_1", "u_1")), (("a_1", "b_1"), ("t_1", "u_1"))],
)
def test_numbers_that_occur_twice_pair_nothing(tmp_path, images, texts):
  for folder, names in (("img_emb", images), ("text_emb", texts)):
    (tmp_path / folder).mkdir()
    for name in names:
      np.save(tmp_path / folder / f"{name}.npy", np.ones((2, 3), np.float16))
  with pytest.raises(UsageError, match="several have no partner or share a number"):
    open_pool(tmp_path)


def test_a_pool_is_a_folder(tmp_path):
  for path in (tmp_path / "none", tmp_path / "file"):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="there is no pool"):
      open_pool(path)
