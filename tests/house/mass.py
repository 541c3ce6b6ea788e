"""How much code `verse_data` is, folder by folder: run as ``python tests/house/mass.py``.

How each figure is counted (version 0.1, commit 95f0ef39, gives the numbers in brackets):

* modules (226) and lines (30,692): files ending in ``.py``, and their lines as ``wc -l`` counts them;
* statements (15,959): every ``ast.stmt`` node at any depth, a docstring being one (its ``ast.Expr``);
  "bare" (14,414) leaves out the docstrings of modules, classes and functions;
* tokens (172,474): what `tokenize` calls NAME, OP, NUMBER or STRING, an f-string being one whatever
  stands in it, as before Python 3.12. Comments and layout are not tokens here, docstrings are;
  "bare" (170,929) leaves docstrings out. Texts under attributes count in both;
* lines of code (19,821): lines with a token on them that is no docstring;
* functions (1,613; median 7, p90 20): each ``def`` at any depth, overloads too. Its length runs from
  the line of ``def``, below the decorators, to its last line, less the lines of its docstring;
  "over 60 lines, docstring included" (7) takes those in. p90 is the shortest length that nine
  tenths of the functions do not exceed;
* docstrings with sections (335): those of modules, classes and functions that have a section of
  NumPy's convention, such as Parameters or Raises, over a line of hyphens;
* comments (258): ``#`` comments, those at the end of a line and ``# noqa`` too;
* shared names: base names of two modules or more, ``cli/``, ``records/``, ``__init__`` and
  ``__main__`` aside;
* late and typing imports: statements that import from the package within a function, or at module
  level under ``if TYPE_CHECKING``;
* circles: groups of modules that reach one another over imports of any kind, those two included.
  ``from a import b`` leads to ``a.b`` where that is a module, else to ``a``; that importing ``a.b``
  runs ``a/__init__.py`` as well is left out, and so are names that `importlib` resolves.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import math
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = "verse_data"
LONG_FUNCTION, LONG_MODULE, LONG_LINE = 60, 450, 120
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COUNTED = {tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING}
# Python 3.12 cuts f-strings into pieces, 3.14 t-strings.
SECTION = re.compile(
    r"^ *(Parameters|Attributes|Methods|Returns|Yields|Receives|Other Parameters|Raises|Warns|"
    r"Warnings|See Also|Notes|References|Examples)\n *-{3,} *$",
    re.MULTILINE,
)
OPENING, INSIDE, CLOSING = (
    {getattr(tokenize, f"{letter}STRING_{part}", None) for letter in "FT"}
    for part in ("START", "MIDDLE", "END")
)


@dataclass(frozen=True)
class Function:
    """Length of one function, and of its docstring within."""

    name: str
    length: int
    docstring: int

    @property
    def bare(self) -> int:
        """Length without the docstring."""
        return self.length - self.docstring


@dataclass(frozen=True)
class Module:
    """What one file counts, before anything is summed."""

    name: str
    """Dotted name, such as ``verse_data.spine.levels``."""
    path: str
    """Path below the package."""
    lines: int
    long_lines: int
    code: int
    """Lines with a token that is no docstring."""
    statements: int
    docstrings: int
    sectioned: int
    """Docstrings that have a section."""
    tokens: int
    comments: int
    functions: tuple[Function, ...]
    imports: tuple[tuple[str, str], ...]
    """Target and kind (``top``, ``late``, ``typing``) of each import out of the package."""

    @property
    def folder(self) -> str:
        """First folder below the package, ``.`` for the modules at its top."""
        return self.path.partition("/")[0] if "/" in self.path else "."


def module(path: Path, package: Path) -> Module:
    """Read and count one file."""
    source = path.read_text(encoding="utf-8")
    text = source.split("\n")
    tree = ast.parse(source)
    relative = path.relative_to(package)
    nodes = list(ast.walk(tree))
    docstrings = [lines for node in nodes if (lines := docstring(node))]
    tokens, comments, code = count_tokens(source)
    return Module(
        name=".".join((package.name, *relative.with_suffix("").parts)).removesuffix(".__init__"),
        path=relative.as_posix(),
        lines=source.count("\n"),
        long_lines=sum(len(line) > LONG_LINE for line in text),
        code=len(code.difference(*docstrings)),
        statements=sum(isinstance(node, ast.stmt) for node in nodes),
        docstrings=len(docstrings),
        sectioned=sum(
            bool(SECTION.search("\n".join(text[line - 1] for line in lines)))
            for lines in docstrings
        ),
        tokens=tokens,
        comments=comments,
        functions=tuple(
            Function(node.name, len(span(node)), len(docstring(node)))
            for node in nodes
            if isinstance(node, FUNCTIONS)
        ),
        imports=tuple(imports(tree, package.name)),
    )


def span(node: ast.stmt) -> range:
    """Return the numbers of the lines that a statement takes, its decorators aside."""
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def docstring(node: ast.AST) -> range:
    """Return the numbers of the lines of a module's, class's or function's docstring."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        found = ast.get_docstring(node, clean=False) is not None
        return span(node.body[0]) if found else range(0)
    return range(0)


def count_tokens(source: str) -> tuple[int, int, set[int]]:
    """Count tokens and comments, and say which lines have a token."""
    tokens = comments = depth = 0
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        depth -= token.type in CLOSING
        counted = token.type in COUNTED or token.type in OPENING
        tokens += counted and not depth
        comments += token.type == tokenize.COMMENT
        if counted or token.type in INSIDE:
            lines |= set(range(token.start[0], token.end[0] + 1))
        depth += token.type in OPENING
    return tokens, comments, lines


def imports(tree: ast.Module, package: str) -> Iterator[tuple[str, str]]:
    """Give target and kind of each import statement out of the package, at any depth."""

    def walk(node: ast.AST, kind: str) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            inner = kind
            if isinstance(child, FUNCTIONS):
                inner = "late"
            elif (
                kind == "top"
                and isinstance(child, ast.If)
                and "TYPE_CHECKING" in ast.dump(child.test)
            ):
                inner = "typing"
            if isinstance(child, ast.Import):
                targets = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                targets = [f"{child.module}:{','.join(alias.name for alias in child.names)}"]
            else:
                yield from walk(child, inner)
                continue
            yield from ((each, kind) for each in targets if is_within(each, package))

    return walk(tree, "top")


def is_within(target: str, package: str) -> bool:
    """Say whether a target of :func:`imports` lies in the package."""
    return target.replace(":", ".").split(".")[0] == package


def reached(target: str, names: set[str]) -> set[str]:
    """Return the modules that a target of :func:`imports` leads to."""
    origin, _, wanted = target.partition(":")
    inner = {f"{origin}.{name}" for name in wanted.split(",") if wanted} & names
    whole = not wanted or len(inner) < len(wanted.split(","))
    return inner | ({origin} & names if whole else set())


def circles(modules: list[Module], kinds: set[str]) -> list[list[str]]:
    """Return the groups of modules that reach one another over imports of some kinds."""
    names = {each.name for each in modules}
    ways = {
        each.name: set().union(*(reached(to, names) for to, kind in each.imports if kind in kinds))
        for each in modules
    }
    beyond: dict[str, set[str]] = {}
    for name in names:
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            new = ways[waiting.pop()] - seen
            seen |= new
            waiting += new
        beyond[name] = seen
    groups = {
        tuple(sorted({name, *(other for other in beyond[name] if name in beyond[other])}))
        for name in names
        if name in beyond[name]
    }
    return sorted([list(group) for group in groups], key=lambda group: (-len(group), group))


def shared_names(modules: list[Module]) -> dict[str, list[str]]:
    """Return the base names that more than one module has, and whose they are."""
    owners: dict[str, list[str]] = defaultdict(list)
    for each in modules:
        base = Path(each.path).stem
        if each.folder not in {"cli", "records"} and base not in {"__init__", "__main__"}:
            owners[base].append(each.path)
    return {base: paths for base, paths in sorted(owners.items()) if len(paths) > 1}


def figures(modules: list[Module]) -> dict[str, float]:
    """Sum up what can be summed over any set of modules."""
    functions = [function for each in modules for function in each.functions]
    lengths = sorted(function.bare for function in functions)
    kinds = [kind for each in modules for _, kind in each.imports]
    statements = sum(each.statements for each in modules)
    tokens = sum(each.tokens for each in modules)
    docstrings = sum(each.docstrings for each in modules)
    return {
        "modules": len(modules),
        "lines": sum(each.lines for each in modules),
        "lines of code": sum(each.code for each in modules),
        "statements": statements,
        "statements, bare": statements - docstrings,
        "tokens": tokens,
        "tokens, bare": tokens - docstrings,
        "functions": len(lengths),
        "function length, median": statistics.median_low(lengths) if lengths else 0,
        "function length, p90": lengths[math.ceil(0.9 * len(lengths)) - 1] if lengths else 0,
        f"functions over {LONG_FUNCTION} lines": sum(n > LONG_FUNCTION for n in lengths),
        f"functions over {LONG_FUNCTION} lines, docstring included": sum(
            function.length > LONG_FUNCTION for function in functions
        ),
        f"modules over {LONG_MODULE} lines": sum(each.lines > LONG_MODULE for each in modules),
        f"lines over {LONG_LINE} characters": sum(each.long_lines for each in modules),
        "docstrings with sections": sum(each.sectioned for each in modules),
        "comments": sum(each.comments for each in modules),
        "late imports": kinds.count("late"),
        "typing imports": kinds.count("typing"),
    }


def measure(root: Path) -> dict[str, Any]:
    """Count the package below a folder: everything, by folder, and what stands out."""
    package = root / PACKAGE
    modules = [module(path, package) for path in sorted(package.rglob("*.py"))]
    folders: dict[str, list[Module]] = defaultdict(list)
    for each in modules:
        folders[each.folder].append(each)
    names = shared_names(modules)
    found = circles(modules, {"top", "late", "typing"})
    return {
        "all": figures(modules)
        | {
            "shared names": len(names),
            "circles": len(found),
            "modules in circles": sum(map(len, found)),
            "circles of plain imports": len(circles(modules, {"top"})),
        },
        "folders": {folder: figures(each) for folder, each in sorted(folders.items())},
        "long functions": {
            f"{each.path}:{function.name}": function.bare
            for each in modules
            for function in each.functions
            if function.bare > LONG_FUNCTION
        },
        "long modules": {each.path: each.lines for each in modules if each.lines > LONG_MODULE},
        "shared names": names,
        "circles": found,
    }


def checkout(commit: str, folder: Path) -> Path:
    """Unpack what a commit holds into a folder; the repository's own files stay as they are."""
    packed = subprocess.run(
        ["git", "archive", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def table(rows: list[list[str]]) -> str:
    """Set rows in columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


SHORT = {
    "modules": "modules",
    "lines": "lines",
    "lines of code": "code",
    "statements": "statements",
    "tokens": "tokens",
    "functions": "functions",
    "function length, median": "median",
    "function length, p90": "p90",
    f"functions over {LONG_FUNCTION} lines": f"over {LONG_FUNCTION}",
    f"modules over {LONG_MODULE} lines": f"over {LONG_MODULE}",
    f"lines over {LONG_LINE} characters": f"over {LONG_LINE}",
    "comments": "comments",
}
"""Headings of the table by folder."""


def report(after: dict[str, Any], before: dict[str, Any] | None) -> str:
    """Write the tables that a person reads."""
    if before is None:
        totals = [["all", "now"], *([name, f"{n:,}"] for name, n in after["all"].items())]
        folders = [
            ["folder", *SHORT.values()],
            *(
                [at, *(f"{each[name]:,}" for name in SHORT)]
                for at, each in after["folders"].items()
            ),
        ]
    else:
        totals = [["all", "before", "now", "change"]]
        for name, now in after["all"].items():
            was = before["all"][name]
            change = f"{100 * (now - was) / was:+.1f} %" if was else "-"
            totals.append([name, f"{was:,}", f"{now:,}", change])
        shown = ["modules", "lines", "statements", "tokens"]
        folders = [["folder", *(f"{name} {when}" for name in shown for when in ("before", "now"))]]
        for at in sorted({*before["folders"], *after["folders"]}):
            pair = [before["folders"].get(at, {}), after["folders"].get(at, {})]
            folders.append([at, *(f"{each.get(name, 0):,}" for name in shown for each in pair)])
    standing = [
        f"{title}: {', '.join(each) or 'none'}"
        for title, each in {
            f"Functions over {LONG_FUNCTION} lines": [
                f"{at} ({n})" for at, n in after["long functions"].items()
            ],
            f"Modules over {LONG_MODULE} lines": [
                f"{at} ({n})" for at, n in after["long modules"].items()
            ],
            "Shared names": [f"{at} ({len(n)})" for at, n in after["shared names"].items()],
            "Circles": [f"[{' '.join(group)}]" for group in after["circles"]],
        }.items()
    ]
    return "\n\n".join([table(totals), table(folders), *standing])


def main(arguments: list[str]) -> None:
    """Print what the checkout counts, and what a commit counted before it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--against", metavar="COMMIT", help="show what this commit counts as well")
    options = parser.parse_args(arguments)
    after, before = measure(ROOT), None
    if options.against:
        with tempfile.TemporaryDirectory(prefix="verse-mass-") as folder:
            before = measure(checkout(options.against, Path(folder)))
    if options.json:
        print(json.dumps({"before": before, "now": after} if before else after, indent=1))
    else:
        print(report(after, before))


if __name__ == "__main__":
    main(sys.argv[1:])
