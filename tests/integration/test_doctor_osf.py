"""``verse-data doctor --osf`` against the stand-in: what differs is named, and no secret is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from osf_standin import FakeClock, Node, OsfStandin, listings
from osf_standin.server import forbidden_sockets
from typer.testing import CliRunner, Result

from verse_data.cli.main import app
from verse_data.errors import Offline
from verse_data.releases.osf_probe import OsfReport, report_on_osf

TREE = {"training/rawdata/sub-a/a_ct.json": b"{}", "training/rawdata/sub-a/a_ct.nii.gz": b"12345"}


@pytest.fixture
def osf(monkeypatch: pytest.MonkeyPatch) -> Iterator[OsfStandin]:
    """Run a stand-in with two files, three folders deep, and a component."""
    node = Node("jtfa5", components=[Node("abcde", title="MICCAI")])
    for path, content in TREE.items():
        node.upload(path, content)
    with OsfStandin(node) as standin:
        for name, value in standin.environment.items():
            monkeypatch.setenv(name, value)
        yield standin


def report() -> OsfReport:
    """Ask with a clock that nobody waits for."""
    return report_on_osf(clock=FakeClock())


def states(found: OsfReport) -> dict[str, str]:
    """Return the state of each question."""
    return {answer.question: answer.state for answer in found.answers}


def run(*words: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["doctor", "--osf", *words])


@pytest.mark.parametrize("modern", [False, True])
def test_answers_as_expected_are_ok(osf: OsfStandin, modern: bool) -> None:  # noqa: FBT001
    """Either form of the API; about ten requests, each through the client."""
    osf.modern = modern
    found = report()

    assert states(found) == {
        "components of the node": "ok",
        "root folder, API": "ok",
        "a folder with files, WaterButler": "ok",
        "the same folder, API": "ok",
        "both routes": "ok",
        "hashes of one file": "ok",
        "one byte of it": "ok",
    }
    assert not any(answer.wrong or answer.new for answer in found.answers)
    assert found.exit_code == 0
    assert len(osf.seen) == 10
    ranges = [seen.headers.get("range") for seen in osf.seen if seen.host == "bucket"]
    assert ranges == ["bytes=0-0"]


def test_the_questions_keep_to_the_pace(osf: OsfStandin) -> None:
    """No more than three listings a second leave, as for a walk."""
    clock = FakeClock()
    osf.now = clock.monotonic
    report_on_osf(clock=clock)
    times = [seen.at for seen in osf.seen if "/files/" in seen.path and seen.host == "api"]

    assert all(later - first >= 1.0 for first, later in zip(times, times[3:], strict=False))


def test_a_private_node_is_a_problem(osf: OsfStandin) -> None:
    """401: exit code 4, as a walk would end."""
    osf.nodes["jtfa5"].public = False
    answer = run()

    assert answer.exit_code == 4
    assert "problem  components of the node" in answer.stdout
    assert "status 401: it is not public" in answer.stdout


@pytest.mark.parametrize(
    ("host", "question"),
    [
        ("api", "components of the node"),
        ("storage", "a folder with files, WaterButler"),
        ("bucket", "one byte of it"),
    ],
)
def test_a_web_page_in_place_of_an_answer_is_a_problem(
    osf: OsfStandin, host: str, question: str
) -> None:
    """Exit code 5; what does not hang on it is asked all the same."""
    osf.play("html", host=host)
    found = report()

    assert states(found)[question] == "problem"
    assert found.exit_code == 5
    if host == "storage":
        assert states(found)["a folder with files, API"] == "ok"


def test_missing_hashes_are_a_problem(osf: OsfStandin) -> None:
    """No lock can be made of them: exit code 4, and which are missing."""
    osf.file(osf.nodes["jtfa5"].find("training/rawdata/sub-a/a_ct.json").id)[1].hashed = False  # type: ignore[index]
    answer = run()

    assert answer.exit_code == 4
    assert "no sha256, md5; without it no lock can be made" in answer.stdout


def change_rows(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]) -> None:
    """Let the stand-in's API give other rows."""
    own = listings.api_row

    def changed(*arguments: Any) -> dict[str, Any]:
        row = own(*arguments)
        change(row["attributes"])
        return row

    monkeypatch.setattr(listings, "api_row", changed)


def as_text(attributes: dict[str, Any]) -> None:
    """Write the size as a text."""
    if attributes["size"] is not None:
        attributes["size"] = str(attributes["size"])


def as_list(attributes: dict[str, Any]) -> None:
    """Write the size as a list."""
    attributes["size"] = [attributes["size"]]


def test_a_field_of_another_type_is_named(osf: OsfStandin, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client can read is a warning; what it cannot is a problem, with the same field."""
    change_rows(monkeypatch, as_text)
    readable = {answer.question: answer for answer in report().answers}["the same folder, API"]
    change_rows(monkeypatch, as_list)
    unreadable = {answer.question: answer for answer in report().answers}["the same folder, API"]

    assert readable.state == "warning"
    assert readable.wrong == ("data.attributes.size: int_type (2 rows)",)
    assert unreadable.state == "problem"
    assert "not a listing of OSF: data.0.attributes.size" in unreadable.fact


def test_missing_and_new_fields_are_named_without_values(
    osf: OsfStandin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New fields are listed and harmless; names that are no plain words are escaped and cut."""

    def change(attributes: dict[str, Any]) -> None:
        attributes.pop("kind")
        attributes |= {"checksum": {"blake3": "s3cret"}, "\x1b[31m" + "x" * 500: "s3cret"}

    change_rows(monkeypatch, change)
    answer = run()

    assert "data.attributes.kind: missing (1 row)" in answer.stdout
    assert "checksum" in answer.stdout
    assert "\x1b" not in answer.stdout
    assert "x" * 100 not in answer.stdout
    assert "s3cret" not in answer.stdout


def test_routes_that_differ_are_a_problem(osf: OsfStandin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock made over one route would not be the lock made over the other."""
    change_rows(monkeypatch, lambda attributes: attributes.update(name=attributes["name"] + "~"))

    assert states(report())["both routes"] == "problem"


def test_a_server_without_ranges_is_a_warning(osf: OsfStandin) -> None:
    """Downloads work, and start anew when they break."""
    osf.play("ignore_range")
    found = report()

    assert states(found)["one byte of it"] == "warning"
    assert found.exit_code == 0


def test_an_empty_node_is_said_to_be_empty(osf: OsfStandin) -> None:
    """Nothing is there whose hashes or bytes could be asked for."""
    osf.nodes["jtfa5"] = Node("jtfa5")

    assert [answer.fact for answer in report().answers] == [
        "0 components",
        "empty",
        "0 files, 0 folders",
    ]


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_the_report_holds_no_secret_and_no_path(
    osf: OsfStandin, monkeypatch: pytest.MonkeyPatch, home: Any, words: tuple[str, ...]
) -> None:
    """No token, no signature, no file's name, no folder of this machine; the token went to the API alone."""
    monkeypatch.setenv("VERSE_DATA_OSF_TOKEN", "t0ken-canary")
    answer = run(*words)

    assert answer.exit_code == 0
    assert "sent to the api" in answer.stdout
    for secret in ("t0ken-canary", "Signature", "Expires", "a_ct", str(home)):
        assert secret not in answer.output
    assert {seen.host for seen in osf.seen if seen.token} == {"api"}


def test_json_is_all_that_stands_on_stdout(osf: OsfStandin) -> None:
    """The same answers, for programs."""
    answer = run("--json")
    facts = json.loads(answer.stdout)

    assert facts["exit_code"] == 0
    assert facts["about"]["node"] == "jtfa5"
    assert {row["state"] for row in facts["answers"]} == {"ok"}


def test_offline_asks_nothing(osf: OsfStandin, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--osf`` where the network is forbidden is the error that it is everywhere."""
    with forbidden_sockets(monkeypatch) as tried, pytest.raises(Offline):
        report_on_osf(offline=True)

    assert tried == []
    assert osf.seen == []
