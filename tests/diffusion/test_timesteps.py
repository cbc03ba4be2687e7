"""Timesteps and noise levels of samplers."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from genbench_jax.diffusion.timesteps import (
  BETA_SHAPE,
  KARRAS_RHO,
  LEAST_SIGNAL,
  explicit,
  sigmas_at,
  spread,
  steps_of_sigmas,
  timesteps,
  training_sigmas,
)
from genbench_jax.errors import RunError, UsageError
from genbench_jax.models.noise_schedule import NoiseSchedule

BETAS = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
SCHEDULE = NoiseSchedule(np.cumprod(1 - BETAS), "epsilon")


def spaced(spacing, count, points=None, **settings):
  schedule = dataclasses.replace(SCHEDULE, timestep_spacing=spacing)
  return timesteps(schedule, count, "leading", points or count, **settings).tolist()


def test_leading_steps_are_multiples_plus_the_offset():
  assert spaced("leading", 4) == [751, 501, 251, 1]
  schedule = dataclasses.replace(SCHEDULE, steps_offset=0)
  assert timesteps(schedule, 4, "leading", 4).tolist() == [750, 500, 250, 0]


def test_leading_steps_stay_within_the_training():
  schedule = dataclasses.replace(SCHEDULE, steps_offset=300)
  assert timesteps(schedule, 4, "leading", 4).tolist() == [999, 800, 550, 300]


def test_even_steps_span_the_whole_training():
  assert spaced("linspace", 5) == [999, 749, 500, 250, 0]  # 749.25, 499.5, 249.75 rounded to even
  assert spaced("linspace", 5, whole=False) == [999, 749.25, 499.5, 249.75, 0]


def test_trailing_steps_begin_at_the_last_one():
  assert spaced("trailing", 4) == [999, 749, 499, 249]
  assert spaced("trailing", 3) == [999, 666, 332]


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_a_solver_may_use_one_point_more_than_it_visits(spacing):
  more, usual = spaced(spacing, 4, 5), spaced(spacing, 5)
  assert more == usual[:4]


def test_a_part_of_the_training_may_be_used():
  assert max(spaced("leading", 4, last=500)) <= 500
  assert spaced("linspace", 3, last=501) == [500, 250, 0]
  assert spaced("trailing", 2, last=500) == [499]  # steps of 500, down from 500


def test_the_checkpoints_spacing_comes_before_the_samplers():
  trailing = dataclasses.replace(SCHEDULE, timestep_spacing="trailing")
  assert timesteps(trailing, 2, "leading", 2)[0] == 999
  assert timesteps(SCHEDULE, 2, "leading", 2)[0] == 501
  with pytest.raises(RunError, match="'backward'"):
    timesteps(SCHEDULE, 2, "backward", 2)


@given(st.integers(1, 60), st.sampled_from(["leading", "linspace", "trailing"]))
def test_steps_descend_within_the_training(count, spacing):
  found = np.array(spaced(spacing, count))
  assert len(found) == count
  assert (np.diff(found) < 0).all()
  assert found.min() >= 0 and found.max() <= 999


@pytest.mark.parametrize("given_steps", [[999], [999, 0], [5, 4, 3], (7, 2)])
def test_the_users_steps_are_taken_as_they_are(given_steps):
  assert explicit(SCHEDULE, given_steps, "lcm").tolist() == list(given_steps)


@pytest.mark.parametrize(
  "given_steps", [[], [1000], [1000, 5], [-1], [5, -1], [5, 5], [5, 6], [2.5], [[5], [4]]]
)
def test_other_steps_are_rejected(given_steps):
  with pytest.raises(UsageError, match="lcm takes descending whole numbers from 999 to 0"):
    explicit(SCHEDULE, given_steps, "lcm")


def test_sigma_is_the_ratio_of_noise_to_signal():
  signal = SCHEDULE.alphas_cumprod
  # Single precision, as in Diffusers: 1 - signal keeps four digits where the signal is almost 1.
  np.testing.assert_allclose(training_sigmas(SCHEDULE) ** 2, (1 - signal) / signal, rtol=1e-4)
  np.testing.assert_allclose(training_sigmas(SCHEDULE)[-1], 14.6146, rtol=1e-4)


def test_pure_noise_has_a_finite_sigma():
  alphas = SCHEDULE.alphas_cumprod.copy()
  alphas[-1] = 0
  schedule = dataclasses.replace(SCHEDULE, alphas_cumprod=alphas, zero_snr=True)
  assert training_sigmas(schedule)[-1] == pytest.approx(LEAST_SIGNAL**-0.5)
  assert alphas[-1] == 0  # the schedule itself is unchanged


def test_sigmas_between_two_steps_are_interpolated():
  sigmas = training_sigmas(SCHEDULE)
  found = sigmas_at(SCHEDULE, np.array([10.0, 10.25, 999.0]))
  np.testing.assert_allclose(found, [sigmas[10], 0.75 * sigmas[10] + 0.25 * sigmas[11], sigmas[-1]])


@given(st.integers(0, 999))
def test_a_sigma_leads_back_to_its_step(step):
  found = steps_of_sigmas(SCHEDULE, sigmas_at(SCHEDULE, np.array([float(step)])))
  assert found[0] == pytest.approx(step, abs=1e-4)  # logs in single precision


def test_sigmas_outside_the_training_are_its_ends():
  assert steps_of_sigmas(SCHEDULE, np.array([0.0, 1e9])).tolist() == [0, 999]


@given(st.sampled_from(["karras", "exponential", "beta"]), st.integers(2, 40))
def test_every_spread_falls_from_the_highest_to_the_lowest(kind, count):
  found = spread(kind, 14.6, 0.03, count)
  assert len(found) == count and (np.diff(found) < 0).all()
  np.testing.assert_allclose(found[[0, -1]], [14.6, 0.03], rtol=1e-9)


def test_karras_sigmas_are_even_in_their_seventh_root():
  roots = spread("karras", 14.6, 0.03, 9) ** (1 / KARRAS_RHO)
  np.testing.assert_allclose(np.diff(roots), np.diff(roots)[0])


def test_exponential_sigmas_are_even_in_the_logarithm():
  logs = np.log(spread("exponential", 14.6, 0.03, 9))
  np.testing.assert_allclose(np.diff(logs), np.diff(logs)[0])


def test_beta_sigmas_are_quantiles():
  shares = (spread("beta", 14.6, 0.03, 9) - 0.03) / (14.6 - 0.03)
  found = stats.beta.cdf(shares, BETA_SHAPE, BETA_SHAPE)
  np.testing.assert_allclose(found, np.linspace(1, 0, 9), atol=1e-9)


def test_the_parameters_of_the_spreads_are_the_published_ones():
  assert (KARRAS_RHO, BETA_SHAPE) == (7, 0.6)
