"""Write tests/data/golden_recognizers.npz and recognizer_keys.json.gz: PyTorch's results for our recognizers' networks.

  python3 -m venv torchenv
  torchenv/bin/pip install torch==2.13.0 timm scikit-learn
  PYTHONPATH=. torchenv/bin/python tools/golden_recognizers.py

Weights are drawn from the CRC of each tensor's name (`drawn`, which the tests repeat), so that the file contains
only results: logits, loss, running averages, and the product of each gradient with a drawn tensor. timm's
resnet18 and resnet50 have torchvision's names and arithmetic. The last part trains a small residual network on
scikit-learn's digits for 200 steps; stored are the images, the rows of each batch, and the loss of each step.
"""

import gzip
import json
import math
import zlib
from pathlib import Path

import numpy as np
import timm
import torch
from sklearn.datasets import load_digits
from torch import nn

DATA = Path(__file__).parent.parent / "tests" / "data"
NETWORKS = {
  "resnet18": ("resnet18", 64, {}),
  "resnet50": ("resnet50", 64, {}),
  "vit_s16": ("vit_small_patch16_224", 64, {"img_size": 64}),
}
CLASSES, BATCH = 7, 8
STEPS, WARMUP, LEARNING_RATE, DECAY, SMOOTHING, ROWS = 200, 10, 0.02, 5e-4, 0.1, 32


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Draw the tensor for a name, in PyTorch's layout, with magnitudes as after initialization and no zeros."""
  normal = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
  if name.endswith("running_var"):
    return (0.5 + np.abs(normal)).astype(np.float32)
  if len(shape) == 1 and name.endswith("weight"):
    # As in trained networks, the last norm of a bottleneck is small: 16 full ones would amplify rounding errors.
    return ((0.2 if name.endswith("bn3.weight") else 1) * (1 + 0.1 * normal)).astype(np.float32)
  fan_in = math.prod(shape[1:]) if len(shape) > 1 else 100
  return (normal / math.sqrt(fan_in)).astype(np.float32)


def fill(network: nn.Module) -> None:
  state = network.state_dict()
  for name, tensor in state.items():
    if tensor.dtype.is_floating_point:
      state[name] = torch.from_numpy(drawn(name, tuple(tensor.shape)))
  network.load_state_dict(state)


def results(name: str, size: int, options: dict) -> dict[str, np.ndarray]:
  network = timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)
  fill(network)
  # In float64, so that all differences in the tests are our own rounding errors.
  network.double()
  pixels = torch.from_numpy(drawn("pixels", (BATCH, 3, size, size)) * 10).double()
  labels = torch.arange(BATCH) % CLASSES
  network.eval()
  with torch.no_grad():
    found = {"eval": network(pixels).numpy()}
  network.train()
  logits = network(pixels)
  loss = nn.functional.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
  loss.backward()
  names, products, norms = [], [], []
  for tensor, parameter in network.named_parameters():
    gradient = parameter.grad.numpy().astype(np.float64)
    names.append(tensor)
    products.append((gradient * drawn(tensor + "?", gradient.shape)).sum())
    norms.append(np.linalg.norm(gradient))
  averages = {
    key.replace(".", "/"): value.numpy()
    for key, value in network.state_dict().items()
    if key in ("bn1.running_mean", "layer4.0.bn2.running_var")
  }
  return (
    found
    | averages
    | {
      "train": logits.detach().numpy(),
      "loss": loss.item(),
      "names": np.array(names),
      "products": np.array(products),
      "norms": np.array(norms),
    }
  )


class Block(nn.Module):
  """A basic block with torchvision's names."""

  def __init__(self, inputs: int, outputs: int, stride: int) -> None:
    super().__init__()
    self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    self.bn1 = nn.BatchNorm2d(outputs)
    self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
    self.bn2 = nn.BatchNorm2d(outputs)
    if stride != 1 or inputs != outputs:
      convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
      self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
    return (y + (self.downsample(x) if hasattr(self, "downsample") else x)).relu()


class SmallResNet(nn.Module):
  """`resnet8` of `models/classifier_shapes.py`: three stages of one basic block, with widths 16, 32 and 64."""

  def __init__(self, classes: int) -> None:
    super().__init__()
    self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
    self.layer1 = nn.Sequential(Block(16, 16, 1))
    self.layer2 = nn.Sequential(Block(16, 32, 2))
    self.layer3 = nn.Sequential(Block(32, 64, 2))
    self.fc = nn.Linear(64, classes)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))
    return self.fc(x.mean(dim=(2, 3)))


def learning_rate(step: int) -> float:
  """Return the learning rate: linear warm-up, then half a cosine down to zero."""
  if step < WARMUP:
    return LEARNING_RATE * (step + 1) / WARMUP
  return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def digits_run() -> dict[str, np.ndarray]:
  digits = load_digits()
  images = np.round(digits.images[:320] * 255 / 16).astype(np.uint8)
  labels = digits.target[:320]
  rows = np.stack(
    [np.random.default_rng([1, step]).permutation(320)[:ROWS] for step in range(STEPS)]
  )
  # Rounding errors grow about tenfold per hundred steps, so PyTorch's float64 run is the reference.
  network = SmallResNet(10)
  fill(network)
  network.double().train()
  # Norms and biases are not decayed, see `Recipe.weight_decay`.
  groups = [
    {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": DECAY},
    {"params": [p for p in network.parameters() if p.ndim == 1], "weight_decay": 0.0},
  ]
  optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9)
  pixels = torch.from_numpy(np.repeat(images[:, None], 3, axis=1) / 255.0)
  pixels = (pixels - 0.5) / 0.5
  losses = []
  for step in range(STEPS):
    for group in optimizer.param_groups:
      group["lr"] = learning_rate(step)
    chosen = torch.from_numpy(rows[step])
    logits = network(pixels[chosen])
    loss = nn.functional.cross_entropy(
      logits, torch.from_numpy(labels)[chosen], label_smoothing=SMOOTHING
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
  return {
    "images": images,
    "labels": labels.astype(np.uint8),
    "rows": rows.astype(np.int16),
    "losses": np.array(losses),
  }


def main() -> None:
  torch.set_num_threads(2)
  torch.manual_seed(0)
  arrays = {
    f"{name}/{key}": value
    for name, settings in NETWORKS.items()
    for key, value in results(*settings).items()
  }
  arrays |= {f"digits/{key}": value for key, value in digits_run().items()}
  np.savez_compressed(DATA / "golden_recognizers.npz", **arrays)
  keys = {}
  for name, (published, _, _) in NETWORKS.items():
    with torch.device("meta"):
      state = timm.create_model(published, pretrained=False).state_dict()
    keys[name] = {key: list(value.shape) for key, value in state.items()}
  packed = gzip.compress(json.dumps(keys).encode(), mtime=0)
  (DATA / "recognizer_keys.json.gz").write_bytes(packed)


if __name__ == "__main__":
  main()
