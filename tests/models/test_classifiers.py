"""Residual networks and vision transformers agree with torchvision and timm, forward and backward."""

import gzip
import json
import math
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.models import weights
from genbench_jax.models.classifiers import load_published, make_classifier

DATA = Path(__file__).parents[1] / "data"
SIZE = 64


def drawn(name, shape):
  """Draw a tensor as tools/golden_recognizers.py does."""
  normal = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
  if name.endswith("running_var"):
    return (0.5 + np.abs(normal)).astype(np.float32)
  if len(shape) == 1 and name.endswith("weight"):
    # As in trained networks, the last norm of a bottleneck is small: 16 full ones would amplify rounding errors.
    return ((0.2 if name.endswith("bn3.weight") else 1) * (1 + 0.1 * normal)).astype(np.float32)
  fan_in = math.prod(shape[1:]) if len(shape) > 1 else 100
  return (normal / math.sqrt(fan_in)).astype(np.float32)


def filled(tree):
  """Return a tree of drawn weights in JAX's layout."""
  shapes = weights.torch_shapes(tree)
  tensors = {name: (lambda n=name, s=shape: drawn(n, s)) for name, shape in shapes.items()}
  return weights.load(tensors, tree, "drawn")


@pytest.fixture(scope="module")
def golden():
  return np.load(DATA / "golden_recognizers.npz")


def loss_of(params, classifier, stats, pixels):
  targets = optax.smooth_labels(jnp.eye(7)[np.arange(8) % 7], 0.1)
  logits, changed = classifier.logits(params, stats, pixels, train=True)
  return optax.softmax_cross_entropy(logits, targets).mean(), (logits, changed)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vit_s16"])
def test_forward_loss_and_gradient_match_pytorch(golden, name):
  """Compare float32 outputs, as runs compute them; training of residual networks in float64.

  These are random weights, not trained ones: through 50 layers normalized over 32 positions, float32 alone
  changes the first layers' gradients by 1e-4, in PyTorch as in ours.
  """
  classifier = make_classifier(name, SIZE, 7, stem="standard")
  shapes = jax.eval_shape(classifier.initial, jax.random.key(0))
  params, stats = (filled(tree) for tree in shapes)
  pixels = drawn("pixels", (8, 3, SIZE, SIZE)).transpose(0, 2, 3, 1) * 10
  evaluated, _ = jax.jit(classifier.logits, static_argnums=3)(params, stats, pixels, False)
  assert_close(evaluated, golden[f"{name}/eval"])
  wide = np.float32 if name == "vit_s16" else np.float64
  with jax.enable_x64(wide is np.float64):
    classifier = make_classifier(name, SIZE, 7, dtype=wide, stem="standard")
    params, stats, pixels = jax.tree.map(lambda leaf: leaf.astype(wide), (params, stats, pixels))
    # One program for all of it: compiling is most of the work.
    run = jax.jit(jax.value_and_grad(loss_of, has_aux=True), static_argnums=1)
    (value, (logits, changed)), gradients = run(params, classifier, stats, pixels)
    gradients, averages = weights.to_torch(gradients), weights.to_torch(changed) if stats else {}
  assert_close(logits, golden[f"{name}/train"])
  assert float(value) == pytest.approx(float(golden[f"{name}/loss"]), rel=2e-5)
  if stats:
    assert_close(averages["bn1.running_mean"], golden[f"{name}/bn1/running_mean"])
    wanted = golden[f"{name}/layer4/0/bn2/running_var"]
    assert_close(averages["layer4.0.bn2.running_var"], wanted)
  check_gradient(golden, name, gradients)


def check_gradient(golden, name, gradients):
  for tensor, product, norm in zip(
    golden[f"{name}/names"], golden[f"{name}/products"], golden[f"{name}/norms"], strict=True
  ):
    found = gradients.pop(str(tensor)).astype(np.float64)
    probe = drawn(f"{tensor}?", found.shape)
    # Rounding errors of a gradient scale with its norm, and so does their product with the probe tensor.
    scale = norm * np.linalg.norm(probe)
    assert np.linalg.norm(found) == pytest.approx(norm, rel=2e-5, abs=1e-7), tensor
    assert (found * probe).sum() == pytest.approx(product, abs=2e-5 * scale + 1e-7), tensor
  assert not gradients


def assert_close(found, wanted):
  np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max(), rtol=0)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vit_s16"])
def test_published_tensor_lists_match(name):
  keys = json.loads(gzip.decompress((DATA / "recognizer_keys.json.gz").read_bytes()))[name]
  classifier = make_classifier(name, 224, 1000)
  params, stats = jax.eval_shape(classifier.initial, jax.random.key(0))
  counters = "num_batches_tracked"
  published = {name: tuple(shape) for name, shape in keys.items() if not name.endswith(counters)}
  assert weights.torch_shapes(params) | weights.torch_shapes(stats) == published


def test_published_weights_load_with_a_new_head(tmp_path):
  """Load a checkpoint with another number of classes, as `fine_tune` does."""
  from safetensors.numpy import save_file

  published = make_classifier("vit_tiny", 32, 5)
  params, _ = published.initial(jax.random.key(1))
  save_file(weights.to_torch(params), tmp_path / "model.safetensors")
  loaded, stats = load_published(
    make_classifier("vit_tiny", 32, 3), str(tmp_path), jax.random.key(0)
  )
  assert stats == {}
  np.testing.assert_array_equal(
    loaded["blocks.0"]["attn.qkv"]["weight"], params["blocks.0"]["attn.qkv"]["weight"]
  )
  assert not np.any(loaded["head"]["weight"]) and loaded["head"]["weight"].shape == (96, 3)


@pytest.mark.slow
def test_running_averages_load_beside_the_norms(tmp_path):
  from safetensors.numpy import save_file

  classifier = make_classifier("resnet8", 32, 4)
  params, stats = (filled(tree) for tree in classifier.initial(jax.random.key(0)))
  state = weights.to_torch(params) | weights.to_torch(stats)
  state |= {"bn1.num_batches_tracked": np.zeros((), np.int64)}
  save_file(state, tmp_path / "model.safetensors")
  loaded, loaded_stats = load_published(classifier, str(tmp_path), jax.random.key(0))
  jax.tree.map(np.testing.assert_array_equal, stats, loaded_stats)
  np.testing.assert_array_equal(loaded["conv1"]["weight"], params["conv1"]["weight"])


def test_batch_statistics_cover_all_devices(mesh):
  """On eight devices, the network normalizes with the moments of the whole batch."""
  from genbench_jax.runtime.mesh import batch_sharding

  classifier = make_classifier("resnet8", 16, 3)
  params, stats = classifier.initial(jax.random.key(0))
  pixels = jnp.asarray(np.random.default_rng(0).normal(size=(16, 16, 16, 3)), jnp.float32)
  run = jax.jit(lambda pixels: classifier.logits(params, stats, pixels, True))
  alone, split = run(pixels), run(jax.device_put(pixels, batch_sharding(mesh)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), alone, split)


def test_unknown_networks_and_sizes_are_rejected():
  with pytest.raises(UsageError, match="resnet18"):
    make_classifier("resnet19", 32, 10)
  with pytest.raises(UsageError, match="patches"):
    make_classifier("vit_s16", 100, 10)
