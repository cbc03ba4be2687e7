"""SentencePiece's file format, written here byte by byte, as used by T5 and the first SigLIP."""

import json
import shutil
import struct

import pytest

from genbench_jax.errors import RunError
from genbench_jax.models.sentencepiece import load_sentencepiece, read_pieces
from genbench_jax.models.siglip_tokenizer import load_siglip_tokenizer
from genbench_jax.models.t5 import load_sentence_model
from genbench_jax.zoo.tiny import write_tiny_t5

CONTROL, UNKNOWN, NORMAL = 3, 2, 1
SPECIAL = [("<pad>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN)]
WORDS = [("▁a", -2.5, NORMAL), ("▁dog", -3.0, NORMAL), ("▁", -4.0, NORMAL), ("d", -6.0, NORMAL)]
WORDS += [("o", -6.5, NORMAL), ("g", -7.0, NORMAL), ("s", -7.5, NORMAL)]


def run(field, data):
  assert len(data) < 128
  return bytes([field << 3 | 2, len(data)]) + data


def spiece(pieces):
  """Return a `ModelProto` with pieces, a trainer section that is skipped, and no character table."""
  parts = [
    run(1, run(1, text.encode()) + b"\x15" + struct.pack("<f", score) + bytes([0x18, kind]))
    for text, score, kind in pieces
  ]
  return b"".join(parts) + run(2, b"\x18\x01") + run(3, run(1, b"identity"))


@pytest.fixture
def path(tmp_path):
  file = tmp_path / "spiece.model"
  file.write_bytes(spiece([*SPECIAL, *WORDS]))
  return file


def test_pieces_scores_and_the_unknown_piece_are_read(path):
  found = read_pieces(path)
  assert found.unknown == 2 and found.charsmap == b""
  assert found.scores == [(text, score) for text, score, _ in (*SPECIAL, *WORDS)]


def test_the_most_likely_pieces_win(path):
  tokenizer = load_sentencepiece(path)
  assert tokenizer.encode("a  dog\n dogs").tokens == ["▁a", "▁dog", "▁dog", "s"]
  assert tokenizer.encode("x").ids == [5, 2]
  assert tokenizer.decode(tokenizer.encode("a dogs").ids) == "a dogs"


def test_the_first_siglip_uses_it(path):
  tokenizer = load_siglip_tokenizer(path.parent, 6, 10)
  assert tokenizer(["A dog!"]).tolist() == [[3, 4, 1, 1, 1, 1]]
  with pytest.raises(RunError, match="ids up to 9, but the model has 9 embeddings"):
    load_siglip_tokenizer(path.parent, 6, 9)


def test_t5_uses_it(tmp_path, path):
  folder = write_tiny_t5(tmp_path / "t5")
  whole = load_sentence_model(str(folder)).tokenizer
  words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
  kinds = {"<pad>": CONTROL, "</s>": CONTROL, "<unk>": UNKNOWN}
  pieces = [(text, score, kinds.get(text, NORMAL)) for text, score in words]
  bare = shutil.copytree(folder, tmp_path / "bare")
  (bare / "tokenizer.json").unlink()
  (bare / "spiece.model").write_bytes(spiece(pieces))
  found = load_sentence_model(str(bare)).tokenizer
  for text in ("a dog runs", "the cat is on the street", "dogs"):
    assert found(text)["input_ids"] == whole(text)["input_ids"]
  assert found(text)["input_ids"][-1] == 1


@pytest.mark.parametrize(
  "data,message",
  [
    (b"", "has 0 pieces and none for unknown text"),
    (spiece(WORDS), "has 7 pieces and none for unknown text"),
    (spiece([*SPECIAL, *WORDS])[:-3], r"can't be read \(ValueError\)"),
    (b"\xff" * 40, "can't be read"),
    (b"\x0a\x02\xff\xff", "can't be read"),
    (run(1, run(1, b"\xff\xfe")), "can't be read"),
  ],
)
def test_damaged_files_give_one_line(path, data, message):
  path.write_bytes(data)
  with pytest.raises(RunError, match=message):
    load_sentencepiece(path)
