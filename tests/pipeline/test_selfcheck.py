"""The self-check on the small models and datasets of the package, and with errors."""

import pytest

from genbench_jax.benchmark.registry import known_datasets
from genbench_jax.cli.selfcheck import main
from genbench_jax.pipeline.selfcheck import OWN, PUBLISHED, WIDE, Check, ready_datasets


def test_the_zoo_models_pass_on_their_datasets(capsys):
  assert main(["digits", "shapes", "--images", "200"]) == 0
  told = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in told] == ["dataset", "digits", "shapes"]
  assert all(line.endswith("right") and "NOT" not in line for line in told[1:])


def test_published_values_belong_to_known_datasets():
  assert set(PUBLISHED) <= set(known_datasets()) and set(WIDE) <= set(PUBLISHED)
  assert not set(OWN) & set(PUBLISHED)


def test_a_value_outside_its_band_does_not_pass():
  assert Check("cifar10", 88.9, 89.8, 2, 0, 10_000).passes
  assert not Check("cifar10", 10.2, 89.8, 2, 0, 10_000).passes
  assert Check("cifar10", 84.0, 89.8, 2, 4.5, 500).passes


def test_unprepared_datasets_are_reported(tmp_path, capsys):
  assert ready_datasets(str(tmp_path)) == []
  assert main(["cifar10", "--data-dir", str(tmp_path)]) == 2
  assert "cifar10 not ready with real data" in capsys.readouterr().err
  assert main(["food101"]) == 2
  assert "unknown dataset with a published value" in capsys.readouterr().err


@pytest.mark.parametrize("images", ["0", "few"])
def test_images_must_be_a_number(images, capsys):
  assert main(["digits", "--images", images]) == 2
  assert "at least 1" in capsys.readouterr().err
