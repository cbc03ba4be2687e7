"""Measure how many small errors in the code the tests detect (mutation testing).

  python tools/mutate.py --seed 7 --count 150 --out mutants.jsonl
  python tools/mutate.py --seed 7 --count 150 --out mutants.jsonl --most 10   # try ten more, then stop
  python tools/mutate.py --list genbench_jax/metrics/cler.py

A mutant is the package with one operator, comparison, constant or guard changed. It is caught if a test of the
changed module fails, or takes five times as long as without the change. Mutants are drawn with a seed, from the
modules of ROOMS in turn. Mutants whose change no test can observe are listed with a reason in
`tools/equivalent_mutants.txt` and do not count. The same command continues a stopped run.
With `--green`, tests are not tried without a change first: use it where the whole suite passes.
"""

import argparse
import ast
import collections
import compileall
import dataclasses
import functools
import json
import os
import py_compile
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "genbench_jax"
# Packages of the numeric and storage core.
ROOMS = ("metrics", "analysis", "recognizers", "retrieval", "store", "embedding", "diffusion")
EQUIVALENT = ROOT / "tools" / "equivalent_mutants.txt"
# Test files that take minutes are not run; mutants that only they catch count as not caught.
SLOW_TESTS = ("test_main.py", "test_documented_commands.py", "test_examples.py", "test_making.py")
COMPARISONS: dict[type[ast.cmpop], str] = {
  ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
  ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is",
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], str] = {
  ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*",
  ast.Pow: "*", ast.BitAnd: "|", ast.BitOr: "&",
}  # fmt: skip
NAMES = {
  "max": "min", "min": "max", "any": "all", "all": "any", "sum": "mean", "mean": "sum",
  "maximum": "minimum", "minimum": "maximum", "argmax": "argmin", "argmin": "argmax",
  "floor": "ceil", "ceil": "floor", "zeros": "ones", "ones": "zeros",
}  # fmt: skip
TIMES_AS_LONG, SECONDS_MORE = 5, 30
# Maximum number of test files per module, the closest ones first; and of further ones, tried if none of those fails.
MOST_TESTS, MOST_FURTHER = 6, 18
# Test files that take longer, in seconds, are skipped.
SLOWEST = 300


@dataclasses.dataclass(frozen=True, order=True)
class Mutant:
  """A change of one line.

  Attributes:
    path: the module's path, relative to the root of the repository.
    line: line number, from 1.
    begin: offset of the changed text in the file.
    end: end of the changed text.
    text: replacement.
    source: the original line without indentation.
  """

  path: str
  line: int
  begin: int
  end: int
  text: str
  source: str

  def key(self, code: str) -> str:
    """Return the mutant's name in the list of equivalent ones; it does not depend on line numbers."""
    return f"{self.path}: {self.source} :: {code[self.begin : self.end]} -> {self.text}"


def mutants_of(path: Path) -> list[Mutant]:
  """Return all mutants of a module, in the order of their positions."""
  code = path.read_text(encoding="utf-8")
  lines = code.splitlines(keepends=True)
  starts = [0, *_cumulated(len(line) for line in lines)]
  name = path.relative_to(ROOT).as_posix()
  found = [
    Mutant(name, line, begin, end, text, lines[line - 1].strip())
    for line, begin, end, text in _Changes(code, starts).of(ast.parse(code))
    if code[begin:end] != text
  ]
  return sorted(set(found))


def _cumulated(sizes: Iterator[int]) -> Iterator[int]:
  total = 0
  for size in sizes:
    total += size
    yield total


class _Changes:
  """The possible changes of a syntax tree, as (line, begin, end, new text)."""

  def __init__(self, code: str, starts: Sequence[int]) -> None:
    self.code, self.starts = code, starts

  def of(self, node: ast.AST) -> Iterator[tuple[int, int, int, str]]:
    """Yield the changes of a node and its descendants, except annotations, decorators and messages."""
    # `strict=True` in `zip` never changes a correct program's behavior.
    if isinstance(node, ast.keyword) and node.arg == "strict":
      return
    yield from self._here(node)
    for field, value in ast.iter_fields(node):
      if field in ("annotation", "returns", "decorator_list", "type_params"):
        continue
      for child in value if isinstance(value, list) else [value]:
        if isinstance(child, ast.AST) and not isinstance(child, (ast.JoinedStr, ast.Raise)):
          yield from self.of(child)

  def _here(self, node: ast.AST) -> Iterator[tuple[int, int, int, str]]:
    match node:
      case ast.Compare():
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands, node.ops, operands[1:], strict=False):
          yield self._between(left, right, COMPARISONS[type(operator)])
      case ast.BinOp() if type(node.op) in ARITHMETIC and not _is_type_union(node):
        yield self._between(node.left, node.right, ARITHMETIC[type(node.op)])
      case ast.BoolOp():
        other = "or" if isinstance(node.op, ast.And) else "and"
        for left, right in zip(node.values, node.values[1:], strict=False):
          yield self._between(left, right, other)
      case ast.UnaryOp(op=ast.Not() | ast.USub()):
        begin = self._start(node)
        length = 3 if isinstance(node.op, ast.Not) else 1
        yield (node.lineno, begin, begin + length, "")
      case ast.Constant(value=bool() | int() | float()):
        yield self._whole(node, _other(node.value))
      case ast.Call(func=ast.Name(id=name)) if name in NAMES:
        yield self._whole(node.func, NAMES[name])
      case ast.Call(func=ast.Attribute(attr=name)) if name in NAMES:
        end = self._end(node.func)
        yield (node.func.end_lineno or node.lineno, end - len(name), end, NAMES[name])
      case ast.If(body=[ast.Raise()]):
        yield self._whole(node.test, "False")

  def _between(self, left: ast.expr, right: ast.expr, text: str) -> tuple[int, int, int, str]:
    """Return the replacement of the operator between two operands, keeping brackets and spaces."""
    begin, end = self._end(left), self._start(right)
    gap = self.code[begin:end]
    operator = re.search(r"not\s+in|is\s+not|[a-z]+|[-+*/%<>=!&|@]+", gap)
    assert operator, gap
    return (
      left.end_lineno or left.lineno,
      begin + operator.start(),
      begin + operator.end(),
      text,
    )

  def _whole(self, node: ast.expr, text: str) -> tuple[int, int, int, str]:
    return node.lineno, self._start(node), self._end(node), text

  def _start(self, node: ast.expr) -> int:
    return self._offset(node.lineno, node.col_offset)

  def _end(self, node: ast.expr) -> int:
    return self._offset(node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)

  def _offset(self, line: int, column: int) -> int:
    # The syntax tree counts columns in bytes, offsets into the text count characters.
    begin = self.starts[line - 1]
    encoded = self.code[begin : begin + column].encode()
    return begin + len(encoded[:column].decode("utf-8", "ignore"))


def _is_type_union(node: ast.BinOp) -> bool:
  sides = (node.left, node.right)
  return isinstance(node.op, ast.BitOr) and any(
    isinstance(side, ast.Constant) and side.value is None for side in sides
  )


def _other(value: bool | int | float) -> str:
  if isinstance(value, bool):
    return str(not value)
  return str(value + 1) if isinstance(value, int) else repr(value * 2 if value else 1.0)


def drawn(modules: Sequence[Path], seed: int, count: int) -> list[Mutant]:
  """Draw mutants, from each module in turn, without known equivalent ones."""
  known = set(equivalent())
  randomness = random.Random(seed)
  piles = []
  for path in randomness.sample(sorted(modules), len(modules)):
    code = path.read_text(encoding="utf-8")
    pile = [mutant for mutant in mutants_of(path) if mutant.key(code) not in known]
    piles.append(randomness.sample(pile, len(pile)))
  rounds = max(map(len, piles), default=0)
  return [pile[turn] for turn in range(rounds) for pile in piles if turn < len(pile)][:count]


def equivalent() -> Iterator[str]:
  """Yield the keys of mutants whose change no test can observe: lines of the list up to `  # reason`."""
  if EQUIVALENT.exists():
    for line in EQUIVALENT.read_text(encoding="utf-8").splitlines():
      if line and not line.startswith("#"):
        yield line.partition("  # ")[0]


def tests_of(path: Path) -> list[str]:
  """Return a module's test files without slow ones, the closest first.

  These are the file named after the module, those that import it, and those of the modules that import it.
  """
  users = [
    file for file in sorted((ROOT / PACKAGE).rglob("*.py")) if _imports(path).search(_text(file))
  ]
  # Users in the same room are closer.
  users.sort(key=lambda file: file.parent != path.parent)
  found = dict.fromkeys(test for module in (path, *users) for test in _tests_naming(module))
  return [file.relative_to(ROOT).as_posix() for file in found][: MOST_TESTS + MOST_FURTHER]


def _tests_naming(path: Path) -> list[Path]:
  mirror = ROOT / "tests" / path.relative_to(ROOT / PACKAGE).parent
  own = mirror / f"test_{path.stem}.py"
  found = [
    file
    for file in sorted((ROOT / "tests").rglob("test_*.py"))
    if file.name not in SLOW_TESTS and (file == own or _imports(path).search(_text(file)))
  ]
  # The file named after the module comes first, then its folder: most mutants fail in the first test file.
  return sorted(found, key=lambda file: (file != own, file.parent != mirror))


def _imports(path: Path) -> re.Pattern[str]:
  """Return a pattern that matches an import of a module."""
  module = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
  room, _, name = module.rpartition(".")
  name = re.escape(name)
  return re.compile(rf"{re.escape(module)}\b|from {re.escape(room)} import [^\n]*\b{name}\b")


@functools.cache
def _text(file: Path) -> str:
  return file.read_text(encoding="utf-8")


class Copy:
  """A copy of the repository, in which mutants are tried."""

  def __init__(self, place: Path, is_green: bool) -> None:
    self.place, self.is_green = place, is_green
    self._usual: dict[str, float | None] = {}
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in (PACKAGE, "tests"):
      shutil.copytree(ROOT / folder, place / folder, ignore=ignored)
    for entry in ROOT.iterdir():
      if entry.name not in (PACKAGE, "tests") and not entry.name.startswith("."):
        (place / entry.name).symlink_to(entry)
    # Compiled files are validated by hash: otherwise a mutant with the same size and second would be missed.
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(place / PACKAGE, quiet=2, invalidation_mode=mode)

  def seconds(self, tests: Sequence[str], limit: float) -> float | None:
    """Return how long the tests take; None if one fails or the time is up."""
    begin = time.monotonic()
    command = [
      sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly",
      "-m", "not long",
      *tests,
    ]  # fmt: skip
    try:
      done = subprocess.run(
        command, cwd=self.place, env={**os.environ, "PYTHONPATH": str(self.place)},
        capture_output=True, timeout=limit, check=False,
      )  # fmt: skip
    except subprocess.TimeoutExpired:
      return None
    return time.monotonic() - begin if done.returncode == 0 else None

  def usual(self, test: str) -> float | None:
    """Return how long a test file takes without a change, at most; None if it fails."""
    if self.is_green:
      return SLOWEST / TIMES_AS_LONG / MOST_TESTS
    if test not in self._usual:
      self._usual[test] = self.seconds([test], SLOWEST)
      if self._usual[test] is None:
        print(
          f"skipped, because it fails or takes {SLOWEST} s without a change: {test}", flush=True
        )
    return self._usual[test]

  def outcome(self, mutant: Mutant) -> str:
    """Return `caught`, `survived`, or `untested` if no test of the module passes without the change."""
    times = {test: self.usual(test) for test in tests_of(ROOT / mutant.path)}
    tests = {test: seconds for test, seconds in times.items() if seconds is not None}
    if not tests:
      return "untested"
    file = self.place / mutant.path
    code = file.read_text(encoding="utf-8")
    changed = code[: mutant.begin] + mutant.text + code[mutant.end :]
    try:
      ast.parse(changed)
      file.write_text(changed, encoding="utf-8")
      names = list(tests)
      for some in (names[:MOST_TESTS], names[MOST_TESTS:]):
        limit = TIMES_AS_LONG * sum(tests[name] for name in some) + SECONDS_MORE
        if some and self.seconds(some, limit) is None:
          return "caught"
      return "survived"
    finally:
      file.write_text(code, encoding="utf-8")


def run(mutants: Sequence[Mutant], out: Path, most: int, is_green: bool) -> None:
  """Try the mutants without an outcome, and append their outcomes to a file of JSON lines."""
  known = {(row["path"], row["begin"], row["text"]) for row in outcomes(out)}
  left = [m for m in mutants if (m.path, m.begin, m.text) not in known][:most]
  with tempfile.TemporaryDirectory(prefix="mutants_") as place:
    copy = Copy(Path(place), is_green)
    for mutant in left:
      row = {**dataclasses.asdict(mutant), "outcome": copy.outcome(mutant)}
      print(
        f"{row['outcome']:9} {mutant.path}:{mutant.line}  {mutant.source}  -> {mutant.text}",
        flush=True,
      )
      with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def outcomes(out: Path) -> list[dict[str, object]]:
  """Return the outcomes so far."""
  if not out.exists():
    return []
  return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def main() -> int:
  """Run the tool; return 0, or 1 if less than the required share is caught."""
  options = _parser().parse_args()
  if options.list:
    for mutant in mutants_of(options.list.resolve()):
      print(mutant.key(options.list.read_text(encoding="utf-8")))
    return 0
  modules = [
    path
    for room in options.rooms.split(",")
    for path in (ROOT / PACKAGE / room).rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
  ]
  run(drawn(modules, options.seed, options.count), options.out, options.most, options.green)
  counts = collections.Counter(str(row["outcome"]) for row in outcomes(options.out))
  counted = counts["caught"] + counts["survived"] + counts["untested"]
  share = counts["caught"] / max(1, counted)
  print(f"{counts['caught']} of {counted} caught ({share:.1%}); {dict(counts)}")
  return 0 if share >= options.at_least else 1


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--seed", type=int, default=0, help="seed of the draw")
  parser.add_argument("--count", type=int, default=150, help="mutants to draw")
  parser.add_argument(
    "--rooms", default=",".join(ROOMS), help="folders of the package, separated by commas"
  )
  parser.add_argument("--out", type=Path, default=Path("mutants.jsonl"), help="file of outcomes")
  parser.add_argument("--most", type=int, default=10**9, help="mutants to try in this call")
  parser.add_argument(
    "--green", action="store_true", help="all tests pass without a change: do not try them first"
  )
  parser.add_argument("--at-least", type=float, default=0.92, help="share that must be caught")
  parser.add_argument("--list", type=Path, help="print the mutants of one module and stop")
  return parser


if __name__ == "__main__":
  sys.exit(main())
