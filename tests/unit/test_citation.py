"""How releases and the software are cited, as the readers of reference managers take it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import rispy
from pybtex.database import BibliographyData, parse_string
from pybtex.plugin import find_plugin
from support.trees import write_tree
from typer.testing import CliRunner

import verse_data as vd
from verse_data import api
from verse_data.cli.main import app
from verse_data.errors import UsageError
from verse_data.export.citation import (
    SOFTWARE_AUTHOR,
    SOFTWARE_LICENCE,
    SOFTWARE_TITLE,
    Pinned,
    Style,
    cite_release,
)
from verse_data.records.catalog import Citation
from verse_data.releases.catalog import load_catalog
from verse_data.releases.repository import Repository
from verse_data.releases.tree import lock_tree

ROOT = Path(__file__).parents[2]
PAPERS = {
    "10.1148/ryai.2020190138": "Löffler MT, Sekuboyina A, Jacob A, et al. A Vertebral Segmentation "
    "Dataset with Fracture Grading. Radiology: Artificial Intelligence 2020;2(4):e190138.",
    "10.1016/j.media.2021.102166": "Sekuboyina A, Husseini ME, Bayat A, et al. VerSe: A Vertebrae "
    "Labelling and Segmentation Benchmark for Multi-detector CT Images. Medical Image Analysis "
    "2021;73:102166.",
    "10.1038/s41597-021-01060-0": "Liebl H, Schinz D, Sekuboyina A, et al. A computed tomography "
    "vertebral segmentation dataset with anatomical variations and multi-vendor scanner data. "
    "Scientific Data 2021;8:284.",
}


def locked_here(name: str, tmp_path: Path, home: Path) -> Repository:
    """Lock a tree of small files as the release `name`."""
    dataset = Repository(home / "releases" / name)
    dataset.publish(lock_tree(write_tree(tmp_path / name), release=name))
    return dataset


def bibtex(text: str) -> BibliographyData:
    """Return what an independent reader of BibTeX takes, which refuses what breaks its rules."""
    return parse_string(text, "bibtex")


def test_verse19_is_cited_by_its_three_papers_without_being_here() -> None:
    """Authors, title, journal, year and DOI of each; licence and attribution of the data."""
    text = api.cite("verse19")

    for doi, line in PAPERS.items():
        assert f"  {line} https://doi.org/{doi}\n" in text
    assert "licence      CC-BY-SA-4.0, https://" in text
    assert f"attribution  {load_catalog('verse19').attribution}\n" in text
    assert "release      verse19, not on this machine\n" in text
    assert "verse-data lock verse19" in text


@pytest.mark.parametrize("style", ["text", "bibtex", "ris", "json"])
def test_version_and_lock_are_named_where_the_release_is_here(
    style: Style, tmp_path: Path, home: Path
) -> None:
    """Each style names the version, the whole digest of the lock, and the commit."""
    dataset = locked_here("verse19", tmp_path, home)

    text = api.cite("verse19", style=style)

    assert f"sha256:{dataset.lock().digest}" in text
    assert dataset.commit() in text
    assert text == vd.open_release("verse19").citation(style)
    assert text == api.cite("verse19", style=style, version=f"sha256:{dataset.lock().digest}")


def test_bibtex_is_read_by_a_parser_of_its_own() -> None:
    """The entry of the data and one for each paper, whose authors are whole names, in order."""
    pinned = Pinned(version="v1", lock="sha256:" + "a" * 64, commit="b" * 40)
    entries = bibtex(
        cite_release("verse19", load_catalog("verse19"), pinned, style="bibtex")
    ).entries

    assert list(entries) == ["verse19-v1", "loffler2020", "sekuboyina2021", "liebl2021"]
    first = entries["loffler2020"]
    assert dict(first.fields) == {
        "title": "{A Vertebral Segmentation Dataset with Fracture Grading}",
        "journal": "Radiology: Artificial Intelligence",
        "year": "2020",
        "volume": "2",
        "number": "4",
        "pages": "e190138",
        "doi": "10.1148/ryai.2020190138",
        "url": "https://doi.org/10.1148/ryai.2020190138",
    }
    assert [str(person) for person in first.persons["author"]] == list(
        load_catalog("verse19").citations[0].authors
    )
    assert f"lock {pinned.lock}, commit {pinned.commit}" in entries["verse19-v1"].fields["note"]


def test_a_bibliography_style_takes_each_entry() -> None:
    """The plain style of BibTeX formats the papers, with "et al." where the list is not complete."""
    data = bibtex(api.cite("verse19", style="bibtex"))
    style, backend = (
        find_plugin("pybtex.style.formatting", "plain")(),
        find_plugin("pybtex.backends", "text")(),
    )
    lines = [entry.text.render(backend) for entry in style.format_entries(data.entries.values())]

    assert any(
        line.startswith("Maximilian T. Löffler, Anjany Sekuboyina, Alina Jacob") for line in lines
    )
    assert any("Eva Niederreiter, and others. A computed tomography" in line for line in lines)


def test_ris_is_read_by_a_parser_of_its_own() -> None:
    """The data and the three papers, with type, authors, journal, year and DOI."""
    data, *papers = rispy.loads(api.cite("verse19", style="ris"))

    assert (data["type_of_reference"], data["doi"]) == ("DATA", "10.17605/OSF.IO/NQJYW")
    assert [paper["doi"] for paper in papers] == list(PAPERS)
    assert [paper["type_of_reference"] for paper in papers] == ["JOUR"] * 3
    assert [len(paper["authors"]) for paper in papers] == [10, 69, 10]
    assert papers[0]["authors"][0] == "Löffler, Maximilian T."
    assert papers[0]["secondary_title"] == "Radiology: Artificial Intelligence"
    assert (papers[0]["year"], papers[0]["volume"], papers[0]["number"]) == ("2020", "2", "4")
    assert papers[2]["notes"] == ["The list of authors is not complete."]


def test_json_holds_every_field() -> None:
    """For programs: the fields of each publication, and what is unknown as null."""
    facts = json.loads(api.cite("verse19", style="json"))

    assert [paper["doi"] for paper in facts["citations"]] == list(PAPERS)
    assert [paper["text"] for paper in facts["citations"]] == list(PAPERS.values())
    assert (facts["version"], facts["lock"]) == (None, None)
    assert facts["licence_url"].startswith("https://")


def test_the_phantom_asks_for_no_citation(tmp_path: Path, home: Path) -> None:
    """It is made up, and says so in each style."""
    locked_here("phantom", tmp_path, home)

    for style in ("text", "bibtex", "ris", "json"):
        text = api.cite("phantom", style=style)
        assert "Made-up" in text
        assert "no person was scanned" in text
        assert "It asks for no citation." in text
    assert list(bibtex(api.cite("phantom", style="bibtex")).entries) == ["phantom-v1"]
    assert len(rispy.loads(api.cite("phantom", style="ris"))) == 1


def test_own_data_are_cited_by_what_is_known(tmp_path: Path, home: Path) -> None:
    """Name, version and lock; and that licence and authors are not known here."""
    dataset = locked_here("my_lab", tmp_path, home)

    text = api.cite("my_lab")

    assert text.startswith("Release my_lab, locked by its user\n")
    assert "licence      not known\n" in text
    assert "Ask whoever made them how to cite them." in text
    assert "--about FILE" in text
    assert (
        f"Release my_lab v1 of verse-data {vd.__version__}, lock sha256:{dataset.lock().digest}"
        in text
    )
    entry = bibtex(api.cite("my_lab", style="bibtex")).entries["my_lab-v1"]
    assert entry.fields["title"] == r"{Release my\_lab, locked by its user}"


def test_without_a_release_the_software_is_cited() -> None:
    """As CITATION.cff has it, with this version; the text points to the releases."""
    cff = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    said = dict(re.findall(r"^(\w+): (.+)$", cff, flags=re.MULTILINE))

    assert f"{said['title']}: {said['abstract']}" == f"{SOFTWARE_TITLE}."
    assert (said["license"], said["version"]) == (SOFTWARE_LICENCE, vd.__version__)
    assert f"  - name: {SOFTWARE_AUTHOR}\n" in cff
    assert "verse-data cite verse19" in api.cite()
    (entry,) = bibtex(api.cite(style="bibtex")).entries.values()
    assert entry.persons["author"][0].last_names == [f"{{{SOFTWARE_AUTHOR}}}"]
    (row,) = rispy.loads(api.cite(style="ris"))
    assert (row["type_of_reference"], row["edition"]) == ("COMP", vd.__version__)
    assert json.loads(api.cite(style="json"))["version"] == vd.__version__


def test_the_papers_of_the_software_are_those_of_the_catalog() -> None:
    """CITATION.cff and the catalog agree on title, journal, volume, year and DOI of each paper."""
    cff = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    parts = cff.partition("references:\n")[2].split("  - type: article\n")[1:]
    found = [
        dict(re.findall(r"^    (\w+): \"?(.+?)\"?$", part, flags=re.MULTILINE)) for part in parts
    ]

    assert [
        (p["title"], p["journal"], p["volume"], p["start"], p["year"], p["doi"]) for p in found
    ] == [
        (c.title, c.journal, c.volume, c.pages, str(c.year), c.doi)
        for c in load_catalog("verse19").citations
    ]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: api.cite("nowhere"), "There is no release 'nowhere'"),
        (lambda: api.cite("verse19", version="v1"), "No version of verse19 is on this machine"),
        (
            lambda: api.cite("verse19", style="apa"),
            "style='apa' is none of text, bibtex",
        ),
    ],
)
def test_what_cannot_be_cited_is_a_usage_error(call: object, text: str) -> None:
    """An unknown release, a version that is not here, an unknown style."""
    with pytest.raises(UsageError, match=re.escape(text)):
        call()  # type: ignore[operator]


def test_marks_of_tex_are_escaped_and_equal_keys_told_apart() -> None:
    """A title with & and % is read back; two papers of one author and year have two keys."""
    paper = Citation(
        authors=("Müller, Ann-Marie",),
        title="A & B: 50% of {x}_1",
        journal="J",
        year=2020,
        doi="10.1234/x",
    )
    entry = load_catalog("phantom").model_copy(update={"citations": (paper, paper)})

    entries = bibtex(cite_release("phantom", entry, None, style="bibtex")).entries

    assert list(entries) == ["phantom", "muller2020", "muller2020b"]
    assert entries["muller2020"].fields["title"] == r"{A \& B: 50\% of \{x\}\_1}"
    assert paper.text == "Müller AM. A & B: 50% of {x}_1. J 2020."


def test_the_command_prints_what_the_api_gives() -> None:
    """``verse-data cite``, with each format and ``--json``."""
    for words, style in (
        (("--format", "text"), "text"),
        (("--format", "bibtex"), "bibtex"),
        (("--format", "ris"), "ris"),
        (("--json",), "json"),
    ):
        answer = CliRunner().invoke(app, ["cite", "verse19", *words])
        assert (answer.exit_code, answer.stdout) == (0, api.cite("verse19", style=style))


def test_the_command_says_where_entries_name_no_lock(tmp_path: Path, home: Path) -> None:
    """An entry for a reference manager cannot say by itself that the release is not here."""
    before = CliRunner().invoke(app, ["cite", "verse19", "--format", "bibtex"])
    locked_here("verse19", tmp_path, home)
    after = CliRunner().invoke(app, ["cite", "verse19", "--format", "bibtex"])

    assert "verse19 is not on this machine, so no version and no lock" in before.stderr
    assert after.stderr == ""
