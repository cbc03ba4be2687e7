"""The rooms of the package: what stands where, and which way the imports go."""

import ast
import functools
import re
from pathlib import Path

import numpy as np
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "genbench_jax"
# Folders of tests that belong to no single room.
ACROSS = {"data", "faults", "launch"}


@functools.cache
def modules():
  """Module name -> parsed source."""
  found = {}
  for path in PACKAGE.rglob("*.py"):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    found[name.removesuffix(".__init__")] = ast.parse(path.read_text(encoding="utf-8"))
  return found


def imported(tree):
  """All names that a module imports, in the bodies of its functions, too."""
  hidden = {
    id(inner)
    for node in ast.walk(tree)
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    for inner in ast.walk(node)
  }
  for node in ast.walk(tree):
    if isinstance(node, ast.ImportFrom) and id(node) not in hidden:
      yield from (
        name for alias in node.names for name in (f"{node.module}.{alias.name}", node.module)
      )
    elif isinstance(node, ast.Import) and id(node) not in hidden:
      yield from (alias.name for alias in node.names)


def constants():
  """(name, module, value as text) of the constants of all modules."""
  for module, tree in modules().items():
    for node in tree.body:
      if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id.strip("_")
        value = ast.unparse(node.value)
        if (
          len(name) > 1 and name.isupper() and not re.fullmatch(r"[\d *<]+", value)
        ):  # counts and sizes
          yield name, module, value


def test_the_root_holds_the_doors_and_the_trunk():
  assert {path.stem for path in PACKAGE.glob("*.py")} == {
    "__init__", "__main__", "main", "config", "cells", "run", "errors",
  }  # fmt: skip


def test_tests_mirror_the_package():
  rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
  tested = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("test_*.py"))}
  assert tested - ACROSS == rooms


def test_no_circle_of_imports_even_through_function_bodies():
  """Every strongly connected component of the graph of imports is one module."""
  names = sorted(modules())
  place = {name: index for index, name in enumerate(names)}
  graph = np.zeros((len(names), len(names)), bool)
  for name, tree in modules().items():
    for other in set(imported(tree)) & place.keys() - {name}:
      graph[place[name], place[other]] = True
  # A module needs the packages above it, which import nothing from it.
  count, members = connected_components(graph, connection="strong")
  circles = [[names[i] for i in np.flatnonzero(members == c)] for c in range(count)]
  assert [circle for circle in circles if len(circle) > 1] == []


def test_a_constant_has_one_home():
  """The same name with the same value in two modules is one constant with two homes."""
  homes = {}
  for name, module, value in constants():
    homes.setdefault((name, value), []).append(module)
  assert {name: where for (name, _), where in homes.items() if len(where) > 1} == {}


def test_no_function_rebinds_a_name_of_its_module():
  for module, tree in modules().items():
    assert not any(isinstance(node, ast.Global) for node in ast.walk(tree)), module


def test_no_file_is_too_long():
  for path in PACKAGE.rglob("*.py"):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450, path
