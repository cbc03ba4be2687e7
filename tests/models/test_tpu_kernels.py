"""The TPU kernels in Pallas' interpreter, and the sizes that they support."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu
from scipy.special import erf

from genbench_jax.models import tpu_kernels
from genbench_jax.models.diffusion_model import apply_unet
from genbench_jax.models.unet import Conditions

EPS = 1e-5
layer_of = functools.partial(tpu_kernels.feed_forward, eps=EPS)


def layer(rows=(2, 24), width=32, inner=256):
  """Return hidden states and the weights of a feed-forward layer with its norm."""
  draw = np.random.default_rng(0)
  shapes = [(*rows, width), (width,), (width,), (width, 2 * inner), (2 * inner,), (inner, width), (width,)]  # fmt: skip
  return [
    jnp.asarray(draw.standard_normal(shape, np.float32) / shape[0] ** 0.5) for shape in shapes
  ]


def normed(hidden, weight, bias):
  centered = hidden - hidden.mean(axis=-1, keepdims=True)
  return centered / np.sqrt((centered**2).mean(axis=-1, keepdims=True) + EPS) * weight + bias


def formula(hidden, weight, bias, inner_kernel, inner_bias, outer_kernel, outer_bias):
  both = normed(hidden, weight, bias) @ inner_kernel + inner_bias
  linear, gate = np.split(both, 2, axis=-1)
  gated = linear * gate * (1 + erf(gate / np.sqrt(2))) / 2
  return hidden + gated @ outer_kernel + outer_bias


# All columns in one step, and in four steps.
@pytest.mark.slow
@pytest.mark.parametrize("inner", [256, 640])
def test_feed_forward_matches_the_formula_and_its_gradient(inner):
  arrays = layer(inner=inner)
  wide = [np.asarray(x, np.float64) for x in arrays]
  with tpu.force_tpu_interpret_mode():
    made = layer_of(*arrays)
    found = jax.grad(lambda *xs: layer_of(*xs).sum(), argnums=range(7))(*arrays)
    each = jax.vmap(layer_of, (0, *6 * (None,)))(*arrays)
  np.testing.assert_allclose(made, formula(*wide), atol=1e-5)
  np.testing.assert_allclose(each, made, atol=1e-6)
  step = 1e-6 * np.random.default_rng(1).standard_normal(wide[0].shape)
  rise = formula(wide[0] + step, *wide[1:]).sum() - formula(wide[0] - step, *wide[1:]).sum()
  np.testing.assert_allclose((found[0] * step).sum() * 2, rise, rtol=1e-3)


def test_projections_match_the_formula_and_their_gradient():
  draw = np.random.default_rng(0)
  shapes = (2, 24, 32), (32,), (32,), (32, 16), (32, 40)
  hidden, weight, bias, *kernels = (draw.standard_normal(shape, np.float32) for shape in shapes)

  def both(form, *arrays):
    return form(3 + 2 * hidden, *arrays[:2], arrays[2:], EPS)

  def total(form, *arrays):
    return sum(jnp.sin(made).sum() for made in both(form, *arrays))

  arrays = tuple(map(jnp.asarray, (weight, bias, *kernels)))
  states = normed(3 + 2 * hidden, weight, bias)
  with tpu.force_tpu_interpret_mode():
    made = both(tpu_kernels.projections, *arrays)
    found = jax.grad(total, argnums=range(1, 5))(tpu_kernels.projections, *arrays)
  for one, kernel in zip(made, kernels, strict=True):
    np.testing.assert_allclose(one, states @ kernel, atol=1e-4)
  wanted = jax.grad(total, argnums=range(1, 5))(tpu_kernels.projections_written_out, *arrays)
  for one, other in zip(found, wanted, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_gelu_is_exact():
  x = np.linspace(-6, 6, 1001, dtype=np.float32)
  np.testing.assert_allclose(tpu_kernels.gelu(x), x * (1 + erf(x / np.sqrt(2))) / 2, atol=1e-6)


def shapes(length, width, heads, keys=None):
  query = jax.ShapeDtypeStruct((16, length, heads, width // heads), jnp.bfloat16)
  return query, jax.ShapeDtypeStruct((16, keys or length, *query.shape[2:]), jnp.bfloat16)


@pytest.mark.unchecked
def test_stable_diffusions_sizes_fit():
  layers = [(4096, 320), (1024, 640), (256, 1280), (64, 1280)]
  for heads_of in (lambda width: width // 64, lambda _: 8):  # 2.x and 1.x
    for length, width in layers:
      assert tpu_kernels.attention_fits(*shapes(length, width, heads_of(width)))
      assert tpu_kernels.attention_fits(*shapes(length, width, heads_of(width), keys=77))
  assert not tpu_kernels.attention_fits(*shapes(16384, 320, 5))
  assert not tpu_kernels.attention_fits(*shapes(100, 64, 1))

  def fits(length, width):
    hidden = jax.ShapeDtypeStruct((16, length, width), jnp.bfloat16)
    return tpu_kernels.feed_forward_fits(
      hidden, jax.ShapeDtypeStruct((width, 8 * width), jnp.bfloat16)
    )

  assert [fits(*sizes) for sizes in layers] == [True, True, False, False]
  for length, width in layers:
    hidden, kernel = (
      jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((16, length, width), (width, width))
    )
    assert tpu_kernels.projections_fit(hidden, [kernel] * 3)


@pytest.mark.slow
def test_the_unet_gives_the_same_output_with_the_kernels(tiny_diffusion, monkeypatch):
  used = []
  for name in ("attention", "feed_forward", "projections"):
    kernel = getattr(tpu_kernels, name)
    monkeypatch.setattr(tpu_kernels, name, lambda *xs, k=kernel, n=name: used.append(n) or k(*xs))
  side, channels = tiny_diffusion.unet.config.sample_size, tiny_diffusion.latent_channels
  draw = np.random.default_rng(0)
  latents = draw.standard_normal((2, side, side, channels), np.float32)
  text = draw.standard_normal((2, 16, tiny_diffusion.unet.config.cross_attention_dim), np.float32)
  inputs = (latents, jnp.float32(500), Conditions(text))
  arguments = (tiny_diffusion.unet, tiny_diffusion.params["unet"], *inputs)
  with tpu.force_tpu_interpret_mode():
    made = apply_unet(*arguments, "tpu")
  assert set(used) == {"attention", "feed_forward", "projections"}
  np.testing.assert_allclose(made, apply_unet(*arguments, "plain"), atol=1e-4)
