"""The two protocols: `reference` reproduces the published code, `strict` corrects it. Intervals are 95 % in both."""

from typing import Literal, get_args

Protocol = Literal["strict", "reference"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
NORMAL = 1.959964  # 97.5 % quantile of the standard normal distribution
