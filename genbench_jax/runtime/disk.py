"""Reasons of the operating system why a file cannot be written."""

import errno
import os

# EFBIG: the shell's quota (`ulimit -f`); ENAMETOOLONG: a work folder that is too deep; EIO: a
# failing disk; EINVAL: a pipe in the place of a file (`store.reading.regular`); EISDIR: a folder in it.
DISK_ERRORS = (
  errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENAMETOOLONG, errno.EIO,
  errno.ENOTDIR, errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.EINVAL, errno.EISDIR,
)  # fmt: skip
# Reasons that libraries report only in the message of another error. Others occur in too many
# messages.
_TOLD = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EIO)


def disk_reason(error: BaseException) -> str:
  """Return why a file cannot be written; empty for other errors.

  ArrayRecord, Orbax and TensorStore raise `RuntimeError` and `ValueError` with the system's
  message.
  """
  if isinstance(error, OSError):
    return (error.strerror or "") if error.errno in DISK_ERRORS else ""
  message = str(error) if isinstance(error, (RuntimeError, ValueError)) else ""
  return next((reason for number in _TOLD if (reason := os.strerror(number)) in message), "")
