"""Operation counts of the models against their traced programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from genbench_jax.models import checkpoints, clip as clip_model, diffusion_networks
from genbench_jax.models.attention import PLAIN
from genbench_jax.models.checkpoints import read_json
from genbench_jax.models.diffusion_model import apply_decoder, apply_unet
from genbench_jax.models.diffusion_parts import folder_configs
from genbench_jax.models.unet import Conditions
from genbench_jax.planning import models, work
from genbench_jax.zoo import tiny


def traced(function, *args):
  """Return the operations of matrix products and convolutions in a traced program."""
  return _flops(jax.make_jaxpr(function)(*args).jaxpr)


def _flops(jaxpr):
  total = 0
  for equation in jaxpr.eqns:
    for value in equation.params.values():
      inner = getattr(value, "jaxpr", value)
      total += _flops(inner) if hasattr(inner, "eqns") else 0
    shapes = [var.aval.shape for var in equation.invars]
    out = equation.outvars[0].aval.shape
    if equation.primitive.name == "dot_general":
      (contracted, _), _ = equation.params["dimension_numbers"]
      total += 2 * int(np.prod(out)) * int(np.prod([shapes[0][i] for i in contracted]))
    if equation.primitive.name == "conv_general_dilated":
      total += _convolution_flops(equation, *shapes, out)
  return total


def _convolution_flops(equation, image, kernel, out):
  """Return the operations of a convolution, without taps on padding."""
  settings = equation.params
  numbers = settings["dimension_numbers"]
  taps = 1
  for dimension in range(2):
    size = image[numbers.lhs_spec[2 + dimension]]
    width = kernel[numbers.rhs_spec[2 + dimension]]
    count = out[numbers.out_spec[2 + dimension]]
    starts = (
      np.arange(count) * settings["window_strides"][dimension] - settings["padding"][dimension][0]
    )
    places = starts[:, None] + np.arange(width)
    taps *= int(((places >= 0) & (places < size)).sum())
  channels = kernel[numbers.rhs_spec[0]] * kernel[numbers.rhs_spec[1]]
  return 2 * image[numbers.lhs_spec[0]] * taps * channels


def kernels(tree):
  """Return the number of parameters of all kernels and embeddings."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return sum(
    int(np.prod(leaf.shape))
    for path, leaf in leaves
    if path[-1].key in ("kernel", "embedding", "weight") and leaf.ndim > 1
  )


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory):
  """An architecture that differs from the zoo's: two levels, one without attention."""
  folder = tmp_path_factory.mktemp("diffusion")
  tiny.write_tiny_stable_diffusion(folder)
  return folder


def test_unet_and_decoder_are_counted_exactly(diffusion):
  unet, vae, _ = diffusion_networks.build_networks(folder_configs(diffusion), jnp.float32)
  shapes = diffusion_networks.parameter_shapes(diffusion)
  side, tokens = unet.config.sample_size, 7
  latents = jax.ShapeDtypeStruct((1, side, side, unet.config.in_channels), jnp.float32)
  text = jax.ShapeDtypeStruct((1, tokens, unet.config.cross_attention_dim), jnp.float32)

  def run(params, x, text):
    return apply_unet(unet, params, x, jnp.float32(0), Conditions(text), PLAIN)

  found = work.unet(read_json(diffusion / "unet" / "config.json"), side, tokens)
  assert found.flops == traced(run, shapes["unet"], latents, text)
  assert found.weights == kernels(shapes["unet"])

  def decode(params, x):
    return apply_decoder(vae, params, x, PLAIN)

  latents = jax.ShapeDtypeStruct((1, 6, 6, vae.config.latent_channels), jnp.float32)
  found = work.decoder(read_json(diffusion / "vae" / "config.json"), 6)
  params = {name: shapes["vae"][name] for name in ("decoder", "post_quant_conv")}
  assert found.flops == traced(decode, params, latents)
  assert found.weights == kernels(params)


def test_clip_is_counted_exactly():
  folder = checkpoints.ZOO / "clip"
  network = clip_model.read_network(clip_model._settings(folder))
  shapes = clip_model.parameter_shapes(folder)
  config = models._clip_settings(read_json(folder / "config.json"))
  size = config["vision_config"]["image_size"]
  pixels = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)

  def run(params, x):
    return network.apply({"params": params}, x, method="image_features")

  found = work.image_tower(config["vision_config"], config["projection_dim"])
  assert found.flops == traced(run, shapes, pixels)
  text = work.text_tower(config["text_config"])
  # Embeddings of positions and classes, and the text's projection, are left out.
  assert found.weights + text.weights == pytest.approx(kernels(shapes), rel=0.05)


def test_published_models_have_their_published_cost():
  """865 M and 860 M parameters of the UNets, 151 M and 428 M of the CLIPs; 1.57 TFLOP by XLA's count of the lowered
  SD 2.1-base UNet at guidance, elementwise operations included."""
  shipped = (models.resources.files("genbench_jax.planning") / "architectures.yaml").read_text()
  known = yaml.safe_load(shipped)["hub"]
  base = work.unet(known["stabilityai/stable-diffusion-2-1-base"]["unet"], 64, 77)
  assert base.weights == pytest.approx(865.9e6, rel=1e-3)
  assert 2 * base.flops == pytest.approx(1.5745e12, rel=0.01)
  old = work.unet(known["stable-diffusion-v1-5/stable-diffusion-v1-5"]["unet"], 64, 77)
  assert old.weights == pytest.approx(859.5e6, rel=1e-3)
  large = work.unet(known["stabilityai/stable-diffusion-xl-base-1.0"]["unet"], 128, 77)
  assert large.weights == pytest.approx(2567.5e6, rel=1e-3)
  for name, parameters in (
    ("openai/clip-vit-base-patch32", 151.3e6),
    ("openai/clip-vit-large-patch14", 427.6e6),
  ):
    assert models.encoder_cost(name, "", 1).weights == pytest.approx(parameters, rel=0.01)
