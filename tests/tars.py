"""Small tar files for tests."""

import io
import tarfile


def write_tar(path, members, mode="w"):
  """Write (name, content) pairs; a link or folder has (type of the member, target) as content."""
  with tarfile.open(path, mode) as tar:
    for name, content in members:
      info = tarfile.TarInfo(name)
      if isinstance(content, bytes):
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
      else:
        info.type, info.linkname = content
        tar.addfile(info)
  return path
