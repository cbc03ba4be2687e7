"""The address of a process in a run of several."""

import pytest

from genbench_jax.errors import UsageError
from genbench_jax.runtime import address
from genbench_jax.runtime.address import Address, one_of_several


@pytest.fixture(autouse=True)
def no_tpu(monkeypatch):
  monkeypatch.setattr(address, "_has_tpu", lambda: False)


def test_without_flags_nothing_is_given():
  assert not Address().is_given
  assert Address().check() == Address()


@pytest.mark.parametrize(
  "given", [Address("a:1"), Address(num_processes=0), Address(process_id=0), Address("a:1", 2)]
)
def test_one_flag_is_enough_to_be_given_but_not_to_be_complete(given):
  assert given.is_given
  with pytest.raises(UsageError, match="together, or none of them"):
    given.check()


@pytest.mark.parametrize("process", [0, 1])
def test_a_complete_address_is_returned(process):
  given = Address("host:1234", 2, process)
  assert given.check() is given


@pytest.mark.parametrize("coordinator", ["host", "host:", "host:12a", "1234"])
def test_the_coordinator_needs_a_port(coordinator):
  with pytest.raises(UsageError, match="expected HOST:PORT"):
    Address(coordinator, 2, 0).check()


def test_an_address_of_version_6_has_a_port_after_its_last_colon():
  assert Address("[::1]:1234", 1, 0).check()


@pytest.mark.parametrize("process", [2, 7])
def test_the_number_is_below_the_number_of_processes(process):
  with pytest.raises(UsageError, match=f"is {process}, expected 0 to 1 with --num_processes=2"):
    Address("host:1234", 2, process).check()


@pytest.mark.parametrize(
  ("words", "several"),
  [
    ([], False),
    (["--config", "demo"], False),
    (["--process_id=0"], True),
    (["--num_processes", "2"], True),
    (["-coordinator=a:1"], True),
    (["--coordinators=a:1"], False),
  ],
)
def test_a_flag_makes_a_process_one_of_several(words, several):
  assert one_of_several(words, {"JAX_PLATFORMS": "cpu"}) is several


@pytest.mark.parametrize(
  ("environment", "several"),
  [
    ({}, False),
    ({"SLURM_PROCID": "0"}, False),
    ({"SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "a"}, False),
    ({"SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "1"}, False),
    ({"SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "2"}, True),
    ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
    ({"OMPI_COMM_WORLD_SIZE": "4"}, True),
    ({"TPU_WORKER_HOSTNAMES": "a"}, False),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
    ({"TPU_PROCESS_ADDRESSES": "a,b", "JAX_PLATFORMS": "tpu,cpu"}, True),
    ({"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": "cpu"}, False),
  ],
)
def test_a_launcher_says_so_in_the_environment(environment, several):
  assert one_of_several([], environment) is several


def test_a_tpu_may_be_part_of_a_pod(monkeypatch):
  monkeypatch.setattr(address, "_has_tpu", lambda: True)
  assert one_of_several([], {})
  assert not one_of_several([], {"JAX_PLATFORMS": "cpu"})
