"""Whether the answer depends on the encoder or the recognizer."""

import pytest
from scipy.stats import kendalltau

from genbench_jax.report.encoders import (
  cross_agreements,
  cross_table,
  encoder_table,
  judge_of,
  merged,
  order_agreements,
  recognizer_table,
)
from genbench_jax.report.page import every_view


@pytest.fixture(scope="module")
def every(many):
  return every_view(many.many_rows())


def test_the_first_encoder_measured_is_the_main_one(every, many):
  assert [results.view.encoder for results in every] == list(many.ENCODERS)


def test_tau_is_kendalls_of_each_group(every):
  results = every[0]
  (found,) = order_agreements(results, ["linear_probe", "cler"], str)
  expected = []
  for dataset in results.datasets:
    for shots in results.shots:
      x, y = (
        [results.estimate(dataset, one, shots, name).value for one in results.generators]
        for name in ("linear_probe", "cler")
      )
      expected.append(kendalltau(x, y).statistic)
  assert found.tau == pytest.approx(sum(expected) / len(expected))
  assert found.interval[0] < found.tau < found.interval[1]
  assert (found.groups, found.series) == (16, 8)


def test_few_sources_have_no_interval(many):
  every = every_view(many.many_rows(generators=("sd-turbo", "lcm", "sdxl")))
  (found,) = order_agreements(every[0], ["linear_probe", "cler"], str)
  assert found.interval is None


def test_a_network_from_scratch_is_preferred_to_a_probe_on_another_encoder(every, many):
  results = merged(every)
  assert judge_of(results, "linear_probe") == "from_scratch"
  without = every_view([r for r in many.many_rows() if r["quantity"] != "from_scratch"])
  assert judge_of(merged(without), "linear_probe") == f"linear_probe [{many.ENCODERS[1]}]"
  assert judge_of(without[0], "linear_probe") == "fine_tune"


def test_cler_on_one_encoder_against_probes_on_another(every):
  found = cross_agreements(every)
  assert [(a == b) for a, b, _ in found] == [False, False, True, True]
  table = cross_table(every)
  assert table.columns == (
    "CLER on",
    "probe on clip-vit-base-patch32",
    "probe on siglip2-base-patch16-224",
  )
  assert table.rows[0][1] != table.rows[0][2]
  assert cross_table(every[:1]) is None


def test_tables_name_encoders_and_recognizers(every):
  table = encoder_table(every, "linear_probe")
  assert table.rows[0][:2] == ("clip-vit-base-patch32", "siglip2-base-patch16-224")
  names = {name for row in recognizer_table(every[0]).rows for name in row[:2]}
  assert names == {"linear probe", "network from scratch", "fine-tuned CLIP", "CLER"}
