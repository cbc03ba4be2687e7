"""Hosts with different data are rejected before a stage waits for files of another name."""

import dataclasses

import pytest

from genbench_jax.config import Config
from genbench_jax.errors import UsageError
from genbench_jax.pipeline.stages import _refuse_different_data
from genbench_jax.run import Run
from genbench_jax.runtime.hosts import Hosts


@dataclasses.dataclass(frozen=True)
class TwoHosts(Hosts):
  """Two processes, of which the other has its own digests."""

  count: int = 2
  other: tuple[tuple[str, str], ...] = ()

  def gathered(self, values, what):
    ((_, own),) = values
    return [["a", own], ["b", own | dict(self.other)]]


def _run(tmp_path, hosts):
  run = Run(Config(datasets=("shapes",), sources=("original",)), tmp_path)
  run.__dict__["hosts"] = hosts  # a cached property
  return run


@pytest.mark.parametrize(
  ("split", "stages"), [("shapes test", ["embed"]), ("shapes train", ["images"])]
)
def test_different_data_are_named_with_both_hosts(tmp_path, split, stages):
  run = _run(tmp_path, TwoHosts(other=((split, "123"),)))
  words = f"process 0 on a and process 1 on b have different data: '{split}'"
  with pytest.raises(UsageError, match=words):
    _refuse_different_data(run, stages)
  _refuse_different_data(_run(tmp_path, TwoHosts()), stages)


def test_splits_that_no_stage_uses_are_not_read(tmp_path, monkeypatch):
  read = []
  monkeypatch.setattr(Run, "digest", lambda run, dataset, split: read.append(split) or "1")
  _refuse_different_data(_run(tmp_path, TwoHosts()), ["images"])
  assert read == ["train"]
