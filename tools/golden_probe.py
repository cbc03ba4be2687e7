"""Write tests/data/probe/reference_runs.npz: runs of a plain PyTorch training loop of a probe.

Requires torch 2.13.0 and NumPy in a separate environment:

  python tools/golden_probe.py tests/data/probe/reference_runs.npz

Five epochs of BatchNorm1d(affine=False) -> Linear, SGD with momentum 0.9 and weight decay, in batches of 64.
The last partial batch is kept, a batch of one image is skipped. Single-label with 129 images (so that one batch
of each epoch is skipped) and multi-label with 150.
"""

import sys

import numpy as np
import torch

WIDTH, CLASSES, EPOCHS, BATCH = 12, 4, 5, 64
RUNS = {
  "single": {"rows": 129, "learning_rate": 0.1, "weight_decay": 0.01},
  "multi": {"rows": 150, "learning_rate": 0.03, "weight_decay": 0.1},
}


def inputs(name, rows):
  """Return features, targets, text prototypes and the order of the rows in each epoch."""
  generator = np.random.default_rng(rows)
  text = generator.normal(size=(CLASSES, WIDTH))
  text = (text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float32)
  if name == "multi":
    targets = (generator.random((rows, CLASSES)) < 0.4).astype(np.float32)
  else:
    targets = np.eye(CLASSES, dtype=np.float32)[generator.integers(CLASSES, size=rows)]
  noise = generator.normal(size=(rows, WIDTH)) + 0.5
  features = (3 * targets @ text + noise).astype(np.float32)
  order = np.stack([generator.permutation(rows) for _ in range(EPOCHS)])
  return features, targets, text, order


def train(name, rows, learning_rate, weight_decay):
  """Return the arrays of a run: its inputs, and the model after each epoch."""
  features, targets, text, order = inputs(name, rows)
  norm = torch.nn.BatchNorm1d(WIDTH, affine=False)
  head = torch.nn.Linear(WIDTH, CLASSES)
  with torch.no_grad():
    head.weight.copy_(torch.tensor(text))
    head.bias.zero_()
  optimizer = torch.optim.SGD(
    head.parameters(), lr=learning_rate, momentum=0.9, weight_decay=weight_decay
  )
  loss = torch.nn.BCEWithLogitsLoss() if name == "multi" else torch.nn.CrossEntropyLoss()
  states = []
  for epoch in order:
    for start in range(0, rows, BATCH):
      members = epoch[start : start + BATCH]
      if len(members) == 1:
        continue
      optimizer.zero_grad()
      output = head(norm(torch.tensor(features[members])))
      loss(output, torch.tensor(targets[members])).backward()
      optimizer.step()
    state = (head.weight, head.bias, norm.running_mean, norm.running_var)
    states.append([tensor.detach().numpy().copy() for tensor in state])
  weights, bias, mean, variance = (np.stack(parts) for parts in zip(*states, strict=True))
  return {
    "features": features, "targets": targets, "text": text, "order": order,
    "learning_rate": learning_rate, "weight_decay": weight_decay,
    "weights": weights, "bias": bias, "mean": mean, "variance": variance,
  }  # fmt: skip


def main():
  arrays = {}
  for name, settings in RUNS.items():
    run = train(name, **settings)
    arrays |= {f"{name}_{key}": np.asarray(value) for key, value in run.items()}
  np.savez_compressed(sys.argv[1], **arrays)


if __name__ == "__main__":
  main()
