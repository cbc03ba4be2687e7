"""Names of sources, strategies and budgets on the page."""

from genbench_jax.cells import strategy_parts

# Share of the requested images per class below which the difference is reported.
FEWER_THAN_ASKED = 0.95


def source_label(source: str) -> str:
  """Return the name of a source's images in running text."""
  return {
    "generative": "generated",
    "retrieval": "retrieved",
    "control": "label-shuffled",
  }.get(source, source)


def strategy_label(strategy: str) -> str:
  """Return `defined template` or `defined template with tokens from original images`."""
  prompts, references = strategy_parts(strategy)
  tokens = f" with tokens from {source_label(references)} images" if references else ""
  return prompts.replace("_", " ") + tokens


def series_label(source: str, strategy: str, generator: str = "") -> str:
  """Return the name of images on the page, such as `generated, simple template`.

  Args:
    source: name of the source.
    strategy: prompt strategy, or "".
    generator: name of the generator or folder, or "".
  """
  return ", ".join(
    part for part in (images_label(source, generator), strategy_label(strategy)) if part
  )


def images_label(source: str, generator: str = "") -> str:
  """Return the name of the generator or folder, with its source if that differs."""
  if not generator or source == "original":
    return source_label(source)
  return generator if source in ("generative", "folder") else f"{source_label(source)} {generator}"


def images_words(source: str, generator: str = "") -> str:
  """Return the images in running text: `generated images` or `the images of sd15`."""
  if generator and source in ("generative", "folder"):
    return f"the images of {generator}"
  return f"{images_label(source, generator)} images"


def shots_label(shots: int) -> str:
  """Return the number of images per class; 0 or less means all."""
  return str(shots) if shots > 0 else "all"


def budget_words(shots: int) -> str:
  """Return `16 images per class` or `all images`."""
  return f"{shots} {'image' if shots == 1 else 'images'} per class" if shots > 0 else "all images"
