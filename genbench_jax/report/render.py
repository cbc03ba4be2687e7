"""Rendering of templates and writing of files."""

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from genbench_jax.report import palette, tables
from genbench_jax.report.chart import Figure
from genbench_jax.report.number_words import points
from genbench_jax.report.sheet import sheet_of
from genbench_jax.runtime.printable import printable
from genbench_jax.store import files

LONGEST_ON_PAPER = 2000
# All but tab, line feed and carriage return, and the two that are no characters.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")


def figure_svg(figure: Figure) -> str:
  """Return the figure as a standalone SVG file."""
  from markupsafe import Markup

  sheet = sheet_of(figure)
  return render("figure.svg.jinja", **vars(sheet), style=Markup(_figure_style())).strip() + "\n"


def write_files(folder: Path, written: Sequence[tables.Table], figures: Sequence[Figure]) -> None:
  """Write the tables as CSV, Markdown and LaTeX and the figures as SVG, each atomically.

  Tables that are too long for paper are written only as CSV.

  Args:
    folder: folder of the page.
    written: the tables.
    figures: the figures.
  """
  for table in written:
    write(folder / "tables" / f"{table.name}.csv", tables.as_csv(table))
    if len(table.rows) > LONGEST_ON_PAPER:
      continue
    write(folder / "tables" / f"{table.name}.md", tables.as_markdown(table))
    write(folder / "tables" / f"{table.name}.tex", tables.as_latex(table))
  for figure in figures:
    write(folder / "figures" / f"{figure.name}.svg", figure_svg(figure))


def assets() -> dict[str, Any]:
  """Return style and script, with the hashes by which the page's policy admits them."""
  from markupsafe import Markup

  dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {palette.variables(palette.DARK)} }} }}"
  light = f":root {{ {palette.variables(palette.LIGHT)} }}"
  screen = f"@media screen {{ {dark} }}"
  style = "\n".join((light, screen, _asset("figure.css"), _asset("page.css")))
  script = _asset("page.js")
  return {
    "style": Markup(style),
    "script": Markup(script),
    "figure_style": _figure_style(),
    "style_hash": _hash(style),
    "script_hash": _hash(script),
  }


def _figure_style() -> str:
  return palette.resolved(_asset("figure.css"))


def _hash(text: str) -> str:
  return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _asset(name: str) -> str:
  return resources.files("genbench_jax.report").joinpath("assets", name).read_text(encoding="utf-8")


def render(template: str, **context: Any) -> str:
  from jinja2 import Environment, PackageLoader, StrictUndefined

  environment = Environment(
    loader=PackageLoader("genbench_jax.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False}
  environment.filters["shown"] = _shown
  environment.filters["points"] = points
  return environment.get_template(template).render(**context)


def _shown(value: tables.Value) -> str:
  """Return a value for one of the small tables."""
  if value is None:
    return "–"
  return f"{value:.2f}".replace("-", "−") if isinstance(value, float) else str(value)


def write(path: Path, text: str) -> Path:
  """Write the file atomically; see `store.files.atomic_path`.

  Control characters of names are escaped: XML forbids them, so that a figure with one could not be shown.
  """
  files.write_text(path, _CONTROLS.sub(lambda match: printable(match[0]), text))
  return path
