"""The page contains nothing of the machine: no paths, users or host names."""

import json
import socket

import pytest

from genbench_jax.runtime import public as module
from genbench_jax.runtime.public import public, public_text


@pytest.fixture(autouse=True)
def host(monkeypatch):
  monkeypatch.setattr(socket, "gethostname", lambda: "alices-box.lab.example")
  monkeypatch.setenv("HOME", "/home/alice")
  module._host.cache_clear()
  yield
  module._host.cache_clear()


@pytest.mark.parametrize(
  ("text", "shown"),
  [
    ("--workdir /home/alice/runs/a", "--workdir …/a"),
    ("--workdir=/scratch/alice/runs/a/", "--workdir=…/a"),
    ("'--config.folder.path=/data/x/y z'", "'--config.folder.path=…/y z'"),
    ("'--config.folder.path=/data/My Secret/x y/z'", "'--config.folder.path=…/z'"),
    ('--workdir "/data/My Secret/a"', '--workdir "…/a"'),
    ("'a b' /c/d 'e'", "'a b' …/d 'e'"),
    ("left out: 'cat/a b.png'", "left out: 'cat/a b.png'"),
    ("--workdir ~/runs/a", "--workdir …/a"),
    ("~bob/secret/x", "…/x"),
    ("file:///mnt/alice/x", "…/x"),
    (r"C:\Users\alice\model", "…/model"),
    ("/data", "…/data"),
    ("the pool /a/b/c, and /d/e.", "the pool …/c, and …/e."),
    ("process 1 on alices-box.lab.example died", "process 1 on HOST died"),
    ("openai/clip-vit-base-patch32", "openai/clip-vit-base-patch32"),
    ("https://example.org/a/b", "https://example.org/a/b"),
    ("gs://bucket/runs/a s3://b/c", "gs://bucket/runs/a s3://b/c"),
    ("zoo/clip and runs/a/b", "zoo/clip and runs/a/b"),
    ("1/2 of 3/4, and/or", "1/2 of 3/4, and/or"),
    ("./relative/path ../up/x", "./relative/path ../up/x"),
    ("a photo of a {}.", "a photo of a {}."),
    ("folder:/data/alice/ds", "folder:…/ds"),
  ],
)
def test_paths_and_names_are_removed_and_words_stay(text, shown):
  assert public_text(text) == shown
  assert public_text(shown) == shown


def test_a_config_stays_json():
  config = {
    "encoder": {"checkpoint": "/home/alice/models/clip"},
    "datasets": ["folder:/data/My Secret/ds"],
    "paths": ["a=/data/My Secret/x", "C:\\My Secret\\y", r"\\server\My Share\z"],
    "template": "a photo of a {} / sketch",
    "steps": 8,
  }
  shown = json.loads(public(json.dumps(config)))
  assert shown == {
    "encoder": {"checkpoint": "…/clip"},
    "datasets": ["folder:…/ds"],
    "paths": ["a=…/x", "…/y", "…/z"],
    "template": "a photo of a {} / sketch",
    "steps": 8,
  }
  assert public({"a": ["/x/y", 1, None, ("/x/z",)]}) == {"a": ["…/y", 1, None, ["…/z"]]}
