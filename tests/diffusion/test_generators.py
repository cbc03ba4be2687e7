"""Tables of generators, and sweeps over settings."""

import dataclasses
import re

import pytest
from hypothesis import given, strategies as st

from genbench_jax.diffusion.generators import generator_sweep, read_generators
from genbench_jax.diffusion.settings import Generation
from genbench_jax.errors import UsageError

BASE = Generation(checkpoint="base", revision="abc", sha256="def", steps=7)


def test_an_entry_inherits_what_it_does_not_give():
  found = read_generators(BASE, {"b": {"steps": 3}, "a": {"guidance_scale": 1}})
  assert list(found) == ["a", "b"]
  assert (found["a"].steps, found["a"].guidance_scale) == (7, 1.0)
  assert (found["b"].steps, found["b"].checkpoint, found["b"].revision) == (3, "base", "abc")


def test_another_checkpoint_inherits_no_pins():
  found = read_generators(BASE, {"a": {"checkpoint": "other"}})["a"]
  assert (found.checkpoint, found.revision, found.sha256) == ("other", "", "")
  pinned = read_generators(BASE, {"a": {"checkpoint": "other", "revision": "123"}})["a"]
  assert (pinned.revision, pinned.sha256) == ("123", "")


@pytest.mark.parametrize(
  ("key", "value"),
  [("strategies", ("simple_template",)), ("keep_images", "none"), ("shard_size", 3)],
)
def test_settings_of_the_benchmark_are_shared(key, value):
  assert getattr(BASE, key) != value
  with pytest.raises(UsageError, match=f"generators.a.{key} can't be set"):
    read_generators(BASE, {"a": {key: value}})
  assert read_generators(BASE, {"a": {key: getattr(BASE, key)}})


@pytest.mark.parametrize(
  ("backend", "key", "value"),
  [
    ("diffusers", "scheduler", "ddim"),
    ("diffusers", "implementation", "diffusers"),
    ("mine:images", "scheduler", "ddim"),
    ("mine:images", "steps", 3),
    ("mine:images", "guidance_scale", 2.0),
  ],
)
def test_an_entry_has_no_settings_that_its_backend_ignores(backend, key, value):
  """A sweep over them would rank the same images under several names."""
  with pytest.raises(
    UsageError, match=f"generators.a.{key} has no effect with backend '{backend}'"
  ):
    read_generators(BASE, {"a": {"backend": backend, key: value}})
  # What the base has for other entries is not the entry's own.
  assert read_generators(dataclasses.replace(BASE, **{key: value}), {"a": {"backend": backend}})
  assert read_generators(BASE, {"a": {"backend": "diffusers", "steps": 3, "guidance_scale": 2.0}})


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", "a" * 81, "é"])
def test_a_name_is_part_of_file_names(name):
  with pytest.raises(UsageError, match="a name may have at most 80"):
    read_generators(BASE, {name: {}})
  assert read_generators(BASE, {"a" * 80: {}})


def test_a_table_is_needed():
  with pytest.raises(UsageError, match="expected a table"):
    read_generators(BASE, ["a"])
  with pytest.raises(UsageError, match=r"generators\.a is 3"):
    read_generators(BASE, {"a": 3})


def test_a_sweep_has_every_combination():
  table = generator_sweep("sd", guidance_scale=(1.5, 4), steps=[10, 25], scheduler="ddim")
  assert list(table) == [
    "sd-guidance_scale1_5-steps10",
    "sd-guidance_scale1_5-steps25",
    "sd-guidance_scale4-steps10",
    "sd-guidance_scale4-steps25",
  ]
  assert table["sd-guidance_scale4-steps10"] == {
    "guidance_scale": 4, "steps": 10, "scheduler": "ddim",
  }  # fmt: skip


def test_loras_are_a_list_of_their_own():
  table = generator_sweep("sd", loras=("a.safetensors:1",), steps=(1, 2))
  assert all(entry["loras"] == ("a.safetensors:1",) for entry in table.values())
  assert len(table) == 2


def test_a_setting_that_is_a_list_is_swept_by_a_list_of_lists():
  fixed = generator_sweep("dmd2", timesteps=(999, 499), lora_sha256=("ab",), steps=(1, 2))
  assert [entry["timesteps"] for entry in fixed.values()] == [(999, 499)] * 2
  assert [entry["lora_sha256"] for entry in fixed.values()] == [("ab",)] * 2
  table = generator_sweep("dmd2", timesteps=[(999, 499), (999,)])
  assert [entry["timesteps"] for entry in table.values()] == [(999, 499), (999,)]
  assert len(read_generators(BASE, table)) == 2


def test_a_sweep_loses_no_entry():
  with pytest.raises(UsageError, match="two entries would be named 'sd-negative_prompta_b'"):
    generator_sweep("sd", negative_prompt=("a b", "a_b"))
  with pytest.raises(UsageError, match="steps has no values to sweep"):
    generator_sweep("sd", steps=())


def test_without_lists_there_is_one_entry():
  assert generator_sweep("sd", steps=3) == {"sd": {"steps": 3}}


@given(st.lists(st.floats(0.1, 99, allow_nan=False), min_size=1, max_size=4, unique=True))
def test_every_name_of_a_sweep_is_valid(scales):
  table = generator_sweep("sd", guidance_scale=scales)
  assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}", name) for name in table)
  assert read_generators(BASE, table)
