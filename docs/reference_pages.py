"""The pages of the reference: each is made from what the code knows, never by hand."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

from verse_data import config, errors, progress
from verse_data.cli.common import EXIT_CODES, GROUPS
from verse_data.cli.main import app
from verse_data.tables.columns import describe
from verse_data.tables.definitions import DEFINITIONS

ROOT = Path(__file__).parents[1]
API = {
    "package": (
        "The package",
        "What `import verse_data as vd` gives.",
        r"verse_data\.\w+",
        (),
    ),
    "release": (
        "Release",
        "One release at one version, or several as one: files, tables, checks, datasets and scores.",
        r"verse_data\.(Release|UnitedReleases)(\.\w+)?",
        ("verse_data.views.report.Report.write",),
    ),
    "datasets": (
        "Datasets and loaders",
        "What `load_split` and `Release.dataset` return, and what samples hold.",
        r"verse_data\.training\.([A-Z]\w*(\.\w+)?|[a-z_]+)",
        ("verse_data.training.samples", "verse_data.training.base.ServedDataset"),
    ),
    "transforms": (
        "Transforms and bridges",
        "Few, and exact on image, label, affine and centroids together.",
        r"verse_data\.training\.[a-z]+\..*",
        (),
    ),
    "tables": (
        "Tables and folds",
        "What stands behind `Release.select` and `Release.folds`, for other tables as well.",
        r"verse_data\.(tables|spine)\..*",
        ("verse_data.tables.patients",),
    ),
    "predictions": (
        "Predictions and metrics",
        "Predictions back on the grid of their scan, and what they are worth.",
        r"verse_data\.(predictions|metrics)\..*",
        (),
    ),
    "export": (
        "Exports",
        "Folders for other programs: one function each.",
        r"verse_data\.export\..*",
        (),
    ),
    "phantom": ("Phantom", "The made-up release.", r"verse_data\.phantom\..*", ()),
    "errors": (
        "Errors",
        "Every error takes one text: what, where, why, and what to type next.",
        r"verse_data\.(errors\.\w+|VerseDataError.*)",
        (),
    ),
    "lower": (
        "Locks, repositories, stores",
        "For those who build on the parts.",
        r"verse_data\..*",
        (),
    ),
}
"""Page, title, what is said first, which public names it has, and what else these refer to."""


def write_reference(folder: Path) -> None:
    """Write all pages; one that did not change is left alone, so that it is not read again."""
    pages = {f"{name}.md": text for name, text in _api()}
    pages["cli.md"] = "\n".join(_cli())
    pages["exit-codes.md"] = "\n".join(_exit_codes())
    pages["environment.md"] = "\n".join(_environment())
    pages["columns.md"] = "\n".join(_columns())
    pages["schemas.md"] = "\n".join(_schemas())
    folder.mkdir(parents=True, exist_ok=True)
    for old in set(folder.iterdir()) - {folder / name for name in pages}:
        old.unlink()
    for name, text in pages.items():
        if not (folder / name).exists() or (folder / name).read_text() != text:
            (folder / name).write_text(text)


def _table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    heads = list(heads)
    for row in (heads, ["---"] * len(heads), *rows):
        cells = (" ".join(str(cell).split()).replace("|", "\\|") for cell in row)
        yield f"| {' | '.join(cells)} |"
    yield ""


# --- the API --------------------------------------------------------------------------------------


def public_names() -> list[str]:
    """Return the names that people may build on."""
    text = (ROOT / "tests" / "house" / "public_names.txt").read_text()
    return [line for line in text.splitlines() if line.startswith("verse_data")]


def _api() -> Iterator[tuple[str, str]]:
    left = public_names()
    # The package's own page takes what no page of a part wants, and the last the rest.
    for page in sorted(
        API,
        key=lambda one: ["package", "lower"].index(one) + 1 if one in {"package", "lower"} else 0,
    ):
        title, first, pattern, more = API[page]
        mine = [name for name in left if re.fullmatch(pattern, name)]
        left = [name for name in left if name not in mine]
        yield f"api-{page}", "\n".join([f"# {title}\n\n{first}\n", *_autodoc([*mine, *more])])


def _autodoc(names: list[str]) -> Iterator[str]:
    done: set[str] = set()
    for name in names:
        thing = _resolve(name)
        options = []
        if name.rpartition(".")[0] in done or name.endswith("__version__"):
            continue
        if inspect.ismodule(thing):
            kind = "module"
            if name in set(public_names()):
                continue  # its names are listed themselves
        elif inspect.isclass(thing):
            kind = "exception" if issubclass(thing, BaseException) else "class"
            done.add(name)
            own = (one.removeprefix(f"{name}.") for one in names if one.startswith(f"{name}."))
            members = ", ".join(one for one in own if hasattr(thing, one))  # others: its docstring
            options = [f":members: {members}"] if members else []
            options += [":show-inheritance:"] if kind == "exception" else []
        elif inspect.isroutine(thing):
            kind = "method" if "." in thing.__qualname__ else "function"
        else:
            kind, options = "data", [":no-value:"]
        yield "\n".join(
            ["```{eval-rst}", f".. auto{kind}:: {name}", *(f"   {o}" for o in options), "```", ""]
        )


def _resolve(name: str) -> Any:
    """Return what a name leads to, a function before the module of its name; None for attributes."""
    first, *parts = name.split(".")
    thing: Any = importlib.import_module(first)
    for done, part in enumerate(parts):
        if inspect.ismodule(thing) and not hasattr(thing, part):
            importlib.import_module(".".join([first, *parts[: done + 1]]))
        thing = getattr(thing, part, None)  # None: what instances alone have
    return thing


# --- the command line -----------------------------------------------------------------------------


def _cli() -> Iterator[str]:
    program: Any = typer.main.get_command(app)
    yield "# Commands and options\n"
    yield "Made from the commands themselves; `verse-data COMMAND -h` prints the same."
    yield "[The command line](../../cli.md) is the page to read first.\n"
    for group, names in GROUPS.items():
        yield f"## {group}\n"
        for name in names:
            yield from _command(name, program.commands[name])


def _command(name: str, command: Any) -> Iterator[str]:
    yield f"### verse-data {name}\n"
    yield f"{_prose(command.help)}\n"
    yield from _options(command)
    for inner, one in getattr(command, "commands", {}).items():
        yield f"#### verse-data {name} {inner}\n"
        yield f"{_prose(one.help)}\n"
        yield from _options(one)


def _options(command: Any) -> Iterator[str]:
    shown = [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
    if shown:
        yield from _table(("argument or option", "meaning"), map(_option, shown))


def _option(option: Any) -> tuple[str, str]:
    if not option.opts[0].startswith("-"):
        name = option.metavar or option.name.upper()
        return f"`{name}`{'' if option.required else ' (optional)'}", _prose(option.help)
    value = "" if option.is_flag else f" {option.metavar or 'VALUE'}"
    names = ", ".join(f"`{one}{value}`" for one in (*option.opts, *option.secondary_opts))
    text = _prose(option.help)
    if option.default not in (None, False, True, ()) and "efault" not in text:
        text += f" Default: `{option.default}`."
    return names, text


def _prose(text: str | None) -> str:
    """Escape what Markdown would take for markup."""
    return re.sub(r"([<>*_\[\]{}$])", r"\\\1", (text or "").strip())


# --- exit codes, environment, columns, schemas ------------------------------------------------


def _exit_codes() -> Iterator[str]:
    yield "# Exit codes\n"
    yield "What the command line ends with, and the error classes that end with it. Each class is in"
    yield "`verse_data.errors`; see [Errors](api-errors.md) for what they derive from.\n"
    classes = [
        one
        for one in vars(errors).values()
        if inspect.isclass(one) and issubclass(one, errors.VerseDataError)
    ]
    for code, meaning in EXIT_CODES.items():
        yield f"## {code}\n\n{meaning[0].upper()}{meaning[1:]}.\n"
        rows = [
            (f"{{py:exc}}`~verse_data.errors.{one.__name__}`", (one.__doc__ or "").split("\n")[0])
            for one in classes
            if one.exit_code == code
        ]
        if rows:
            yield from _table(("class", "raised when"), rows)


def _environment() -> Iterator[str]:
    yield "# Environment variables\n"
    yield "An argument of a call or an option of a command goes before the variable.\n"
    rows = []
    for module in (config, progress):
        said = _said_of_names(Path(module.__file__))
        rows += [
            (f"`{getattr(module, name)}`", said[name]) for name in vars(module) if name in said
        ]
    yield from _table(("variable", "meaning"), rows)


def _said_of_names(path: Path) -> dict[str, str]:
    """Return the text below each constant of a module whose name ends with ``_VARIABLE``."""
    body = ast.parse(path.read_text()).body
    found = {}
    for this, after in pairwise(body):
        target = getattr(this, "target", None) or (getattr(this, "targets", None) or [None])[0]
        if isinstance(target, ast.Name) and target.id.endswith("_VARIABLE"):
            found[target.id] = str(after.value.value)  # type: ignore[attr-defined]
    return found


def _columns() -> Iterator[str]:
    yield "# Columns of the tables\n"
    yield "`verse-data columns` prints the same; [Tables](../../tables.md) says how they are made, and"
    yield "[Queries](../../queries.md) how to ask for rows.\n"
    for table in ("vertebrae", "scans", "subjects"):
        yield f"## {table}\n"
        rows = [
            (f"`{row['column']}`", *(_prose(str(cell or "")) for cell in [*row.values()][1:]))
            for row in describe(table)
        ]
        yield from _table(("column", "type", "unit", "meaning", "source"), rows)
    yield "## Named conditions\n"
    rows = [(f"`{d.name}`", f"`{d.expression}`", d.meaning) for d in DEFINITIONS.values()]
    yield from _table(("name", "means", "in words"), rows)


def _schemas() -> Iterator[str]:
    yield "# Schemas\n"
    yield "The JSON Schema of each record, of the newest version; `verse-data schemas show NAME` prints"
    yield "one whole, and `schemas/` in the repository has every published version.\n"
    newest = max((ROOT / "schemas").glob("*/"), key=lambda path: path.name.split("."))
    for path in sorted(newest.glob("*.schema.json")):
        schema = json.loads(path.read_text())
        yield f"## {path.name.removesuffix('.schema.json')}\n"
        yield f"{_prose(schema.get('description', '').split(chr(10))[0])}\n"
        fields = schema.get("properties", {})
        rows = [
            (f"`{name}`", _prose(field.get("description", ""))) for name, field in fields.items()
        ]
        if rows:
            yield from _table(("field", "meaning"), rows)
