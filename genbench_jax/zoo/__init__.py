"""The zoo: small trained checkpoints that ship with the package, named `zoo/clip` and `zoo/diffusion`."""

from pathlib import Path

CHECKPOINTS = Path(__file__).parent / "checkpoints"
NAMES = tuple(f"zoo/{name}" for name in ("clip", "diffusion"))
