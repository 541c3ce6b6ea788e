"""Calls that run code out of a text or a file, found in source by its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

LOADERS = {
    ("pickle", "load"), ("pickle", "loads"), ("pickle", "Unpickler"), ("joblib", "load"),
    ("dill", "load"), ("dill", "loads"), ("cloudpickle", "load"), ("cloudpickle", "loads"),
    ("marshal", "load"), ("marshal", "loads"), ("shelve", "open"),
    ("yaml", "load"), ("yaml", "load_all"), ("yaml", "unsafe_load"), ("yaml", "full_load"),
}  # fmt: skip
SWITCHES = {("allow_pickle", True), ("weights_only", False)}
# Attributes, whatever they are read from: `table.query` is one on every DataFrame. `network.eval()`
# of torch takes nothing, and `eval` of a table takes a text.
METHODS = {"read_pickle", "read_sql", "read_sql_query", "read_sql_table", "executescript"}
CALLED = {"query", "eval", "execute", "executemany"}
BUILTINS = {"eval", "exec"}
DATABASES = {"sqlite3", "sqlalchemy", "duckdb", "psycopg2", "pandasql"}


def banned(source: str) -> list[str]:
    """Return ``"LINE: what"`` for each banned call of `source`."""
    nodes = ast.walk(ast.parse(source))
    return [f"{node.lineno}: {what}" for node in nodes for what in _banned(node)]


def banned_in(folder: Path) -> list[str]:
    """Return ``"FILE:LINE: what"`` for each banned call of the modules in `folder`."""
    return [
        f"{path.relative_to(folder.parent)}:{found}"
        for path in sorted(folder.rglob("*.py"))
        for found in banned(path.read_text(encoding="utf-8"))
    ]


def _banned(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call):
        yield from _called(node)
        yield from _switches(node.keywords)
    elif isinstance(node, ast.Attribute):
        module = node.value.id if isinstance(node.value, ast.Name) else ""
        if node.attr in METHODS or (module, node.attr) in LOADERS:
            yield f"{module}.{node.attr}"
    elif isinstance(node, ast.Import):
        yield from (n.name for n in node.names if n.name.partition(".")[0] in DATABASES)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from _imported(node.module, [name.name for name in node.names])


def _called(call: ast.Call) -> Iterator[str]:
    match call.func:
        # The nearest points of a tree that is made on the spot, which takes no text.
        case ast.Attribute(value=ast.Call(func=ast.Name(id="cKDTree")), attr="query"):
            return
        case ast.Attribute(attr=name) if name in CALLED and (call.args or call.keywords):
            yield f".{name}()"
        case ast.Name(id=name) if name in BUILTINS:
            yield f"{name}()"


def _imported(module: str, names: list[str]) -> Iterator[str]:
    if module.partition(".")[0] in DATABASES:
        yield module
    for name in names:
        if (module, name) in LOADERS or name in METHODS:
            yield f"{module}.{name}"


def _switches(keywords: list[ast.keyword]) -> Iterator[str]:
    for keyword in keywords:
        value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
        if (keyword.arg, value) in SWITCHES:
            yield f"{keyword.arg}={value}"
