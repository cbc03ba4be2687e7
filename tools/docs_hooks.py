"""Hooks of `mkdocs build`: make pages from notebooks and other files, and a search that works from disk."""

import base64
import json
import posixpath
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = "https://github.com/genbench-jax/genbench_jax/blob/main"
# Page of the site <- its file in the repository.
ELSEWHERE = {
  "launch.md": "launch/README.md",
  "zoo.md": "genbench_jax/zoo/README.md",
  "contributing.md": "CONTRIBUTING.md",
  "changelog.md": "CHANGELOG.md",
  "security.md": "SECURITY.md",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Add pages made from files elsewhere in the repository."""
  pages = {page: (ROOT / file).read_text(encoding="utf-8") for page, file in ELSEWHERE.items()}
  homes = dict(ELSEWHERE)
  for notebook in sorted((ROOT / "examples").glob("*.ipynb")):
    page = f"notebooks/{notebook.stem}.md"
    pages[page] = _page(notebook, files, config)
    homes[page] = f"examples/{notebook.name}"
  for page, text in pages.items():
    drawn = {file.src_uri for file in files if file.src_uri.startswith("notebooks/")}
    content = _with_links(text, page, homes, drawn=drawn)
    files.append(File.generated(config, page, content=content))
  return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
  """Resolve links in pages of docs/ to files of the repository, as on the repository's site."""
  if page.file.generated_by:
    return markdown
  homes = dict(ELSEWHERE) | {
    f"notebooks/{path.stem}.md": f"examples/{path.name}"
    for path in (ROOT / "examples").glob("*.ipynb")
  }
  return _with_links(markdown, page.file.src_uri, homes, f"docs/{page.file.src_uri}")


def _with_links(
  text: str, page: str, homes: dict[str, str], home: str = "", drawn: Collection[str] = ()
) -> str:
  """Point links to pages of the site if they exist, otherwise to the repository.

  Images `drawn` by a notebook are next to its page, so links to them are unchanged.
  """
  home = home or homes[page]
  pages = {file: name for name, file in homes.items()}

  def target(found: re.Match[str]) -> str:
    link, hash_, anchor = found[1].partition("#")
    beside = posixpath.join(posixpath.dirname(page), link)
    if not link or beside in drawn or re.match(r"[a-z]+:", link):
      return found[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(home), link))
    goal = pages.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else "")
    if not goal:
      return f"]({REPOSITORY}/{path}{hash_}{anchor})"
    return f"]({posixpath.relpath(goal, posixpath.dirname(page) or '.')}{hash_}{anchor})"

  return re.sub(r"\]\(([^)\s]+)\)", target, text)


def _page(notebook: Path, files: Files, config: MkDocsConfig) -> str:
  """Convert a notebook to a page with its text, code and outputs."""
  cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
  parts = []
  for number, cell in enumerate(cells):
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
      parts.append(source)
      continue
    parts.append(f"```python\n{source}\n```")
    for place, output in enumerate(cell.get("outputs", ())):
      name = f"notebooks/{notebook.stem}_{number}_{place}.png"
      parts.append(_output(output, name, files, config))
  parts.append(f"[The notebook]({REPOSITORY}/examples/{notebook.name})")
  return "\n\n".join(filter(None, parts)) + "\n"


def _output(output: dict[str, Any], name: str, files: Files, config: MkDocsConfig) -> str:
  data = output.get("data", {})
  if "image/png" in data:
    content = base64.b64decode("".join(data["image/png"]))
    files.append(File.generated(config, name, content=content))
    return f"![what the cell draws]({posixpath.basename(name)})"
  text = "".join(output.get("text") or data.get("text/plain") or "")
  return f"```text\n{text.rstrip()}\n```" if text.strip() and output.get("name") != "stderr" else ""


def on_post_build(config: MkDocsConfig) -> None:
  """Write the search index as a script, with the search that reads it."""
  folder = Path(config.site_dir) / "search"
  index = json.loads((folder / "search_index.json").read_text(encoding="utf-8"))
  documents = json.dumps(index["docs"], ensure_ascii=False).replace("</", "<\\/")
  (folder / "index.js").write_text(f"window.searchDocuments = {documents};\n", encoding="utf-8")
  shutil.copyfile(ROOT / "docs" / "assets" / "search.js", folder / "main.js")
