"""What a disk has against being written to, in the system's words."""

import errno
import os

# EFBIG is a quota of the shell's (`ulimit -f`), ENAMETOOLONG a work folder too deep, EIO a disk that dies.
DISK_ERRORS = (
  errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENAMETOOLONG, errno.EIO,
  errno.ENOTDIR, errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.ESTALE,
)  # fmt: skip
# Those that libraries tell in the message of another error alone: others stand in too many messages.
_TOLD = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EIO)


def disk_reason(error: BaseException) -> str:
  """Return the reason why a file can't be written; empty for an error of another kind.

  Errors of ArrayRecord, Orbax and TensorStore are `RuntimeError` and `ValueError` with the system's words in them.
  """
  if isinstance(error, OSError):
    return (error.strerror or "") if error.errno in DISK_ERRORS else ""
  told = str(error) if isinstance(error, (RuntimeError, ValueError)) else ""
  return next((reason for number in _TOLD if (reason := os.strerror(number)) in told), "")
