"""Export to one folder per class, for torchvision's ImageFolder and Hugging Face's `imagefolder`."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from genbench_jax.export.records import (
  about,
  class_folder,
  encoded,
  labels_of,
  readable,
  whole_folder,
)
from genbench_jax.store.files import csv_text
from genbench_jax.store.image_set import ImageSet

Advance = Callable[[int], None]


def image_folder(images: ImageSet, out: Path, advance: Advance) -> None:
  """Write `out/0003_three/00000013.png` etc. and `out/metadata.csv`.

  Classes without images have folders, too, so that class indices stay the same. An image with several
  classes is in the first one's folder; `metadata.csv` lists all of them.

  Args:
    images: the image set.
    out: folder to write; must not exist or be empty.
    advance: called with the number of written images, for progress.
  """
  with whole_folder(out) as folder:
    rows = list(_write(images, folder, advance))
    columns = ["file_name", *(about(images[0], images.class_names) if len(images) else ())]
    (folder / "metadata.csv").write_bytes(csv_text(rows, columns).encode())


def hugging_face(images: ImageSet, out: Path, advance: Advance) -> None:
  """Write a folder for `datasets.load_dataset(out)`, with prompts and seeds as columns; see its README.

  Args:
    images: the image set.
    out: folder to write; must not exist or be empty.
    advance: called with the number of written images, for progress.
  """
  with whole_folder(out) as folder:
    (folder / "train").mkdir()
    with (folder / "train" / "metadata.jsonl").open("w", encoding="utf-8") as file:
      for row in _write(images, folder / "train", advance):
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    (folder / "class_names.json").write_text(
      json.dumps(images.class_names, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )
    (folder / "README.md").write_text(_card(images), encoding="utf-8")


def _write(images: ImageSet, folder: Path, advance: Advance) -> Iterator[dict[str, Any]]:
  names = images.class_names
  for label in range(len(names)):
    (folder / class_folder(label, names)).mkdir()
  for record in readable(images, range(len(images))):
    data, ending = encoded(record)
    place = f"{class_folder(next(iter(labels_of(record)), 0), names)}/{record.index:08d}.{ending}"
    (folder / place).write_bytes(data)
    yield {"file_name": place, **about(record, names)}
    advance(1)


def _card(images: ImageSet) -> str:
  made_from = json.dumps(images.manifest["made_from"], ensure_ascii=False, indent=2)
  return (
    "---\npretty_name: image set of genbench_jax\ntask_categories: [image-classification]\n---\n\n"
    f"{len(images)} images of {len(images.class_names)} classes, made by genbench_jax.\n\n"
    '    from datasets import load_dataset\n    images = load_dataset("PATH OF THIS FOLDER", split="train")\n\n'
    "`class_names.json` contains the names of the labels. The set was made from:\n\n"
    + "".join(f"    {line}\n" for line in made_from.split("\n"))
  )
