"""Messages of the processes of a run to each other: one JSON object a line, over TCP."""

import json
import socket
from collections.abc import Mapping
from typing import Any

_PROGRAM = "genbench_jax"
_MOST_BYTES = 1 << 20  # the settings of a config take some 20 kB


def send(connection: socket.socket, message: Mapping[str, Any]) -> None:
  """Send a message."""
  connection.sendall(json.dumps({"program": _PROGRAM, **message}).encode() + b"\n")


def received(connection: socket.socket) -> dict[str, Any]:
  """Return the next message and leave the following ones to another reader.

  Raises:
    ValueError: it is not one of our messages.
    OSError: there is none.
  """
  line = bytearray()
  while not line.endswith(b"\n"):
    waiting = connection.recv(4096, socket.MSG_PEEK)
    if not waiting:
      raise ConnectionError("disconnected")
    line += connection.recv(waiting.find(b"\n") + 1 or len(waiting))
    if len(line) > _MOST_BYTES or not line.startswith(b"{"):
      raise ValueError("unknown message")
  message = json.loads(line)
  if message.get("program") != _PROGRAM:
    raise ValueError("unknown message")
  return message
