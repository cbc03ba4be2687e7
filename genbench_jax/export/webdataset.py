"""Export to tar shards, for webdataset and compatible libraries."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

from genbench_jax.export.records import about, encoded, labels_of, readable, whole_folder
from genbench_jax.store.image_set import ImageSet

SHARD_SIZE = 1000


def webdataset(
  images: ImageSet, out: Path, advance: Callable[[int], None], shard_size: int = SHARD_SIZE
) -> None:
  """Write `out/NAME-000000.tar` etc. Equal image sets give byte-identical files.

  An example consists of `00000013.png` (or `.jpg`), `00000013.cls` and `00000013.json`.

  Args:
    images: the image set.
    out: folder to write; must not exist or be empty.
    advance: called with the number of written images, for progress.
    shard_size: images per tar file.
  """
  with whole_folder(out) as folder:
    for shard, begin in enumerate(range(0, len(images), shard_size)):
      path = folder / f"{images.manifest['name']}-{shard:06d}.tar"
      with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        rows = range(begin, min(begin + shard_size, len(images)))
        for record in readable(images, rows):
          data, ending = encoded(record)
          stem = f"{record.index:08d}"
          described = json.dumps(about(record, images.class_names), ensure_ascii=False)
          _add(tar, f"{stem}.{ending}", data)
          _add(tar, f"{stem}.cls", " ".join(map(str, labels_of(record))).encode())
          _add(tar, f"{stem}.json", described.encode())
          advance(1)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
  entry = tarfile.TarInfo(name)
  entry.size = len(data)
  tar.addfile(entry, io.BytesIO(data))
