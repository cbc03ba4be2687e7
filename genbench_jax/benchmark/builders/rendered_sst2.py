"""Rendered SST2: movie reviews as images of their text, negative or positive."""

from genbench_jax.benchmark.archives import Archive
from genbench_jax.benchmark.builders.base import FolderBuilder


class RenderedSst2(FolderBuilder):
  """`rendered-sst2/{train,valid,test}/{negative,positive}/*.png`, 448 x 448."""

  HOMEPAGE = "https://github.com/openai/CLIP/blob/main/data/rendered-sst2.md"
  DESCRIPTION = "Sentences of the Stanford Sentiment Treebank rendered as images."
  CITATION = (
    "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021"
  )
  ARCHIVES = (
    Archive(
      "rendered-sst2.tgz",
      "https://openaipublic.azureedge.net/clip/data/rendered-sst2.tgz",
      "2384d08e9dcfa4bd55b324e610496ee5",
    ),
  )
