"""CLIP's tokenizer, assembled only from files in its folder, equals transformers' own."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from genbench_jax.errors import RunError
from genbench_jax.models.checkpoints import ZOO, fingerprint
from genbench_jax.models.clip import load_clip
from genbench_jax.models.tokenizer import load_tokenizer, tokenize

TEXTS = [
  "a photo of lion’s mane", "ｓｔａｒ", "Hello  WORLD 123!!", "it's they're <|endoftext|> x",
  "ß ΑΩ é é 日本", "", "a b\tc", "x " * 200, "naïve café—dash…",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
  return shutil.copytree(ZOO / "clip", tmp_path / "clip")


def edit(path, **change):
  path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_ids_match_transformers(folder):
  from transformers import CLIPTokenizer

  own = load_tokenizer(folder)
  theirs = CLIPTokenizer.from_pretrained(str(folder))
  assert tokenize(own, TEXTS, 32).tolist() == tokenize(theirs, TEXTS, 32).tolist()
  for name in ("bos_token_id", "eos_token_id", "pad_token_id", "model_max_length"):
    assert getattr(own, name) == getattr(theirs, name)
  ids = own("a red circle!")["input_ids"]
  assert own.decode(ids, skip_special_tokens=True) == "a red circle !"


def test_tokenizer_json_alone_is_enough(folder):
  from transformers import CLIPTokenizer

  wanted = tokenize(load_tokenizer(folder), TEXTS, 32).tolist()
  CLIPTokenizer.from_pretrained(str(folder)).save_pretrained(str(folder))
  for name in ("vocab.json", "merges.txt"):
    (folder / name).unlink(missing_ok=True)
  assert (folder / "tokenizer.json").is_file()
  assert tokenize(load_tokenizer(folder), TEXTS, 32).tolist() == wanted


def test_ids_do_not_depend_on_installed_packages(tmp_path):
  """A stand-in for ftfy, which transformers' former tokenizer used if installed."""
  code = (
    "from genbench_jax.models.checkpoints import ZOO\n"
    "from genbench_jax.models.tokenizer import load_tokenizer, tokenize\n"
    "print(tokenize(load_tokenizer(ZOO / 'clip'), ['lion’s', 'ｓｔａｒ'], 32).tolist())"
  )
  (tmp_path / "ftfy.py").write_text("def fix_text(text):\n  return 'something else'\n")
  paths = os.pathsep.join([str(tmp_path), *sys.path])
  environment = os.environ | {"PYTHONPATH": paths}
  found = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
  )
  own = tokenize(load_tokenizer(ZOO / "clip"), ["lion’s", "ｓｔａｒ"], 32).tolist()
  assert found.stdout.strip() == str(own)
  assert not found.stderr


def test_files_elsewhere_are_not_followed(folder, tmp_path):
  words = json.loads((folder / "vocab.json").read_text())
  outside = tmp_path / "outside.json"
  outside.write_text(json.dumps(dict.fromkeys(words, 0)))
  before = tokenize(load_tokenizer(folder), TEXTS, 32).tolist()
  edit(
    folder / "tokenizer_config.json",
    vocab_file=str(outside),
    merges_file="../../../../etc/passwd",
    tokenizer_file=str(outside),
    tokenizer_class="EvilTokenizer",
    auto_map={"AutoTokenizer": ["evil.T", None]},
  )
  assert tokenize(load_tokenizer(folder), TEXTS, 32).tolist() == before


def test_the_fingerprint_covers_every_file_that_is_read(folder):
  first = fingerprint(folder)
  (folder / "added_tokens.json").write_text('{"<new>": 693}')
  assert fingerprint(folder) != first


def test_added_tokens_keep_their_ids(folder):
  (folder / "added_tokens.json").write_text('{"<new>": 693}')
  assert load_tokenizer(folder)("<new>")["input_ids"][1] == 693
  (folder / "added_tokens.json").write_text('{"<new>": 800}')
  with pytest.raises(RunError, match="'<new>' its id, 800"):
    load_tokenizer(folder)


def test_the_tokenizer_defines_the_end_of_a_text(folder):
  import genbench_jax as gb

  config = json.loads((folder / "config.json").read_text())
  del config["text_config"]["eos_token_id"]
  (folder / "config.json").write_text(json.dumps(config))
  texts = ["a photo of a heart.", "a photo of a star."]
  found = gb.embed_texts(texts, str(folder))
  assert abs(found - gb.embed_texts(texts, "zoo/clip")).max() < 1e-6


@pytest.mark.parametrize(
  "name,content,message",
  [
    ("vocab.json", "[]", "not contain a JSON object"),
    ("vocab.json", "{}", "contains no vocabulary"),
    ("vocab.json", '{"a": "b"}', "contains no vocabulary"),
    ("vocab.json", '{"a": 1}', r"lacks its own special tokens: <\|endoftext\|>"),
    ("merges.txt", "#version\na b c\n", "merge 1 is not a pair of words"),
    ("merges.txt", "#version\nfoo bar\n", "the tokenizer in .* can't be read"),
    ("special_tokens_map.json", '{"bos_token": 3}', "names a special token that is not a string"),
    (
      "tokenizer_config.json",
      '{"model_max_length": "x"}',
      "model_max_length is not a valid length",
    ),
  ],
)
def test_damaged_files_give_one_line(folder, name, content, message):
  if name.startswith("special"):
    (folder / "tokenizer_config.json").unlink()
  (folder / name).write_text(content)
  with pytest.raises(RunError, match=message):
    load_tokenizer(folder)


def test_ids_beyond_the_embeddings_are_rejected(folder):
  words = json.loads((folder / "vocab.json").read_text())
  (folder / "vocab.json").write_text(json.dumps({w: i + 10**6 for w, i in words.items()}))
  (folder / "tokenizer_config.json").unlink()
  with pytest.raises(RunError, match="ids up to 1000692, but the model has 693 embeddings"):
    load_clip(folder)
