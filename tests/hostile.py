"""Strategies that draw hostile content: damaged files, names that climb out, values of any type."""

import io
import json
import os
import tarfile
import zipfile

import numpy as np
from hypothesis import HealthCheck, settings, strategies as st
from PIL import Image
from safetensors.numpy import save

fuzzed = settings(
  max_examples=int(os.environ.get("FUZZ_CASES", "30")),
  deadline=None,
  derandomize="FUZZ_CASES" not in os.environ,
  suppress_health_check=list(HealthCheck),
)

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F", "YCbCr", "HSV")
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA")
SIZES = ((1, 1), (5, 3), (30_000, 1), (1, 3_000), (64, 64))


def encoded(mode, form, size):
  """Return an image file."""
  buffer = io.BytesIO()
  try:
    Image.new(mode, size).save(buffer, format=form)
  except (OSError, KeyError, ValueError, SystemError):  # the format has no such mode
    Image.new("RGB", (4, 4)).save(buffer, format="PNG")
  return buffer.getvalue()


@st.composite
def damaged(draw, whole):
  """Return bytes with some of them changed, removed or inserted."""
  data = bytearray(draw(whole))
  for _ in range(draw(st.integers(0, 4))):
    place = draw(st.integers(0, max(len(data) - 1, 0)))
    kind = draw(st.sampled_from(("flip", "cut", "insert")))
    if kind == "flip" and data:
      data[place] ^= draw(st.integers(1, 255))
    elif kind == "cut":
      del data[place:]
    else:
      data[place:place] = draw(st.binary(max_size=8))
  return bytes(data)


IMAGES = st.builds(
  encoded, st.sampled_from(MODES), st.sampled_from(FORMATS), st.sampled_from(SIZES)
)

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
PATHS = st.one_of(
  NAMES,
  st.sampled_from(("../x.jpg", "/etc/x", "a/../../x", "./a", "a//b", "..", "C:\\x", "a\\..\\b")),
)


@st.composite
def tars(draw):
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode=draw(st.sampled_from(("w", "w:gz")))) as archive:
    for _ in range(draw(st.integers(0, 4))):
      info = tarfile.TarInfo(draw(PATHS))
      info.type = draw(
        st.sampled_from((tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE))
      )
      info.linkname = draw(st.sampled_from(("/etc/passwd", "../../x", "a")))
      data = draw(st.binary(max_size=40)) if info.type == tarfile.REGTYPE else b""
      info.size = len(data)
      archive.addfile(info, io.BytesIO(data))
  return buffer.getvalue()


@st.composite
def zips(draw):
  buffer = io.BytesIO()
  names = draw(st.lists(PATHS, max_size=4, unique=True))
  with zipfile.ZipFile(buffer, "w", draw(st.sampled_from((zipfile.ZIP_STORED, 8)))) as archive:
    for name in names:
      archive.writestr(zipfile.ZipInfo(name), draw(st.binary(max_size=40)))
  return buffer.getvalue()


VALUES = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
  lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
  ),
  max_leaves=6,
)


def _lying_header(header, tail):
  text = json.dumps(header).encode()
  return len(text).to_bytes(8, "little") + text + tail


HEADERS = st.dictionaries(
  st.sampled_from(("features", "labels", "ids", "valid", "w", "__metadata__")),
  st.fixed_dictionaries(
    {
      "dtype": st.sampled_from(("F32", "I32", "I64", "U8", "BF16", "X")),
      "shape": st.lists(st.integers(-1, 2**62), max_size=3),
      "data_offsets": st.lists(st.integers(0, 2**62), min_size=2, max_size=2),
    }
  )
  | VALUES,
  max_size=5,
)
WEIGHTS = st.just(save({"w": np.arange(6, dtype=np.float32)}))
TENSORS = st.builds(_lying_header, HEADERS, st.binary(max_size=64)) | damaged(WEIGHTS)


@st.composite
def npz_files(draw):
  """Return an archive of arrays whose headers may claim any shape and type."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
    for name in draw(st.lists(st.sampled_from(("images", "labels", "mu")), unique=True)):
      about = {
        "descr": draw(st.sampled_from(("<f4", "|u1", "<U3", "|O", "<f8", "|V2", "|S0"))),
        "fortran_order": draw(st.booleans()),
        "shape": tuple(draw(st.lists(st.integers(-1, 4) | st.just(1 << 40), max_size=3))),
      }
      header = io.BytesIO()
      np.lib.format.write_array_header_1_0(header, about)
      content = draw(st.binary(max_size=40) | st.just(bytes(1 << 16)))
      archive.writestr(f"{name}.npy", header.getvalue() + content)
  return buffer.getvalue()
