"""Registry of the image sources."""

from genbench_jax.sources.folder import Folder
from genbench_jax.sources.generative import Generative
from genbench_jax.sources.original import Original
from genbench_jax.sources.retrieval import Retrieval
from genbench_jax.sources.source import ImageSource

SOURCES: dict[str, ImageSource] = {
  "generative": Generative(),
  "original": Original(),
  "folder": Folder(),
  "retrieval": Retrieval(),
}
