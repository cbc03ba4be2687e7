"""Hostile input is either accepted or rejected with one line that says what and where.

FUZZ_CASES is the number of cases of each test, 30 in the suite. A long run of 10,000 and more:

    FUZZ_CASES=2000 python -m pytest tests/faults/test_hostile.py
"""

import csv
import io
import json
import os
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from hostile import (
  FORMATS,
  IMAGES,
  NAMES,
  PATHS,
  TENSORS,
  VALUES,
  damaged,
  encoded,
  fuzzed,
  npz_files,
  tars,
  zips,
)
from hypothesis import given, strategies as st
from PIL import Image

from genbench_jax.benchmark.archives import members
from genbench_jax.benchmark.inputs.class_map import read_class_map
from genbench_jax.benchmark.own import own_spec
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.user_images import list_images
from genbench_jax.embedding.input_pipeline import Preprocessing, _Decoder
from genbench_jax.embedding.plain_image import UNREADABLE, plain_image
from genbench_jax.errors import RunError, UsageError
from genbench_jax.models.checkpoints import read_weights
from genbench_jax.models.image_input import HALF, ImageInput
from genbench_jax.retrieval.images import ImageFinder
from genbench_jax.retrieval.pool import Pool
from genbench_jax.runtime.npz import read_npz
from genbench_jax.runtime.printable import printable
from genbench_jax.runtime.public import public_text
from genbench_jax.store import embedding_set, files
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.image_files import ImageWalk
from genbench_jax.store.image_set import distinct_names
from genbench_jax.store.rows import read_rows
from genbench_jax.store.yaml_files import YamlError, parse_yaml

PREPROCESSING = Preprocessing(ImageInput(16, mean=HALF, std=HALF))


@fuzzed
@given(damaged(IMAGES) | st.binary(max_size=64))
def test_arbitrary_bytes_are_an_image_or_none(data):
  out = _Decoder([data], np.arange(1), 16, PREPROCESSING)(0)
  assert out["pixels"].shape == (1, 16, 16, 3)
  assert np.isfinite(out["pixels"]).all()
  assert out["valid"][0] or not out["pixels"].any()


@pytest.mark.parametrize("side", [20_000, 2**31 - 1])
def test_a_decompression_bomb_is_rejected(side):
  header = bytearray(encoded("1", "PNG", (8, 8)))
  header[16:24] = side.to_bytes(4, "big") * 2
  header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
  assert not _Decoder([bytes(header)], np.arange(1), 16, PREPROCESSING)(0)["valid"][0]


@fuzzed
@given(tars() | zips() | damaged(tars()) | damaged(zips()))
def test_an_archive_is_read_in_place_or_rejected(data):
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "archive"
    path.write_bytes(data)
    try:
      for name, content in members(path, lambda name: True, max_bytes=20):
        assert not name.is_absolute() and ".." not in name.parts and len(content) <= 20
    except RunError as error:
      assert str(path) in str(error)
    assert [one.name for one in Path(folder).iterdir()] == ["archive"]


def test_a_gzip_of_three_bytes_is_rejected(tmp_path):
  """Found by fuzzing."""
  (tmp_path / "x.tar.gz").write_bytes(b"\x1f\x8b\x08")
  with pytest.raises(RunError, match=r"x.tar.gz is damaged"):
    list(members(tmp_path / "x.tar.gz", lambda name: True))


KEYS = (
  "folder",
  "name",
  "class_names",
  "templates",
  "metric",
  "splits",
  "resize",
  "label_key",
  "x",
)


@fuzzed
@given(
  st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4) | VALUES,
  st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=3),
)
def test_a_dataset_file_gives_a_dataset_or_one_line(values, names):
  with tempfile.TemporaryDirectory() as folder:
    root = Path(folder)
    for label in ("a", "b"):
      (root / "test" / label).mkdir(parents=True)
      (root / "test" / label / "0.png").write_bytes(b"")
    if isinstance(values, dict):
      values.setdefault("folder", ".")
      values.setdefault("class_names", {"a": list(names), "b": "b"})
    (root / "own.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    try:
      spec = own_spec(str(root / "own.yaml"))
    except UsageError as error:
      assert "\n" not in str(error)
      return
    assert spec.name and set(spec.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
    assert len(spec.names) == 2


@fuzzed
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_a_dataset_file_of_arbitrary_bytes_is_a_one_line_error(data):
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "own.yaml"
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
      own_spec(str(path))
    assert "\n" not in str(caught.value)


@fuzzed
@given(TENSORS | st.binary(max_size=40))
def test_inconsistent_safetensors_are_rejected(data):
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(RunError, match="is damaged"):
      embedding_set.load(path)
    try:
      weights = read_weights(Path(folder))
    except RunError as error:
      assert str(path) in str(error)
    else:
      assert all(isinstance(name, str) for name in weights)


@fuzzed
@given(st.data())
def test_damaged_features_are_never_read_as_other_features(data):
  ids = np.arange(3)
  features = np.arange(6, dtype=np.float32).reshape(3, 2)
  whole = EmbeddingSet(features, ids.astype(np.int32), ids, np.ones(3, np.uint8))
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "x"
    embedding_set.save(path, whole, {"clip": "c"})
    path.write_bytes(data.draw(damaged(st.just(path.read_bytes()))))
    try:
      found = embedding_set.load(path)
    except RunError as error:
      assert str(path) in str(error)
    else:
      np.testing.assert_array_equal(found.features, features)


@fuzzed
@given(st.binary(max_size=80) | st.lists(VALUES, max_size=3).map(lambda v: json.dumps(v).encode()))
def test_rows_of_arbitrary_bytes_are_rejected(data):
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"rows.jsonl is damaged"):
      read_rows([path])


@fuzzed
@given(st.lists(st.text(max_size=6), max_size=6))
def test_arbitrary_class_names_stay_distinct(names):
  distinct = distinct_names(names)
  assert len(set(distinct)) == len(names)
  assert all(told.startswith(name) for told, name in zip(distinct, names, strict=True))


MARKED = b"Alice Smith, 12 Some Street"


@fuzzed
@given(damaged(IMAGES), st.sampled_from(FORMATS), st.integers(0, 9))
def test_stored_images_contain_no_metadata(data, form, orientation):
  """A stored image contains no metadata and is either an image or reported as unreadable."""
  try:
    with Image.open(io.BytesIO(data)) as opened:
      exif = Image.Exif()
      exif[0x010E], exif[0x0112] = MARKED.decode(), orientation
      buffer = io.BytesIO()
      opened.save(buffer, form, exif=exif, comment=MARKED)
      data = buffer.getvalue()
  except Exception:  # the format has no such mode, or it is not an image
    data += MARKED
  kept = plain_image(data)
  assert MARKED not in kept
  assert kept == UNREADABLE or plain_image(kept) == kept


@fuzzed
@given(
  st.lists(st.tuples(PATHS, st.text(max_size=8)), max_size=5), st.binary(max_size=40), st.booleans()
)
def test_a_list_of_labels_gives_classes_or_one_line(rows, tail, has_header):
  with tempfile.TemporaryDirectory() as folder:
    root = Path(folder)
    Image.new("RGB", (4, 4)).save(root / "a.png")
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("file", "label")] * has_header + [("a.png", "0"), *rows])
    (root / "labels.csv").write_bytes(buffer.getvalue().encode("utf-8", "surrogatepass") + tail)
    try:
      found = list_images(root, dataset_spec("digits"))
    except UsageError as error:
      assert len(str(error)) < 2000
    else:
      assert set(found.paths) <= {"a.png"}


@fuzzed
@given(st.data())
def test_a_folder_of_arbitrary_names_is_read_without_leaving_it(data):
  with tempfile.TemporaryDirectory() as place:
    (Path(place) / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    root = Path(place) / "root"
    root.mkdir()
    for name in data.draw(st.lists(NAMES, max_size=5, unique=True)):
      kind = data.draw(st.sampled_from(("file", "folder", "link", "loop", "pipe", "out")))
      path = root / name.replace("/", "_")
      try:
        if kind == "file":
          path.write_bytes(data.draw(st.sampled_from((b"", b"\x89PNG\r\n\x1a\nx", b"text"))))
        elif kind == "folder":
          path.mkdir()
        elif kind == "pipe":
          os.mkfifo(path)
        else:
          path.symlink_to({"link": "a.png", "loop": path.name, "out": "../secret.png"}[kind])
      except (OSError, ValueError):  # a name of dots, or an existing one
        continue
    walk = ImageWalk(root)
    for path in walk.images():
      assert b"secret" not in walk.read(path)
    assert all("\x1b" not in note and "\n" not in note for note in walk.notes())


@fuzzed
@given(
  st.recursive(
    st.text(max_size=4) | st.integers(), lambda inner: st.lists(inner, max_size=2), max_leaves=30
  ),
  st.sampled_from(
    ("&a ", "*a", "!!python/object:os.system ", "? ", "<<: ", "- " * 40, "[" * 40, "{a: " * 40)
  ),
  st.integers(0, 60),
)
def test_hostile_yaml_is_a_value_or_a_one_line_error(value, trick, place):
  text = yaml.safe_dump(value, allow_unicode=True)
  text = text[:place] + trick + text[place:]
  try:
    parse_yaml(text)
  except YamlError as error:
    assert len(str(error)) <= 200 and "\n" not in str(error)


@fuzzed
@given(
  st.fixed_dictionaries(
    {},
    optional={
      "image_path": PATHS | st.integers(),
      "tar": PATHS,
      "key": NAMES,
      "url": NAMES,
      "offset": st.integers(-3, 2**63),
      "size": st.integers(-3, 2**63),
    },
  )
)
def test_metadata_of_a_pool_cannot_leave_its_folder(line):
  with tempfile.TemporaryDirectory() as place:
    (Path(place) / "secret").write_bytes(b"secret")
    root = Path(place) / "root"
    root.mkdir()
    (root / "a").write_bytes(b"an image")
    (root / "x.jpg").symlink_to(Path(place) / "secret")
    finder = ImageFinder(Pool(root, {}, ()), str(root))
    if (found := finder.place(line)) is not None:
      try:
        content = found.read()
      except OSError:
        return
      assert b"secret" not in content


@fuzzed
@given(VALUES, st.data())
def test_damaged_json_is_never_read_as_other_json(value, data):
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "x.json"
    files.write_json(path, {"value": value})
    whole = files.read_json(path)
    path.write_bytes(data.draw(damaged(st.just(path.read_bytes()))))
    try:
      found = files.read_json(path)
    except RunError as error:
      assert str(path) in str(error)
      return
    # Without a seal it counts as a foreign file.
    assert json.dumps(found, sort_keys=True) == json.dumps(whole, sort_keys=True) or not _is_sealed(
      path
    )


def _is_sealed(path):
  written = json.loads(path.read_text(encoding="utf-8"))
  return isinstance(written, dict) and isinstance(written.get("genbench_jax"), dict)


@fuzzed
@given(st.text(max_size=60))
def test_arbitrary_text_is_printed_as_one_line_without_escape_sequences(text):
  shown = printable(text)
  assert shown.isprintable()
  public_text(text)


LABELS = st.lists(
  st.dictionaries(st.sampled_from(("file", "label", "x")), st.just("a.png") | VALUES, max_size=3),
  max_size=4,
)


@fuzzed
@given(LABELS | VALUES, st.sampled_from(("json", "jsonl", "yaml", "csv")), st.binary(max_size=3))
def test_a_list_or_class_map_of_any_values_is_read_or_rejected(values, form, tail):
  with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / f"given.{form}"
    Image.new("RGB", (4, 4)).save(Path(folder) / "a.png")
    lines = values if form == "jsonl" and isinstance(values, list) else [values]
    file.write_bytes("\n".join(map(json.dumps, lines)).encode() + tail)
    for read in (lambda: list_images(file, dataset_spec("digits")), lambda: read_class_map(file)):
      try:
        read()
      except UsageError as error:
        assert len(str(error)) < 2000


@fuzzed
@given(npz_files() | damaged(npz_files()))
def test_arrays_take_no_more_memory_than_allowed(data):
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "a.npz"
    path.write_bytes(data)
    try:
      found = read_npz(path, 1000)
    except ValueError:
      pass
    else:
      assert sum(array.nbytes for array in found.values()) <= 1000
    try:
      images = list_images(path, dataset_spec("digits"), Path(folder) / "cache")
    except UsageError as error:
      assert str(path) in str(error)
    else:
      assert all(images.read(index) for index in range(len(images.paths)))
