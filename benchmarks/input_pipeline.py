"""Compare our input pipeline with a PyTorch DataLoader, in images per second from JPEG files to CLIP's pixels.

Both read the same files of 500 x 375 pixels, decode them with PIL, apply CLIP's preprocessing and return float32
batches, with the same number of workers. Rounds alternate; start-up is excluded. The peer may be in a separate
environment:

  python benchmarks/input_pipeline.py --peer-python /path/to/env-with-torch/bin/python

`--memory-images 50000` also reports how much the process grows over that many images.
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIZE, MEAN, STD = 224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
DISTINCT = 100


def main() -> int:
  options = parse()
  if options.peer_folder:
    print(json.dumps(peer_rate(options.peer_folder, options)))
    return 0
  with tempfile.TemporaryDirectory() as folder:
    write_images(Path(folder))
    result = compare(Path(folder), options)
    if options.memory_images:
      result["memory"] = memory_growth(Path(folder), options)
  print(json.dumps(result, indent=2))
  print(
    f"ratio, threads: {result['ratio_threads']:.2f}   ratio, processes: {result['ratio_processes']:.2f}"
  )
  if options.json:
    Path(options.json).write_text(json.dumps(result, indent=2) + "\n")
  return 0


def parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--images", type=int, default=2000, help="images per round")
  parser.add_argument("--batch", type=int, default=64)
  parser.add_argument("--workers", type=int, default=os.cpu_count())
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--memory-images", type=int, default=0)
  parser.add_argument("--peer-python", default=sys.executable, help="a Python that has torch")
  parser.add_argument("--json", help="file for the result")
  parser.add_argument("--peer-folder", help=argparse.SUPPRESS)
  return parser.parse_args()


def write_images(folder: Path) -> None:
  """Write smooth color fields with some grain, which compress to about the size of photographs."""
  generator = np.random.default_rng(0)
  for number in range(DISTINCT):
    coarse = Image.fromarray(generator.integers(0, 256, (24, 32, 3), np.uint8))
    smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), np.float32)
    pixels = np.clip(smooth + generator.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / f"{number:03d}.jpg", quality=90)


def compare(folder: Path, options: argparse.Namespace) -> dict:
  rounds: dict[str, list[tuple[float, float]]] = {"threads": [], "torch": [], "processes": []}
  for _ in range(options.rounds):
    rounds["threads"].append(our_rate(folder, options, workers=0, threads=options.workers))
    rounds["torch"].append(run_peer(folder, options))
    rounds["processes"].append(our_rate(folder, options, workers=options.workers, threads=1))
  speed, cpu = (
    {name: statistics.median(pair[place] for pair in pairs) for name, pairs in rounds.items()}
    for place in range(2)
  )
  return {
    "images_per_second": speed,
    # Also valid on a busy machine. For `processes`, it includes their imports.
    "cpu_milliseconds_per_image": cpu,
    "all_rounds": rounds,
    "ratio_threads": speed["threads"] / speed["torch"],
    "ratio_processes": speed["processes"] / speed["torch"],
    "workers": options.workers,
    "batch": options.batch,
    "jpeg_bytes": sum(file.stat().st_size for file in folder.iterdir()) // DISTINCT,
    "load_average": os.getloadavg()[0],
  }


class Files:
  """Repeat the files up to `count` items. At module level, so that worker processes can import it."""

  def __init__(self, folder: str | Path, count: int):
    self.files = sorted(str(file) for file in Path(folder).iterdir())
    self.count = count

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, index: int) -> bytes:
    return Path(self.files[index % len(self.files)]).read_bytes()


def our_batches(folder: Path, count: int, batch: int, workers: int, threads: int):
  import grain  # noqa: F401  imports count as start-up, also for the peer

  from genbench_jax.embedding.input_pipeline import Preprocessing, image_batches
  from genbench_jax.models.image_input import ImageInput

  preprocessing = Preprocessing(ImageInput(SIZE, mean=MEAN, std=STD))
  return image_batches(Files(folder, count), preprocessing, batch, workers=workers, threads=threads)


def our_rate(
  folder: Path, options: argparse.Namespace, workers: int, threads: int
) -> tuple[float, float]:
  batches = our_batches(folder, options.images, options.batch, workers, threads)
  return rate((int(batch.valid.sum()) for batch in batches), 2 * options.workers)


def rate(counts, warm_up: int) -> tuple[float, float]:
  """Return images per second after the first batches, which were made during start-up, and CPU ms per image."""
  cpu = cpu_seconds()
  first = sum(next(counts) for _ in range(warm_up))
  began = time.perf_counter()
  rest = sum(counts)
  speed = rest / (time.perf_counter() - began)
  return speed, 1e3 * (cpu_seconds() - cpu) / (first + rest)


def cpu_seconds() -> float:
  """Return the CPU time of this process and of terminated children."""
  kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  usages = [resource.getrusage(kind) for kind in kinds]
  return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run_peer(folder: Path, options: argparse.Namespace) -> tuple[float, float]:
  command = [options.peer_python, __file__, "--peer-folder", str(folder)]
  for name in ("images", "batch", "workers"):
    command += [f"--{name}", str(getattr(options, name))]
  return tuple(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def peer_rate(folder: str, options: argparse.Namespace) -> tuple[float, float]:
  import torch

  torch.set_num_threads(1)
  loader = torch.utils.data.DataLoader(
    PeerDataset(folder, options.images), batch_size=options.batch, num_workers=options.workers
  )
  return rate((len(batch) for batch in loader), 2 * options.workers)


class PeerDataset:
  """CLIP's published preprocessing: PIL's resize and crop, then a normalized float tensor."""

  def __init__(self, folder: str, count: int):
    self.files = Files(folder, count)

  def __len__(self) -> int:
    return len(self.files)

  def __getitem__(self, index: int):
    import torch

    image = Image.open(io.BytesIO(self.files[index])).convert("RGB")
    width, height = image.size
    short = min(width, height)
    image = image.resize((SIZE * width // short, SIZE * height // short), Image.Resampling.BICUBIC)
    left, top = (round((side - SIZE) / 2) for side in image.size)
    image = image.crop((left, top, left + SIZE, top + SIZE))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return pixels.sub_(mean).div_(std)


def memory_growth(folder: Path, options: argparse.Namespace) -> dict:
  """Return the peak resident memory after a tenth of the images, and at the end."""
  count = options.memory_images
  seen, early = 0, 0.0
  for batch in our_batches(folder, count, options.batch, 0, options.workers):
    seen += int(batch.valid.sum())
    if not early and seen >= count // 10:
      early = peak_megabytes()
  return {"images": seen, "peak_mb_at_a_tenth": early, "peak_mb_at_the_end": peak_megabytes()}


def peak_megabytes() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
  sys.exit(main())
