import gc
import io
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from genbench_jax.benchmark.reader import SplitImages, open_split
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.embedding.input_pipeline import Preprocessing, image_batches
from genbench_jax.embedding.preprocess import preprocess
from genbench_jax.models.image_input import ImageInput

SIZE = 32
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HOW = ImageInput(SIZE, mean=MEAN, std=STD)
PREPROCESSING = Preprocessing(HOW)


class Photographs:
  """Noise of the given sizes as JPEG; importable, so that worker processes can read it."""

  def __init__(self, sizes):
    self.sizes = sizes
    self.read = []

  def __len__(self):
    return len(self.sizes)

  def __getitem__(self, index):
    self.read.append(index)
    return encode(noise(index, self.sizes[index]), "JPEG")


def noise(seed, size):
  width, height = size
  pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
  return Image.fromarray(pixels)


def encode(image, kind, **options):
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def published(image, resize="crop"):
  """Compute CLIP's preprocessing independently: bicubic, center crop, [0, 1], normalized."""
  if resize == "squash":
    image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
  else:
    width, height = image.size
    scale = (
      (SIZE, int(SIZE * height / width)) if width <= height else (int(SIZE * width / height), SIZE)
    )
    image = image.resize(scale, Image.Resampling.BICUBIC)
    left, top = (round((side - SIZE) / 2) for side in image.size)
    image = image.crop((left, top, left + SIZE, top + SIZE))
  return (np.asarray(image, np.float64) / 255 - MEAN) / STD


SIZES = [(50, 37), (37, 50), (32, 32), (33, 90), (7, 5), (640, 48), (100, 99)]


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_pixels_are_those_of_clips_own_preprocessing(resize):
  images = Photographs(SIZES)
  wanted = Preprocessing(HOW, resize)
  (batch,) = image_batches(images, wanted, 8)
  for index, pixels in enumerate(batch.pixels[: len(SIZES)]):
    decoded = Image.open(io.BytesIO(images[index])).convert("RGB")
    np.testing.assert_allclose(pixels, published(decoded, resize), atol=1e-6)
    np.testing.assert_array_equal(pixels, preprocess(decoded, SIZE, MEAN, STD, resize))


def kinds():
  color = noise(1, (45, 40))
  gray = color.convert("L")
  exif = Image.Exif()
  exif[0x0112] = 6  # Orientation: turned by a quarter.
  frames = [noise(place, (40, 40)).convert("P") for place in (2, 3)]
  sixteen = Image.fromarray(np.asarray(gray, np.uint16) * 257)
  return {
    "rgb": (encode(color, "PNG"), color),
    "gray": (encode(gray, "PNG"), gray.convert("RGB")),
    "black and white": (encode(gray.convert("1"), "PNG"), gray.convert("1").convert("RGB")),
    "rgba": (encode(color.convert("RGBA"), "PNG"), color),
    "gray and alpha": (encode(gray.convert("LA"), "PNG"), gray.convert("RGB")),
    "palette": (encode(color.convert("P"), "PNG"), color.convert("P").convert("RGB")),
    "cmyk": (encode(color.convert("CMYK"), "TIFF"), color.convert("CMYK").convert("RGB")),
    "16 bits": (encode(sixteen, "PNG"), gray.convert("RGB")),
    "animated gif": (
      encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
      frames[0].convert("RGB"),
    ),
    "turned": (encode(color, "PNG", exif=exif), color.transpose(Image.Transpose.ROTATE_270)),
    "pil": (color, color),
  }


def test_all_kinds_of_images_arrive_as_rgb():
  encoded, expected = zip(*kinds().values(), strict=True)
  (batch,) = image_batches(encoded, PREPROCESSING, 11)
  assert batch.valid.all()
  for name, pixels, image in zip(kinds(), batch.pixels, expected, strict=True):
    np.testing.assert_allclose(pixels, published(image), atol=1e-6, err_msg=name)


@pytest.mark.parametrize("batch_size", [1, 7, 16, 24, 64])
@pytest.mark.parametrize("threads", [1, 3])
def test_batches_are_in_order_padded_and_masked(batch_size, threads):
  images = Photographs([(9, 8)] * 50)
  batches = list(image_batches(images, PREPROCESSING, batch_size, threads=threads))
  assert len(batches) == -(-50 // batch_size)
  assert {batch.pixels.shape for batch in batches} == {(batch_size, SIZE, SIZE, 3)}
  index = np.concatenate([batch.index for batch in batches])
  np.testing.assert_array_equal(index[:50], np.arange(50))
  valid = np.concatenate([batch.valid for batch in batches])
  assert valid[:50].all()
  assert not valid[50:].any()
  assert (index[50:] == -1).all()
  assert not batches[-1].pixels[~batches[-1].valid].any()


def test_pixels_do_not_depend_on_the_batch():
  images = Photographs(SIZES * 5)
  pixels = [
    np.concatenate(
      [batch.pixels[batch.valid] for batch in image_batches(images, PREPROCESSING, size)]
    )
    for size in (3, 16)
  ]
  np.testing.assert_array_equal(*pixels)


def test_hosts_take_their_own_rows():
  images = Photographs([(9, 8)] * 20)
  batches = image_batches(images, PREPROCESSING, 4, rows=range(1, 20, 2))
  index = np.concatenate([batch.index for batch in batches])
  np.testing.assert_array_equal(index[:10], np.arange(1, 20, 2))
  assert set(images.read) == set(range(1, 20, 2))


def test_no_images_no_batches():
  assert list(image_batches([], PREPROCESSING, 4)) == []


@pytest.mark.parametrize(
  "damaged",
  [
    b"",
    b"not an image",
    encode(noise(0, (40, 40)), "JPEG")[:300],
    b"\x89PNG\r\n\x1a\n" + bytes(40),
  ],
)
def test_a_corrupt_image_is_named_and_masked_and_stops_nothing(damaged, capsys):
  good = encode(noise(1, (40, 40)), "JPEG")
  (batch,) = image_batches([good, damaged, good], PREPROCESSING, 4, what="test images")
  np.testing.assert_array_equal(batch.valid, [True, False, True, False])
  assert not batch.pixels[1].any()
  np.testing.assert_array_equal(batch.pixels[0], batch.pixels[2])
  captured = capsys.readouterr()
  told = [line for line in (captured.out + captured.err).splitlines() if "left out" in line]
  assert len(told) == 1
  assert "test images: image 1 can't be read and is left out (" in told[0]


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
  (batch,) = image_batches([encode(noise(0, (40, 40)), "PNG")], PREPROCESSING, 1)
  assert not batch.valid[0]


def test_what_is_left_half_way_ends():
  before = threading.active_count()
  batches = image_batches(Photographs([(9, 8)] * 100), PREPROCESSING, 4)
  next(batches)
  assert threading.active_count() > before
  batches.close()
  limit = time.monotonic() + 10
  while threading.active_count() > before and time.monotonic() < limit:
    time.sleep(0.01)
  assert threading.active_count() <= before


def test_images_are_decoded_ahead_of_their_use():
  images = Photographs([(9, 8)] * 200)
  batches = image_batches(images, PREPROCESSING, 16)
  next(batches)
  limit = time.monotonic() + 10
  while len(images.read) < 48 and time.monotonic() < limit:
    time.sleep(0.01)
  assert 48 <= len(images.read) < 200


def test_a_dataset_goes_through_it():
  split = open_split(dataset_spec("shapes"), "test")
  (batch,) = image_batches(SplitImages(split), PREPROCESSING, 8, rows=range(5))
  expected = published(split[4]["image"])
  np.testing.assert_allclose(batch.pixels[4], expected, atol=1e-6)


def test_worker_processes_give_the_same():
  split = SplitImages(open_split(dataset_spec("shapes"), "test"))
  threads = list(image_batches(split, PREPROCESSING, 16, rows=range(40)))
  processes = list(image_batches(split, PREPROCESSING, 16, rows=range(40), workers=2, threads=1))
  for here, there in zip(threads, processes, strict=True):
    np.testing.assert_array_equal(here.pixels, there.pixels)
    np.testing.assert_array_equal(here.index, there.index)
    np.testing.assert_array_equal(here.valid, there.valid)
  assert "tensorflow" not in sys.modules
  # Their shared memory is given back: at exit Python would warn of what is left.
  kinds = [type(thing).__name__ for thing in gc.get_objects()]
  assert "SharedMemoryArray" not in kinds
