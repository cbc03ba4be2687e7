"""Operation counts of the models from their configurations, without weights, tracing or a device.

Counts follow XLA: matrix products and convolutions, two operations per multiply-add, without taps
that fall on padding. Normalization, activations and softmax are not counted.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

Settings = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Work:
  """Cost of one pass through a part of a model.

  Attributes:
    flops: floating-point operations.
    weights: parameters of kernels; biases and norms, below 0.1 %, are left out.
    largest: elements of the largest activation.
  """

  flops: int = 0
  weights: int = 0
  largest: int = 0

  def __add__(self, other: "Work") -> "Work":
    return Work(
      self.flops + other.flops, self.weights + other.weights, max(self.largest, other.largest)
    )


def dense(rows: int, inputs: int, outputs: int) -> Work:
  """Return the work of a product with a weight matrix.

  Args:
    rows: number of rows.
    inputs: input width.
    outputs: output width.
  """
  return Work(2 * rows * inputs * outputs, inputs * outputs, rows * max(inputs, outputs))


def convolution(side: int, inputs: int, outputs: int, stride: int = 1) -> Work:
  """Return the work of a 3 x 3 convolution with one pixel of padding.

  Args:
    side: side of the output in pixels.
    inputs: input channels.
    outputs: output channels.
    stride: stride.
  """
  taps = 3 * side - (2 if stride == 1 else 1)
  flops = 2 * taps * taps * inputs * outputs
  return Work(flops, 9 * inputs * outputs, side * side * max(inputs, outputs))


def attention(rows: int, width: int, context_rows: int = 0, context_width: int = 0) -> Work:
  """Return the work of attention: projections and the two products.

  Args:
    rows: number of queries.
    width: width of the queries.
    context_rows: number of keys; by default self-attention.
    context_width: width of the context.
  """
  to_rows, to_width = context_rows or rows, context_width or width
  products = Work(4 * rows * to_rows * width)
  ends = dense(rows, width, width) + dense(rows, width, width)
  return ends + dense(to_rows, to_width, width) + dense(to_rows, to_width, width) + products


def unet(config: Settings, side: int, tokens: int) -> Work:
  """Return the work of one UNet evaluation for one row (guidance needs two).

  Args:
    config: the UNet's configuration.
    side: side of the latents.
    tokens: number of text tokens.
  """
  widths: Sequence[int] = config["block_out_channels"]
  layers, text = config.get("layers_per_block", 2), config["cross_attention_dim"]
  time_width = 4 * widths[0]
  given = config.get("transformer_layers_per_block") or 1
  depths = given if isinstance(given, list | tuple) else [given] * len(widths)

  def residual(side: int, inputs: int, outputs: int) -> Work:
    shortcut = dense(side * side, inputs, outputs) if inputs != outputs else Work()
    time = dense(1, time_width, outputs)
    return (
      convolution(side, inputs, outputs) + convolution(side, outputs, outputs) + time + shortcut
    )

  def transformer(side: int, width: int, level: int) -> Work:
    rows = side * side
    across = attention(rows, width) + attention(rows, width, tokens, text)
    block = across + dense(rows, width, 8 * width) + dense(rows, 4 * width, width)
    depth = depths[level]
    blocks = Work(depth * block.flops, depth * block.weights, block.largest)
    return dense(rows, width, width) + blocks + dense(rows, width, width)

  total = dense(1, widths[0], time_width) + dense(1, time_width, time_width)
  if config.get("time_cond_proj_dim"):  # guidance scale as an input
    total += dense(1, config["time_cond_proj_dim"], widths[0])
  if config.get("addition_embed_type") == "text_time":  # SDXL's pooled text and sizes
    added = config["projection_class_embeddings_input_dim"]
    total += dense(1, added, time_width) + dense(1, time_width, time_width)
  total += convolution(side, config.get("in_channels", 4), widths[0])
  skips, inputs = [widths[0]], widths[0]
  for level, (kind, width) in enumerate(zip(config["down_block_types"], widths, strict=True)):
    for _ in range(layers):
      total += residual(side, inputs, width)
      total += transformer(side, width, level) if kind.startswith("CrossAttn") else Work()
      inputs = width
      skips.append(width)
    if level < len(widths) - 1:
      side //= 2
      total += convolution(side, width, width, stride=2)
      skips.append(width)
  total += residual(side, inputs, inputs) + transformer(side, inputs, len(widths) - 1)
  total += residual(side, inputs, inputs)
  for level, (kind, width) in enumerate(zip(config["up_block_types"], widths[::-1], strict=True)):
    for _ in range(layers + 1):
      total += residual(side, inputs + skips.pop(), width)
      turned = len(widths) - 1 - level
      total += transformer(side, width, turned) if kind.startswith("CrossAttn") else Work()
      inputs = width
    if level < len(widths) - 1:
      side *= 2
      total += convolution(side, width, width)
  return total + convolution(side, widths[0], config.get("out_channels", 4))


def decoder(config: Settings, side: int) -> Work:
  """Return the work of decoding an image from `side` x `side` latents."""
  widths: Sequence[int] = config["block_out_channels"][::-1]
  latent = config.get("latent_channels", 4)

  def residual(side: int, inputs: int, outputs: int) -> Work:
    shortcut = dense(side * side, inputs, outputs) if inputs != outputs else Work()
    return convolution(side, inputs, outputs) + convolution(side, outputs, outputs) + shortcut

  inputs = widths[0]
  total = dense(side * side, latent, latent) + convolution(side, latent, inputs)
  total += residual(side, inputs, inputs) + attention(side * side, inputs)
  total += residual(side, inputs, inputs)
  for level, width in enumerate(widths):
    for _ in range(config.get("layers_per_block", 2) + 1):
      total += residual(side, inputs, width)
      inputs = width
    if level < len(widths) - 1:
      side *= 2
      total += convolution(side, width, width)
  return total + convolution(side, inputs, config.get("out_channels", 3))


def tower(config: Settings, rows: int) -> Work:
  """Return the work of a transformer tower over `rows` tokens, without its embedding."""
  width, inner = config["hidden_size"], config["intermediate_size"]
  block = attention(rows, width) + dense(rows, width, inner) + dense(rows, inner, width)
  layers = config["num_hidden_layers"]
  return Work(layers * block.flops, layers * block.weights, block.largest)


def text_tower(config: Settings) -> Work:
  """Return the work of one text, padded to the tower's length."""
  embedding = Work(weights=config["vocab_size"] * config["hidden_size"])
  return tower(config, config["max_position_embeddings"]) + embedding


def image_tower(config: Settings, projection: int) -> Work:
  """Return the work of one image in CLIP's vision tower and projection."""
  patches = config["image_size"] // config["patch_size"]
  patch = dense(patches * patches, 3 * config["patch_size"] ** 2, config["hidden_size"])
  return patch + tower(config, patches * patches + 1) + dense(1, config["hidden_size"], projection)
