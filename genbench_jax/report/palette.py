"""The colors of the page. Sources use Okabe and Ito's color-blind-safe set.

In both themes, text and lines have a contrast of at least 4.5 with the background, marks of at
least 3.
"""

import re

LIGHT = {
  "paper": "#fdfcfa", "raised": "#f5f3ee", "ink": "#1c1b19", "soft": "#5d5a54", "hair": "#dad6cd",
  "link": "#0a5a94", "generative": "#0072b2", "retrieval": "#b84a00", "original": "#007d5d",
  "folder": "#8a6500", "combined": "#a8478a", "control": "#706d66", "other": "#6b5b95",
  "hue1": "#0072b2", "hue2": "#a8478a", "hue3": "#8a6500", "hue4": "#5b4fb0", "hue5": "#00727a",
  "hue6": "#b3261e", "hue7": "#3f6f12", "hue8": "#6d5a4d", "hue9": "#2f5d8c", "hue10": "#8f3a5f",
}  # fmt: skip
DARK = {
  "paper": "#16171a", "raised": "#1f2125", "ink": "#e9e6df", "soft": "#a5a29b", "hair": "#3a3c41",
  "link": "#7cc4f5", "generative": "#56b4e9", "retrieval": "#f28a3c", "original": "#2fc795",
  "folder": "#e6c34f", "combined": "#e193c3", "control": "#97948d", "other": "#b7a8e0",
  "hue1": "#56b4e9", "hue2": "#e193c3", "hue3": "#e6c34f", "hue4": "#a99cf0", "hue5": "#4fc3c9",
  "hue6": "#f0837a", "hue7": "#9cc65a", "hue8": "#c7ad9b", "hue9": "#86b3e0", "hue10": "#e08fae",
}  # fmt: skip


def variables(colors: dict[str, str]) -> str:
  """Return the colors as CSS custom properties."""
  return " ".join(f"--{name}: {value};" for name, value in colors.items())


def resolved(css: str) -> str:
  """Return `css` with all colors substituted, since many SVG programs lack custom properties."""
  return re.sub(r"var\(--([a-z0-9]+)\)", lambda match: LIGHT[match.group(1)], css)
