"""The two protocols: `reference` repeats the published code's choices, `strict` mends them."""

from typing import Literal, get_args

Protocol = Literal["strict", "reference"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
