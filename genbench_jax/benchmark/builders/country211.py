"""Country211: the country, out of 211, where a photograph was taken."""

from genbench_jax.benchmark.archives import Archive
from genbench_jax.benchmark.builders.base import FolderBuilder


class Country211(FolderBuilder):
  """`country211/{train,valid,test}/<ISO 3166 code>/*.jpg`: 150, 50 and 100 images per country."""

  HOMEPAGE = "https://github.com/openai/CLIP/blob/main/data/country211.md"
  DESCRIPTION = "Photographs from YFCC100M labeled with the country where they were taken."
  CITATION = (
    "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021"
  )
  ARCHIVES = (
    Archive(
      "country211.tgz",
      "https://openaipublic.azureedge.net/clip/data/country211.tgz",
      "84988d7644798601126c29e9877aab6a",
    ),
  )
