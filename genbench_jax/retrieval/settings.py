"""The settings of retrieval."""

import dataclasses
from typing import Annotated

from genbench_jax.retrieval.ranking import RANKINGS
from genbench_jax.runtime.settings import Above, AtLeast, AtMost, LocalPath, OneOf

RETRIEVAL_QUERIES = ("text_to_text", "text_to_image", "image_to_image")


@dataclasses.dataclass(frozen=True)
class Retrieval:
  """Images from a pool, for the source `retrieval`; see docs/retrieval.md.

  Attributes:
    pool: a folder of embedding shards with metadata, made with the encoder of the config;
      `zoo/pool` is a small one that is drawn and embedded in the work folder.
    image_root: the folder, or folder of tar files, with the images of the pool; empty where
      `genbench embed` made the pool, which records it.
    queries: one for each class and template, `text_to_text` as in the reference or `text_to_image`;
      or `image_to_image` with `query_shots` original images per class.
    query_shots: original images per class for `image_to_image`.
    images_per_prompt: rows of the pool that each query finds.
    ranking: order of the images of a class: by `mean` score over the queries that found them, as in
      the reference; by `max`; or `rerank` by the cosine of the image with the text of the class.
    duplicate_threshold: cosine above which two images of a class are duplicates.
    leak_threshold: cosine above which an image is a test image.
    recall_target: below 1, TPUs search approximately (see `genbench_jax.retrieve`).
  """

  pool: Annotated[str, LocalPath()] = ""
  image_root: str = ""
  queries: Annotated[str, OneOf("kind of query", RETRIEVAL_QUERIES)] = "text_to_text"
  query_shots: Annotated[int, AtLeast(1)] = 1
  images_per_prompt: Annotated[int, AtLeast(1)] = 30
  ranking: Annotated[str, OneOf("ranking", RANKINGS)] = "mean"
  duplicate_threshold: float = 0.97
  leak_threshold: Annotated[float, AtLeast(-1), AtMost(1)] = 0.95
  recall_target: Annotated[float, Above(0), AtMost(1)] = 1.0
