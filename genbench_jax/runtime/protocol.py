"""The two protocols: `reference` reproduces the published code, `strict` corrects it."""

from typing import Literal, get_args

Protocol = Literal["strict", "reference"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
