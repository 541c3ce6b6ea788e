"""Provenance of a release and of a scan, and its exports as the reference libraries read them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import prov.model
import pytest
from rocrate.rocrate import ROCrate
from support.trees import write_tree
from typer.testing import CliRunner

from verse_data.cli.main import app
from verse_data.errors import UsageError
from verse_data.export.croissant import ResponsibleAI, load_rai, to_croissant
from verse_data.export.prov import FILE_NAME, to_prov, to_rocrate
from verse_data.records.lock import ReleaseLock
from verse_data.records.provenance import FetchedFrom, Provenance, StoreProvenance
from verse_data.releases.catalog import load_catalog
from verse_data.releases.fetch import FetchLog, FetchResult
from verse_data.releases.provenance import describe
from verse_data.releases.repository import Repository
from verse_data.releases.tree import lock_tree

URL = "https://osf.io/download/5ffca086e80d370320a594cc/?version=2"


@pytest.fixture
def dataset(tmp_path: Path, home: Path) -> Repository:
    """Build a small release with addresses, one of whose files has been fetched."""
    lock = lock_tree(write_tree(tmp_path / "tree"), release="verse19")
    update = {"file_id": "5ffca086e80d370320a594cc", "file_version": 2, "node": "jtfa5"}
    files = tuple(file.model_copy(update=update) for file in lock.files)
    dataset = Repository(home / "releases" / "verse19")
    dataset.publish(ReleaseLock(release=lock.release, source=lock.source, files=files))
    dataset.adopt([tmp_path / "tree"])
    result = FetchResult(file=files[0], ok=True, bytes=files[0].size, url=URL, tries=2, seconds=0.1)
    FetchLog(dataset.path).append(result)
    return dataset


@pytest.fixture
def provenance(dataset: Repository) -> Provenance:
    """Describe the whole release, with one store."""
    store = StoreProvenance(fingerprint="f" * 64, recipe={"spacing": None, "codec": "lz4"})
    return describe(dataset, catalog=load_catalog("verse19"), stores=[store])


def test_provenance_pins_release_and_scan(dataset: Repository) -> None:
    """Lock, commit, key, address and the fetch of each file are told, of all or of one scan."""
    catalog = load_catalog("verse19")
    whole, scan = describe(dataset, catalog=catalog), describe(dataset, scan_id="verse900")

    assert whole.lock == f"sha256:{dataset.lock().digest}"
    assert whole.commit == dataset.commit("v1")
    assert whole.licence == "CC-BY-SA-4.0"
    assert len(whole.citations) == 3
    assert len(whole.files) == 15
    assert {file.scan_id for file in scan.files} == {"verse900"}
    first = next(file for file in whole.files if file.fetched)
    assert first.urls == (URL,)
    assert isinstance(first.fetched, FetchedFrom)
    assert (first.fetched.engine, first.fetched.tries) == ("http", 2)
    assert Provenance.model_validate_json(whole.model_dump_json()) == whole
    with pytest.raises(UsageError, match="no scan 'verse999'"):
        describe(dataset, scan_id="verse999")


def test_a_log_line_that_was_cut_short_is_passed_over(dataset: Repository) -> None:
    """A kill or a full disk may cut the log within a letter, and a message hold any kind of line end."""
    log, file = FetchLog(dataset.path), dataset.lock().files[1]
    before = log.read()
    log.append(FetchResult(file=file, ok=False, error="two\u2028lines, a \x85 too"))
    with log.path.open("ab") as stream:
        stream.write('{"key": "é'.encode()[:-1])

    assert [line["error"] for line in log.read()[len(before) :]] == ["two\u2028lines, a \x85 too"]
    assert any(file.fetched for file in describe(dataset).files)


@pytest.mark.parametrize(
    "line",
    [
        '{"event": "dropped"}', '{"ok": true, "bytes": 1}', '{"key": 1, "ok": true, "bytes": "x"}',
        '{"key": "KEY", "ok": true, "bytes": 1, "url": 2, "engine": [], "tries": 1, "time": 0}', "[" * 200_000, "7",
    ],
)  # fmt: skip
def test_lines_of_another_program_say_nothing(dataset: Repository, line: str) -> None:
    """Whatever else stands in the log of fetches, provenance is told without it."""
    log, file = FetchLog(dataset.path), dataset.lock().files[1]
    before = describe(dataset)
    with log.path.open("a") as stream:
        stream.write(line.replace("KEY", file.annex_key) + "\n")

    assert describe(dataset) == before


def test_prov_is_read_by_the_reference_library(provenance: Provenance) -> None:
    """`prov` reads the document and finds contents, addresses, the fetch and the store."""
    document = prov.model.ProvDocument.deserialize(
        content=json.dumps(to_prov(provenance)), format="json"
    )

    kinds = [type(record).__name__ for record in document.get_records()]
    assert kinds.count("ProvEntity") == 1 + 15 + 15 + 1 + 1
    assert kinds.count("ProvActivity") == 3
    assert kinds.count("ProvMembership") == 15
    assert kinds.count("ProvUsage") == 9 + 1
    assert kinds.count("ProvDerivation") == 1
    assert kinds.count("ProvAlternate") == 15
    store = document.get_record(f"verse:store-{'f' * 64}")
    assert store
    assert document.get_provn()


def test_rocrate_is_read_by_the_reference_library(
    provenance: Provenance, tmp_path: Path, dataset: Repository
) -> None:
    """`rocrate` reads the crate at the root of the dataset: files, licence, citations."""
    root = tmp_path / "crate"
    shutil.copytree(dataset.path, root, symlinks=False, ignore=shutil.ignore_patterns(".git"))
    (root / FILE_NAME).write_text(json.dumps(to_rocrate(provenance, date="2026-01-31")))

    crate = ROCrate(root)

    assert crate.root_dataset["datePublished"] == "2026-01-31"
    assert crate.root_dataset["license"]["identifier"] == "CC-BY-SA-4.0"
    files = [entity for entity in crate.data_entities if entity.type == "File"]
    assert len(files) == 15
    assert {file["sha256"] for file in files} == {file.sha256 for file in provenance.files}
    assert len(crate.root_dataset["citation"]) == 3


def test_croissant_lists_every_file_and_every_scan(provenance: Provenance) -> None:
    """Each file has address, size, type and digest; each scan is a record with patient and split."""
    value = to_croissant(provenance, date="2026-01-31", rai=load_rai("verse19"))

    assert value["conformsTo"][0] == "http://mlcommons.org/croissant/1.1"
    ct = next(file for file in value["distribution"] if file["name"].endswith("verse900_ct.nii.gz"))
    assert ct["contentUrl"] == URL
    assert ct["contentSize"].endswith(" B")
    assert len(ct["sha256"]) == 64
    (scans,) = value["recordSet"]  # no grades without the rows of a workbook
    assert [row["scans/scan_id"] for row in scans["data"]] == ["verse900", "verse901", "verse902"]
    assert {row["scans/split"] for row in scans["data"]} == {"training"}
    assert value["rai:personalSensitiveInformation"]
    assert "blank fracture grade" in value["rai:dataCollectionMissingData"]


NAMES = [
    "read me.txt",
    "ü 日.txt",
    "50%.txt",
    "50%25.txt",
    "a#b?c.txt",
    'a<"b">.txt',
    "a:b.txt",
    "{a}|^`.txt",
]


def described(tree: Path, home: Path) -> Provenance:
    """Make the files of a folder a release of one's own, and describe it."""
    release = Repository(home / "releases" / "lab")
    release.publish(lock_tree(tree, release="lab"))
    return describe(release)


def test_any_file_name_is_a_reference_in_croissant_and_rocrate(tmp_path: Path, home: Path) -> None:
    """Each file has an id of its own that is valid in an address, and keeps its name beside it."""
    tree = write_tree(tmp_path / "tree", subjects=1)
    for name in [*NAMES, FILE_NAME]:
        (tree / name).write_text(name)
    own = described(tree, home)

    files = to_croissant(own, date="2026-01-31")["distribution"]
    crate = to_rocrate(own, date="2026-01-31")["@graph"]

    for ids in ([file["@id"] for file in files], [part["@id"] for part in crate]):
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(r"(?:[\w./~:#-]|%[0-9A-F]{2})+", one, re.ASCII) for one in ids)
    assert {file["name"] for file in files} >= {*NAMES}
    assert all(unquote(file["@id"]) == file["name"] for file in files)


def test_a_crate_without_a_licence_says_that_none_is_stated(tmp_path: Path, home: Path) -> None:
    """The format requires a licence of the root; where nobody has named one, that is what it says."""
    own = described(write_tree(tmp_path / "tree", subjects=1), home)

    graph = to_rocrate(own, date="2026-01-31")["@graph"]

    (root,) = [part for part in graph if part["@id"] == "./"]
    assert own.licence is None
    assert "No licence is stated" in root["license"]
    assert {"name", "description", "datePublished"} <= root.keys()


def test_what_the_catalog_says_for_responsible_ai_keeps_its_model(tmp_path: Path) -> None:
    """The catalog's text is complete, and a field that is missing or unknown is refused."""
    assert load_rai("phantom") is None
    rai = load_rai("verse19")
    assert rai
    value = rai.model_dump()
    with pytest.raises(ValueError, match="data_collection"):
        ResponsibleAI.model_validate({**value, "data_collection": ""})
    with pytest.raises(ValueError, match="data_biases"):
        ResponsibleAI.model_validate(
            {name: v for name, v in value.items() if name != "data_biases"}
        )


def test_the_command_line_prints_and_writes(dataset: Repository, tmp_path: Path) -> None:
    """`provenance` is text or JSON; each export goes to stdout or to a file."""

    def call(*words: str) -> str:
        answer = CliRunner().invoke(app, words)
        assert answer.exit_code == 0, answer.output
        return answer.stdout

    assert f"commit   {dataset.commit()}" in call("provenance", "verse19")
    assert dataset.lock().files[0].annex_key in call("provenance", "verse19", "verse900")
    assert json.loads(call("provenance", "verse19", "--json"))["licence"] == "CC-BY-SA-4.0"
    for name, field in (("prov", "entity"), ("rocrate", "@graph"), ("croissant", "distribution")):
        assert field in json.loads(call("export", name, "verse19"))
        out = tmp_path / f"{name}.json"
        assert call("export", name, "verse19", "verse900", "--out", str(out)) == ""
        assert field in json.loads(out.read_text())
        # The day of the version's commit, and not of the export, which would differ at each run.
        assert name == "prov" or '"datePublished": "2020-01-01"' in out.read_text()
