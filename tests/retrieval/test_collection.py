"""Folders and tars as collections: contents, and protection against malicious ones."""

import os
import tarfile

import pytest

from genbench_jax.errors import RunError, UsageError
from genbench_jax.retrieval.captions import caption_of
from genbench_jax.retrieval.collection import open_collection
from genbench_jax.retrieval.tars import tar_index
from tests.tars import write_tar


def test_a_folder_with_captions_beside(tmp_path, png):
  (tmp_path / "sub").mkdir()
  for number, name in enumerate(("a.png", "b.jpg", "sub/c.PNG")):
    (tmp_path / name).write_bytes(png(number))
  (tmp_path / "a.txt").write_text(" a cat \n")
  (tmp_path / "b.json").write_text('{"caption": "a dog", "url": "http://x/b.jpg"}')
  (tmp_path / "notes.md").write_text("not an image")
  parts = open_collection(tmp_path, per_part=2)
  assert [part.name for part in parts] == ["a.png and 1 more", "sub/c.PNG and 0 more"]
  entries = [entry for part in parts for entry in part.listing().entries]
  assert [(e.name, e.caption, e.url) for e in entries] == [
    ("a.png", "a cat", ""),
    ("b.jpg", "a dog", "http://x/b.jpg"),
    ("sub/c.PNG", "", ""),
  ]
  assert entries[2].place.read() == png(2)


def test_links_out_of_a_folder_are_left_out(tmp_path, png):
  (tmp_path / "secret.png").write_bytes(png(0))
  folder = tmp_path / "images"
  folder.mkdir()
  (folder / "a.png").write_bytes(png(1))
  (folder / "b.png").symlink_to(tmp_path / "secret.png")
  entries, left_out = open_collection(folder, 10)[0].listing()
  assert [entry.name for entry in entries] == ["a.png"]
  assert left_out == 1


def test_a_hostile_tar(tmp_path, png):
  members = [
    ("good.png", png(0)),
    ("good.txt", b"a good one"),
    ("../out.png", png(1)),
    ("/abs.png", png(2)),
    ("link.png", (tarfile.SYMTYPE, "/etc/passwd")),
    ("hard.png", (tarfile.LNKTYPE, "good.png")),
    ("good.png", png(3)),
    ("dir.png", (tarfile.DIRTYPE, "")),
    ("two.seg.png", png(4)),
    ("odd\u202e.jpg", png(5)),
    ("odd\u202e.json", b"[not json"),
  ]
  write_tar(tmp_path / "0.tar", members)
  entries, left_out = open_collection(tmp_path, 10)[0].listing()
  assert [(e.name, e.caption) for e in entries] == [
    ("good.png", "a good one"),
    ("odd\u202e.jpg", ""),
    ("two.seg.png", ""),
  ]
  assert left_out == 5
  assert entries[0].place.read() == png(0)
  assert entries[1].place.read() == png(5)
  index = tar_index([tmp_path / "0.tar"])
  assert index.find("", ["good"]) == index.find("", ["good.png"]) == entries[0].place


def test_compressed_and_damaged_tars_end_in_one_line(tmp_path, png):
  path = tmp_path / "0.tar"
  write_tar(path, [("a.png", png(0))], "w:gz")
  for content in (path.read_bytes(), b"nothing like a tar" * 100):
    path.write_bytes(content)
    with pytest.raises(RunError, match="can't be read as an uncompressed tar") as error:
      open_collection(tmp_path, 10)[0].listing()
    assert "\n" not in str(error.value)


def test_nothing_to_embed(tmp_path):
  with pytest.raises(UsageError, match="holds neither"):
    open_collection(tmp_path, 10)
  with pytest.raises(UsageError, match="neither a folder nor"):
    open_collection(tmp_path / "absent", 10)


def test_plain_text_comes_before_json():
  beside = {".txt": b"", ".caption": b"from caption", ".json": b'{"caption": "from json"}'}
  assert caption_of(beside) == ("from caption", "")
  assert caption_of({".json": b'{"caption": null, "text": "t", "url": 3}'}) == ("t", "3")
  assert caption_of({".json": b'"text"', ".txt": b"\xff"}) == ("\ufffd", "")


def test_dots_in_the_names_of_a_tar(tmp_path, png):
  names = ("a.png", "a.seg.png", "photo.v2.png", "22.05.png", "22.06.png")
  others = [
    ("photo.v2.txt", b"second version"),
    ("no suffix", png(9)),
    ("._a.png", b"left by a Mac"),
    ("__MACOSX/a.png", b"left by a Mac"),
  ]
  images = [(name, png(number)) for number, name in enumerate(names)]
  write_tar(tmp_path / "0.tar", images + others)
  entries, left_out = open_collection(tmp_path, 10)[0].listing()
  assert {e.name: e.caption for e in entries} == {
    "a.png": "", "photo.v2.png": "second version", "22.05.png": "", "22.06.png": "", "no suffix": "",
  }  # fmt: skip
  assert left_out == 1  # of the sample `a` something else than its image


def test_equal_keys_of_two_tars_are_not_mixed_up(tmp_path, png):
  for number in range(2):
    url = b'{"url": "http://x/%d.png"}' % number
    members = [
      ("00001.png", png(number)),
      ("00001.json", url),
      (f"alone{number}.png", png(2 + number)),
    ]
    write_tar(tmp_path / f"{number}.tar", members)
  index = tar_index(sorted(tmp_path.glob("*.tar")))
  assert index.find("http://x/1.png", ["00001"]).read() == png(1)
  assert index.find("", ["00001"]) is None
  assert index.find("http://elsewhere", ["00001"]) is None
  assert index.find("http://elsewhere", ["alone1"]).read() == png(3)


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_captions_that_are_no_files_are_not_read(tmp_path, png, kind, capsys):
  secret = tmp_path / "secret"
  secret.write_text("a secret")
  folder = tmp_path / "images"
  folder.mkdir()
  (folder / "a\x1b.png").write_bytes(png(0))
  for suffix in (".txt", ".caption", ".json"):
    path = folder / f"a\x1b{suffix}"
    path.symlink_to(secret) if kind == "link" else os.mkfifo(path)
  (part,) = open_collection(folder, 10)
  assert "\x1b" not in part.name
  assert [entry.caption for entry in part.listing().entries] == [""]
  said = capsys.readouterr().err
  assert "3 caption files left out" in said
  assert "\x1b" not in said


def test_names_that_are_not_utf8_are_left_out_and_named(tmp_path, png, capsys):
  (tmp_path / "caf\udce9.png").write_bytes(png(0))
  (tmp_path / "a.png").write_bytes(png(1))
  (part,) = open_collection(tmp_path, 9)
  assert [entry.name for entry in part.listing().entries] == ["a.png"]
  assert "1 left out, names are not UTF-8: 'caf\\\\xe9.png'" in capsys.readouterr().err
  write_tar(tmp_path / "b.tar", [("caf\udce9.png", png(0)), ("a.png", png(0))])
  (part,) = open_collection(tmp_path / "b.tar", 9)
  assert [entry.name for entry in part.listing().entries] == ["a.png"]
  assert part.listing().left_out == 1


def test_only_tars_are_collections_of_one_file_and_a_folder_may_have_any_name(tmp_path, png):
  (tmp_path / "a.zip").write_bytes(b"PK")
  with pytest.raises(UsageError, match=r"neither a folder nor a \.tar"):
    open_collection(tmp_path / "a.zip", 10)
  (tmp_path / "folder.tar").mkdir()
  (tmp_path / "folder.tar" / "a.png").write_bytes(png(0))
  (part,) = open_collection(tmp_path / "folder.tar", 10)
  assert (part.kind, part.name, part.listing().left_out) == ("images", "a.png and 0 more", 0)
