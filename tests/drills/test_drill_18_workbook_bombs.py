"""Drill 18: workbooks made to bring a reader down are refused fast, and the reader lives on."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest

from tests.support import workbooks
from verse_data.errors import SheetRefused
from verse_data.tables.workbook import letters_of, read_sheet

SECONDS = 5.0
FOR_SLOW_MACHINES = 2
"""The worst bomb takes 0.7 s here; so it passes on a machine ten times slower, and a hang never does."""
PARENT_BYTES = 200 << 20
SHEET_XML = "xl/worksheets/sheet1.xml"

# One process reads one bomb; it must end by itself, with a named error, and stay small. What counts
# is the processor's time of it and its children: on a busy machine everything takes longer.
PROBE = """
import json, os, re, sys
from pathlib import Path
from verse_data.errors import VerseDataError
from verse_data.tables.grading import read_grading
start = sum(os.times()[:4])
try:
    read_grading(Path(sys.argv[1]))
    said = "read"
except VerseDataError as error:
    said = f"{type(error).__name__}: {error}"
# Not ru_maxrss: it starts at what the process that forked this one had.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({"said": said, "seconds": sum(os.times()[:4]) - start, "bytes": peak}))
"""


def build(path: Path, member: str, change: Callable[[bytes], bytes]) -> Path:
    """Write a right workbook of one row, and change one of its members."""
    workbooks.write_xlsx(path, [workbooks.row(4)])
    return workbooks.edit_member(path, member, change)


def corner_cell(path: Path) -> Path:
    """A few kilobytes with one cell in the last corner of the sheet."""
    far = b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>'
    return build(path, SHEET_XML, lambda xml: xml.replace(b"</sheetData>", far))


def many_rows(path: Path) -> Path:
    """A sheet of two million empty rows, in sixty-odd megabytes of markup."""
    rows = b"".join(b'<row r="%d"/>' % number for number in range(3, 20_002))
    more = rows + b"<row/>" * 2_000_000 + b"</sheetData>"
    return build(path, SHEET_XML, lambda xml: xml.replace(b"</sheetData>", more))


def long_text(path: Path) -> Path:
    """A text cell of 300 MB that packs into 300 KB."""
    workbooks.write_xlsx(path, [workbooks.row(4)])
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    before, _, after = parts.pop(SHEET_XML).partition(b"</sheetData>")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        for name, content in parts.items():
            target.writestr(name, content)
        with target.open(SHEET_XML, "w", force_zip64=True) as stream:
            stream.write(before + b'<row r="3"><c r="A3" t="inlineStr"><is><t>')
            for _ in range(300):
                stream.write(b"A" * (1 << 20))
            stream.write(b"</t></is></c></row></sheetData>" + after)
    return path


def many_members(path: Path) -> Path:
    """A zip of five thousand members."""
    workbooks.write_xlsx(path, [workbooks.row(4)])
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(5_000):
            archive.writestr(f"xl/media/{number}.xml", b"<a/>")
    return path


def lying_size(path: Path) -> Path:
    """A member that claims ten bytes and inflates to megabytes."""
    build(path, SHEET_XML, lambda xml: xml + b" " * (8 << 20))
    data = bytearray(path.read_bytes())
    name = SHEET_XML.encode()
    for signature, offset, size_at in ((b"PK\x03\x04", 30, 22), (b"PK\x01\x02", 46, 24)):
        place = data.find(signature)
        while place >= 0:
            if data[place + offset : place + offset + len(name)] == name:
                data[place + size_at : place + size_at + 4] = (10).to_bytes(4, "little")
            place = data.find(signature, place + 4)
    path.write_bytes(bytes(data))
    return path


def with_doctype(declaration: bytes, use: bytes) -> Callable[[Path], Path]:
    """Return a maker of a workbook whose sheet carries `declaration` and `use` an entity of it."""

    def make(path: Path) -> Path:
        def change(xml: bytes) -> bytes:
            head, mark, rest = xml.partition(b"<worksheet")
            return head + declaration + mark + rest.replace(b"<t>", b"<t>" + use, 1)

        return build(path, SHEET_XML, change)

    return make


def many_elements(path: Path) -> Path:
    """Millions of elements outside of any row, in a member that no limit of rows reaches."""
    packed = b"".join(b"<b%d/>" % (n * 7919 % 1000) for n in range(1000)) * 3_300
    return build(path, "xl/styles.xml", lambda _: b"<a>" + packed + b"</a>")


def long_tag(path: Path) -> Path:
    """One attribute of thirty megabytes that does not pack well."""
    noise = random.Random(0).randbytes(15 << 20).hex().encode()
    return build(path, "xl/styles.xml", lambda _: b'<a b="' + noise + b'"/>')


def deep(path: Path) -> Path:
    """Elements in each other, a hundred thousand deep."""
    return build(path, "xl/styles.xml", lambda _: b"<a>" * 100_000 + b"</a>" * 100_000)


def rows_of(cells: int, cell: bytes) -> Callable[[bytes], bytes]:
    """Return a change that adds rows with `cells` cells in all; ``%s`` of `cell` is its place."""
    letters = [letters_of(column).encode() for column in range(1, 101)]
    rows = b"".join(
        b'<row r="%d">%s</row>' % (row, b"".join(cell % (b"%s%d" % (at, row)) for at in letters))
        for row in range(3, 3 + cells // 100)
    )
    return lambda xml: xml.replace(b"</sheetData>", rows + b"</sheetData>")


def many_cells(path: Path) -> Path:
    """A sheet with a number in each of 120,000 cells."""
    return build(path, SHEET_XML, rows_of(120_000, b'<c r="%s"><v>1</v></c>'))


def shared_text(path: Path) -> Path:
    """A small file with one text of 4,000 letters, which 15,000 cells share."""
    build(path, SHEET_XML, rows_of(15_000, b'<c r="%s" t="s"><v>0</v></c>'))
    main = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    part = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{main}.sharedStrings+xml"/>'
    workbooks.edit_member(
        path,
        "[Content_Types].xml",
        lambda xml: xml.replace(b"</Types>", part.encode() + b"</Types>"),
    )
    texts = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(
            "xl/sharedStrings.xml", f'<sst xmlns="{texts}"><si><t>{"A" * 4000}</t></si></sst>'
        )
    return path


def many_sheets(path: Path) -> Path:
    """A workbook of twenty thousand sheets, all of which are one part."""
    namespace = b"http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    sheet = b'<sheet xmlns:r="' + namespace + b'" name="%d" sheetId="%d" r:id="rId1"/>'
    more = b"".join(sheet % (number, number) for number in range(9, 20_009))
    return build(
        path, "xl/workbook.xml", lambda xml: xml.replace(b"</sheets>", more + b"</sheets>")
    )


def many_markings(path: Path) -> Path:
    """Conditional formats without end, each of which the reader takes its time for."""
    one = b'<conditionalFormatting sqref="A1"><cfRule type="expression" priority="1"/></conditionalFormatting>'
    return build(
        path, SHEET_XML, lambda xml: xml.replace(b"</worksheet>", one * 99_000 + b"</worksheet>")
    )


LAUGHS = b"<!DOCTYPE worksheet [" + b"".join(
    b'<!ENTITY l%d "%s">' % (n, (b"&l%d;" % (n - 1)) * 10 if n else b"ha") for n in range(10)
) + b"]>"  # fmt: skip

CASES: dict[str, Callable[[Path], Path]] = {
    "corner cell": corner_cell,
    "many rows": many_rows,
    "long text": long_text,
    "many members": many_members,
    "lying size": lying_size,
    "external entity": with_doctype(
        b'<!DOCTYPE worksheet [<!ENTITY x SYSTEM "file:///etc/passwd">]>', b"&x;"
    ),
    "billion laughs": with_doctype(LAUGHS, b"&l9;"),
    "many elements": many_elements,
    "long tag": long_tag,
    "deep": deep,
    "many cells": many_cells,
    "shared text": shared_text,
    "many sheets": many_sheets,
    "many markings": many_markings,
    "external document type": with_doctype(
        b'<!DOCTYPE worksheet SYSTEM "http://127.0.0.1:9/x">', b""
    ),
}


HARMLESS = {"deep"}
"""Costs the reader nothing: it may be read, too."""


@pytest.mark.parametrize("case", CASES)
def test_a_bomb_is_refused_fast_and_small(case: str, tmp_path: Path) -> None:
    """Each bomb gives a named error within 5 s of work, and the process that asked stays below 200 MB."""
    path = CASES[case](tmp_path / "bomb.xlsx")
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(path)], check=True, capture_output=True, timeout=120
    )
    found = json.loads(done.stdout)

    refused = found["said"].startswith(("SheetRefused: bomb.xlsx", "ValidationFailed: bomb.xlsx"))
    assert refused or (case in HARMLESS and found["said"] == "read"), found
    assert "root:" not in found["said"], "a file of this machine was read"
    assert found["seconds"] < SECONDS * FOR_SLOW_MACHINES
    assert found["bytes"] < PARENT_BYTES


@pytest.mark.parametrize("encoding", ["cp037", "utf-16", "utf-7"])
def test_an_encoding_that_hides_a_document_type_is_refused(encoding: str, tmp_path: Path) -> None:
    """The XML parser knows encodings in which a DOCTYPE looks like noise: it refuses what it decodes."""

    def change(xml: bytes) -> bytes:
        head = f"<?xml version='1.0' encoding='{encoding}'?><!DOCTYPE worksheet>"
        return (head + xml.decode()).encode(encoding)

    with pytest.raises(
        ValueError, match=r"bomb\.xlsx: .*(DTDForbidden|not well-formed|multi-byte)"
    ):
        read_sheet(build(tmp_path / "bomb.xlsx", SHEET_XML, change))


def test_rows_that_come_twice_are_refused(tmp_path: Path) -> None:
    """The parser would drop a repeated row: silently."""
    again = b'<row r="2"/></sheetData>'
    path = build(tmp_path / "row.xlsx", SHEET_XML, lambda x: x.replace(b"</sheetData>", again))

    with pytest.raises(
        SheetRefused, match="row '2' is not a row number, is repeated, or is out of"
    ):
        read_sheet(path)


CELL = b'<c r="A2" t="n"><v>4</v></c>'
SPELLINGS: dict[str, bytes] = {
    "again": CELL + b'<c r="A2"><v>9</v></c>',
    "lower case": CELL + b'<c r="a2"><v>9</v></c>',
    "character reference": CELL + b'<c r="&#65;2"><v>9</v></c>',
    "sign in an attribute": CELL + b'<c cm=">" r="A2"><v>9</v></c>',
    "tag in an attribute": CELL + b"<c cm=\"&lt;c \" r = 'A2'><v>9</v></c>",
    "underscore": CELL + b'<c r="B0_2"><v>9</v></c>',
    "leading zero": CELL + b'<c r="B02"><v>9</v></c>',
    "place of another row": CELL + b'<c r="B3"><v>9</v></c>',
    "another element": CELL + b'<z r="A2"><v>9</v></z>',
    "another namespace": CELL + b'<z:c xmlns:z="urn:z" r="A2"><v>9</v></z:c>',
    "two values": b'<c r="A2"><v>4</v><v>9</v></c>',
    "value in parts": b'<c r="A2"><v>4<z/>9</v></c>',
    "row in a row": CELL + b'<c><row r="3"><c r="A3"><v>9</v></c></row></c>',
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_cell_that_comes_twice_is_refused_however_it_is_spelled(
    spelling: str, tmp_path: Path
) -> None:
    """Case, character references, signs in attributes, other tags: no second cell slips past."""

    def change(xml: bytes) -> bytes:
        assert CELL in xml
        return xml.replace(CELL, SPELLINGS[spelling])

    path = build(tmp_path / "twice.xlsx", SHEET_XML, change)
    with pytest.raises(SheetRefused, match=r"twice\.xlsx: row '?2'?.* (repeated|two values|twice)"):
        read_sheet(path)


def test_a_sheet_elsewhere_in_the_zip_is_looked_at_too(tmp_path: Path) -> None:
    """A sheet in a member of another name is under the same rules, also in one that is called no XML."""
    for member in ("xl/z.xml", "xl/z.bin"):
        path = build(tmp_path / "moved.xlsx", SHEET_XML, lambda x: x.replace(CELL, CELL + CELL))
        with zipfile.ZipFile(path) as source:
            parts = {name: source.read(name) for name in source.namelist()}
        parts[member] = parts.pop(SHEET_XML)
        for name in ("xl/_rels/workbook.xml.rels", "[Content_Types].xml"):
            parts[name] = parts[name].replace(SHEET_XML.encode(), member.encode())
        with zipfile.ZipFile(path, "w") as target:
            for name, content in parts.items():
                target.writestr(name, content)
        with pytest.raises(SheetRefused, match="twice"):
            read_sheet(path)


def test_control_the_plain_reader_keeps_the_last_of_two_cells(tmp_path: Path) -> None:
    """Control: openpyxl as everybody calls it takes the second cell of one place without a word."""
    for spelling in ("lower case", "character reference", "sign in an attribute"):
        path = build(
            tmp_path / "twice.xlsx", SHEET_XML, lambda x, s=spelling: x.replace(CELL, SPELLINGS[s])
        )
        book = openpyxl.load_workbook(path, read_only=True)
        assert book.worksheets[0]["A2"].value == 9
        book.close()


def test_a_slow_child_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workbook that keeps its reader busy beyond the timer is refused, and the child is gone."""
    path = workbooks.write_xlsx(tmp_path / "slow.xlsx", [workbooks.row(4)])
    monkeypatch.setattr("verse_data.tables.workbook.TIMEOUT_SECONDS", 0.01)

    with pytest.raises(ValueError, match=r"slow\.xlsx: reading it took more than"):
        read_sheet(path)


def test_control_the_plain_reader_hangs_on_the_corner_cell(tmp_path: Path) -> None:
    """Control: openpyxl as everybody calls it does not come to an end with the smallest bomb.

    It is killed for its work, not its time; the limit on memory keeps it from harming the machine.
    """
    path = corner_cell(tmp_path / "bomb.xlsx")
    naive = f"""
import openpyxl, resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
list(openpyxl.load_workbook({str(path)!r}).active.values)
"""

    done = subprocess.run([sys.executable, "-c", naive], check=False, capture_output=True)

    assert done.returncode < 0 or b"MemoryError" in done.stderr


def test_control_the_probe_reads_a_right_workbook(tmp_path: Path) -> None:
    """Control: the same probe reads a workbook that is no bomb, so it does not refuse everything."""
    path = workbooks.write_xlsx(tmp_path / "right.xlsx", [workbooks.row(4)])
    done = subprocess.run([sys.executable, "-c", PROBE, str(path)], check=True, capture_output=True)

    assert json.loads(done.stdout)["said"] == "read"
