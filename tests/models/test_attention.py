"""Every implementation of attention agrees with the formula in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu

from genbench_jax.models import attention as module, tpu_kernels
from genbench_jax.models.attention import attention


def inputs(queries, keys, heads=3, width=8, batch=2):
  draw = np.random.default_rng(0)
  shapes = [(batch, length, heads, width) for length in (queries, keys, keys)]
  return [draw.standard_normal(shape, np.float32) for shape in shapes]


def formula(query, key, value):
  scores = np.einsum("bqhd,bkhd->bhqk", *(x.astype(np.float64) for x in (query, key)))
  weights = np.exp(scores / np.sqrt(query.shape[-1]))
  return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), value)


# Short; long self-attention in blocks; long cross-attention; a length that no block size divides.
@pytest.mark.parametrize("lengths", [(16, 16), (512, 512), (256, 77), (300, 300)])
def test_attention_matches_the_formula_on_cpu(lengths):
  arrays = inputs(*lengths)
  np.testing.assert_allclose(jax.jit(attention)(*arrays), formula(*arrays), atol=1e-5)


def test_large_scores_do_not_overflow():
  query, key, value = inputs(256, 256)
  mixed = attention(60 * query, 60 * key, value)
  assert np.isfinite(mixed).all()
  np.testing.assert_allclose(mixed, module.by_einsum(60 * query, 60 * key, value), atol=1e-4)


def test_gradients_flow_through_blocks():
  arrays = inputs(256, 32, heads=1)
  blocks = jax.jit(jax.grad(lambda *xs: module.by_query_blocks(*xs).sum()))(*arrays)
  whole = jax.jit(jax.grad(lambda *xs: module.by_einsum(*xs).sum()))(*arrays)
  np.testing.assert_allclose(blocks, whole, atol=1e-5)


def test_flash_attention_matches_the_formula():
  arrays = inputs(256, 256, heads=2, width=64, batch=1)
  with tpu.force_tpu_interpret_mode():
    mixed = module._flash(*(jnp.asarray(x) for x in arrays))
  np.testing.assert_allclose(mixed, formula(*arrays), atol=1e-4)


def test_flash_attention_requires_long_sequences_of_whole_blocks():
  def suits(queries, keys, width=64):
    return module._suits_flash(*inputs(queries, keys, 1, width, 1)[:2])

  assert suits(1024, 1024) and suits(4096, 4096)
  assert not suits(256, 256) and not suits(4096, 77) and not suits(1100, 1100)
  assert not suits(4096, 4096, 512)


# Self-attention with one and with several query blocks; cross-attention with 77 text tokens.
@pytest.mark.slow
@pytest.mark.parametrize("lengths", [(64, 64), (256, 256), (256, 77)])
def test_tpu_attention_matches_the_formula_and_its_gradient(lengths):
  drawn = inputs(*lengths, width=40)
  arrays = [jnp.asarray(x) for x in drawn]

  def total(function):
    return jax.grad(lambda *xs: jnp.sin(function(*xs)).sum(), argnums=(0, 1, 2))

  with tpu.force_tpu_interpret_mode():
    mixed = attention(*arrays, platform="tpu")
    gradients = total(lambda *xs: attention(*xs, platform="tpu"))(*arrays)
    each = jax.vmap(lambda *xs: attention(*(x[None] for x in xs), platform="tpu")[0])(*arrays)
  np.testing.assert_allclose(mixed, formula(*drawn), atol=1e-5)
  np.testing.assert_allclose(each, mixed, atol=1e-6)
  for found, expected in zip(gradients, total(module.by_einsum)(*arrays), strict=True):
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.unchecked
def test_tpu_attention_falls_back_if_it_does_not_fit():
  query, key, value = (
    jax.ShapeDtypeStruct((1, 65536, 5, 64), jnp.bfloat16) for _ in ("query", "key", "value")
  )
  assert not tpu_kernels.attention_fits(query, key)
  made = jax.make_jaxpr(lambda *xs: attention(*xs, platform="tpu"))(query, key, value)
  assert "flash_attention" in str(made)


def test_einsums_are_used_without_cudnn(caplog):
  module.cudnn_works.cache_clear()
  arrays = [jnp.asarray(x, jnp.bfloat16) for x in inputs(256, 256)]
  assert module._suits_cudnn(arrays[0])
  np.testing.assert_array_equal(attention(*arrays, platform="gpu"), module.by_einsum(*arrays))
  assert "cuDNN's attention is not used" in caplog.text
  module.cudnn_works.cache_clear()


def test_inaccurate_cudnn_is_not_used(monkeypatch):
  module.cudnn_works.cache_clear()
  monkeypatch.setattr(jax.nn, "dot_product_attention", lambda query, *_, **__: query)
  assert not module.cudnn_works()
  monkeypatch.setattr(
    jax.nn, "dot_product_attention", lambda *arrays, **_: module.by_einsum(*arrays)
  )
  module.cudnn_works.cache_clear()
  assert module.cudnn_works()
  module.cudnn_works.cache_clear()


@pytest.mark.slow
def test_inaccurate_or_failing_tpu_kernels_are_not_used(monkeypatch, caplog):
  module.tpu_kernels_work.cache_clear()
  assert module.tpu_kernels_work()  # no TPU here, so there is nothing to test
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  module.tpu_kernels_work.cache_clear()
  with tpu.force_tpu_interpret_mode():
    assert module.tpu_kernels_work()
    monkeypatch.setattr(tpu_kernels, "feed_forward", lambda hidden, *_, **__: hidden + 1)
    module.tpu_kernels_work.cache_clear()
    assert not module.tpu_kernels_work()
  assert "our TPU feed-forward layer is not used: it is off by" in caplog.text
  module.tpu_kernels_work.cache_clear()
  assert not module.tpu_kernels_work()  # a real kernel on a CPU
  assert "our TPU attention is not used" in caplog.text
  query = jnp.asarray(inputs(64, 64)[0])
  monkeypatch.setattr(tpu_kernels, "attention", None)
  assert attention(query, query, query, platform="tpu").shape == query.shape
  module.tpu_kernels_work.cache_clear()
