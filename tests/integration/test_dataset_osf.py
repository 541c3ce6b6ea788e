"""From a node of the stand-in to files here: lock, get, versions, processes, offline."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from osf_standin import Node, OsfStandin
from osf_standin.server import forbidden_sockets
from support.calls import call
from typer.testing import CliRunner, Result

from verse_data.cli.main import app
from verse_data.config import Config
from verse_data.errors import ContentMissing, DownloadCorrupt, Offline, SourceChanged
from verse_data.records.lock import LockedFile, ReleaseLock
from verse_data.releases.environment import tool_environment
from verse_data.releases.fetch import FetchLog
from verse_data.releases.repository import Repository

ROLES = (
    ("rawdata", "ct.nii.gz"),
    ("rawdata", "ct.json"),
    ("derivatives", "seg-vert_msk.nii.gz"),
    ("derivatives", "seg-subreg_ctd.json"),
)
STARTS = {"gz": b"\x1f\x8b", "json": b"[]"}


def fill(node: Node, *, subjects: int = 4, size: int = 3000) -> None:
    """Upload a few files a subject."""
    for number in range(subjects):
        for kind, suffix in ROLES:
            name = f"sub-verse{900 + number}"
            noise = random.Random(f"{name}{suffix}").randbytes(size)
            path = f"dataset-labtraining/{kind}/{name}/{name}_{suffix}"
            node.upload(path, STARTS[suffix.rpartition(".")[2]] + noise)


@dataclass
class Lab:
    """A stand-in whose node is the release `lab`, and the dataset of it."""

    osf: OsfStandin
    node: Node
    dataset: Repository

    def call(self, *words: str | Path) -> Result:
        """Run one command."""
        return CliRunner().invoke(app, [str(word) for word in words])

    def lock(self) -> dict[str, object]:
        """Walk the node, and make a version of it."""
        answer = self.call("lock", "lab", "--node", "jtfa5", "--json")
        assert answer.exit_code == 0, answer.output
        return json.loads(answer.stdout)


@pytest.fixture
def lab(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Serve a node, and lock it."""
    node = Node("jtfa5")
    fill(node)
    with OsfStandin(node) as osf:
        for name, value in osf.environment.items():
            monkeypatch.setenv(name, value)
        lab = Lab(osf, node, Repository(home / "releases" / "lab"))
        assert lab.lock()["version"] == "v1"
        yield lab


def downloads(lab: Lab) -> int:
    """Return how many times bytes were asked of the bucket."""
    return lab.osf.count("bucket")


def test_get_brings_what_is_missing_and_nothing_twice(lab: Lab) -> None:
    """Verified contents come into the dataset once, and git-annex knows of them."""
    before = downloads(lab)

    first = lab.call("get", "lab", "--json")
    again = lab.call("get", "lab", "--json")

    assert json.loads(first.stdout)["fetched"] == 16
    assert json.loads(again.stdout)["present"] == 16
    assert downloads(lab) - before == 16
    assert json.loads(lab.call("verify", "lab", "--level", "hash", "--json").stdout) == []
    assert call(lab.dataset.path, "git-annex", "find", "--not", "--in", "here") == ""
    assert "fail" not in call(lab.dataset.path, "git-annex", "fsck", "--quiet")
    lines = FetchLog(lab.dataset.path).read()
    assert len(lines) == 16
    assert {line["engine"] for line in lines} == {"http"}
    assert all(
        line["ok"] and line["bytes"] > 0 and "Signature" not in line["url"] for line in lines
    )
    assert {line["source"] for line in lines} == {"web"}


@pytest.mark.parametrize("setting", ["annex.verify", "remote.web.annex-verify"])
def test_no_setting_of_the_user_lets_wrong_bytes_in(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """Whoever switched git-annex's verification off gets no unverified file; git-annex, the control, gives one."""
    (tmp_path / "gitconfig").write_text("")
    call(tmp_path, "git", "config", "--file", "gitconfig", setting, "false")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    lab.osf.play("flip")
    file, other = lab.dataset.lock().files[:2]

    (failure,) = lab.dataset.fetch([file]).failed

    assert failure.error_class is DownloadCorrupt
    assert not lab.dataset.object_path(file).exists()
    assert [line["ok"] for line in FetchLog(lab.dataset.path).read()] == [False]
    near = ("-c", "annex.security.allowed-ip-addresses=127.0.0.1")
    call(lab.dataset.path, "git-annex", "get", *near, "--quiet", f"--key={other.annex_key}")
    content = lab.dataset.object_path(other).read_bytes()
    assert hashlib.sha256(content).hexdigest() != other.sha256


def test_get_takes_only_what_is_chosen(lab: Lab) -> None:
    """Options narrow by subject, scan and role; a dry run says how much would come, and brings nothing."""
    plan = json.loads(lab.call("get", "lab", "--subject", "verse901", "--dry-run", "--json").stdout)

    assert plan["files"] == 4
    assert plan["bytes"] == sum(f.size for f in lab.dataset.lock().files if "verse901" in f.path)
    assert lab.call("get", "lab", "--scan", "verse901", "--role", "mask").exit_code == 0
    assert [f.path for f in lab.dataset.lock().files if lab.dataset.has(f)] == [
        "dataset-labtraining/derivatives/sub-verse901/sub-verse901_seg-vert_msk.nii.gz"
    ]
    offline = lab.call("get", "lab", "--subject", "verse901", "--dry-run", "--offline")
    assert offline.stdout == "0 of 4 files would come, 0 bytes\n"
    assert offline.stderr == "3 need the network, which is forbidden (offline)\n"
    assert "'masks' is none of ct, " in lab.call("get", "lab", "--role", "masks").stderr


def test_a_later_walk_makes_a_version_only_if_content_changed(lab: Lab) -> None:
    """The same node again is v1; a changed, a new and a deleted file are v2, and diff names them."""
    assert lab.lock()["version"] == "v1"
    files = {file.path.rpartition("/")[2]: file.path for file in lab.dataset.lock().files}
    lab.node.upload(files["sub-verse900_seg-vert_msk.nii.gz"], b"\x1f\x8bnew mask")
    lab.node.upload(
        "dataset-labtraining/rawdata/sub-verse904/sub-verse904_ct.nii.gz", b"\x1f\x8bct"
    )
    lab.node.delete(files["sub-verse901_ct.nii.gz"])

    assert lab.lock()["version"] == "v2"

    lines = lab.call("diff", "lab", "v1", "v2").stdout.splitlines()
    away = "not compared, as the contents of"
    assert lines == [
        "mask of verse900 changed (3,002 to 10 bytes)",
        "CT of verse901 disappeared (3,002 bytes)",
        "CT of verse904 appeared (4 bytes)",
        f"{away} v1 are not here: mask (1). Get them: verse-data get lab --role mask --version v1",
        f"{away} v2 are not here: mask (1). Get them: verse-data get lab --role mask",
    ]
    assert lab.call("diff", "lab", "v1", "v1").stdout == "no difference\n"


def test_what_v2_lacks_is_served_from_v1_if_it_was_fetched(lab: Lab) -> None:
    """A file that upstream deleted is read from v1 where it is here, and named where it is not."""
    names = ["sub-verse900_ct.nii.gz", "sub-verse901_ct.nii.gz"]
    fetched, missed = (
        f for f in lab.dataset.lock("v1").files if f.path.rpartition("/")[2] in names
    )
    assert lab.dataset.fetch([fetched]).failed == ()
    for file in (fetched, missed):
        lab.node.delete(file.path)
    assert lab.lock()["version"] == "v2"

    assert len(lab.dataset.source(lab.dataset.lock("v1").by_path[fetched.path]).read()) == 3002
    (failure,) = lab.dataset.fetch([missed]).failed
    assert failure.error_class is SourceChanged
    assert "the server no longer has it" in str(failure.error)
    assert "Versions of lab after v1 no longer have this content" in str(failure.error)
    assert "verse-data adopt lab PATH --version v1" in str(failure.error)


def test_offline_opens_no_socket_and_lists_what_is_missing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the network: reading works, and getting says what is missing and how much it is."""
    monkeypatch.setenv("VERSE_DATA_OFFLINE", "1")
    with forbidden_sockets(monkeypatch) as opened:
        dataset = Repository(lab.dataset.path)
        files = dataset.lock().files
        with pytest.raises(Offline, match=r"16 files \(48,032 bytes\).*offline") as caught:
            dataset.fetch(files)
        assert files[0].path in str(caught.value)
        assert lab.call("status", "lab").exit_code == 0
        assert lab.call("verify", "lab", "--level", "presence").exit_code == 4
        assert isinstance(lab.call("lock", "lab", "--node", "jtfa5").exception, Offline)
    assert opened == []


# Programs of their own: a process that is forked beside the server's threads may inherit a lock that
# one of them holds, and wait for it for ever.
GET_ALL = """
import sys
from pathlib import Path
from verse_data.releases.repository import Repository
dataset = Repository(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
report = dataset.fetch(dataset.lock().files, jobs=2)
print(len(report.failed), len(report.fetched), report.bytes)
"""


def test_eight_processes_make_one_download_each(lab: Lab) -> None:
    """Eight processes that want the same sixteen files: sixteen downloads in all, and none fails."""
    before = downloads(lab)
    lab.osf.latency = 0.02
    command = [sys.executable, "-c", GET_ALL, str(lab.dataset.path)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * 8
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    try:
        said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    answers = [tuple(map(int, words.split())) for words in said]

    assert [failed for failed, _, _ in answers] == [0] * 8
    assert downloads(lab) - before == 16
    assert sum(size for _, _, size in answers) == 16 * 3002
    assert sum(fetched for _, fetched, _ in answers) == 16  # who waited has fetched nothing
    assert all(lab.dataset.has(file) for file in lab.dataset.lock().files)


def test_control_a_second_plain_get_fails_instead_of_waiting(lab: Lab) -> None:
    """Plain git-annex fails a process that asks for a key which another one is getting."""
    lab.osf.hold_at, before = 0, downloads(lab)
    command = ["git-annex", "get", f"--key={lab.dataset.lock().files[0].annex_key}"]
    command += ["-c", "annex.security.allowed-ip-addresses=127.0.0.1"]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, cwd=lab.dataset.path, env=tool_environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    with start() as one:
        while one.poll() is None and downloads(lab) == before:
            time.sleep(0.01)
        with start() as other:
            assert other.wait() == 1
        lab.osf.hold_at = None
        assert one.wait() == 0


def test_drop_asks_first_and_keeps_what_cannot_be_had_again(lab: Lab) -> None:
    """A file that the server still has is removed; one that it lost is kept, and the reason is said."""
    assert lab.call("get", "lab", "--role", "mask").exit_code == 0
    masks = [file for file in lab.dataset.lock().files if lab.dataset.has(file)]
    lab.node.delete(masks[0].path)

    answer = lab.call("drop", "lab", "--role", "mask")

    assert answer.exit_code == 4
    assert [lab.dataset.has(mask) for mask in masks] == [True, False, False, False]
    assert masks[0].path in answer.stderr
    assert isinstance(lab.call("drop", "lab", "--role", "mask", "--offline").exception, Offline)
    assert lab.call("drop", "lab", "--unchecked").exit_code == 0
    assert not any(lab.dataset.has(mask) for mask in masks)


def test_verify_finds_each_kind_of_damage_with_the_command_that_mends_it(lab: Lab) -> None:
    """A missing, a cut and a flipped object are three findings; their command brings them back."""
    assert lab.call("get", "lab").exit_code == 0
    files = lab.dataset.lock().files
    for file, damage in zip(files, ("gone", "cut", "flip"), strict=False):
        path = lab.dataset.object_path(file)
        path.parent.chmod(0o755)
        path.chmod(0o644)
        data = path.read_bytes()
        spoilt = {"gone": None, "cut": data[:-1], "flip": data[:-1] + bytes([data[-1] ^ 1])}[damage]
        if spoilt is None:
            path.unlink()
        else:
            path.write_bytes(spoilt)

    def rules(level: str) -> list[str]:
        found = json.loads(lab.call("verify", "lab", "--level", level, "--json").stdout)
        return [f["rule"] for f in found]

    assert rules("presence") == ["missing"]
    assert rules("size") == ["missing", "wrong-size"]
    assert rules("hash") == ["missing", "wrong-size", "corrupt"]
    assert lab.call("drop", "lab", "--corrupt").exit_code == 0
    assert lab.call("get", "lab").exit_code == 0
    assert rules("hash") == []


def without_address(lab: Lab) -> str:
    """Make a version with a workbook that nobody serves, and return its path."""
    lock, path = lab.dataset.lock(), "phantom_grading.xlsx"
    extra = LockedFile(path=path, size=7, sha256="a" * 64)
    files = tuple(sorted((*lock.files, extra), key=lambda file: file.path))
    new = ReleaseLock(release=lock.release, source=lock.source, files=files)
    assert lab.dataset.publish(new) == "v2"
    return path


def test_a_file_that_nobody_serves_is_to_adopt_and_no_failure(lab: Lab) -> None:
    """Getting the release ends well and names the way; asking for that very file is an error."""
    path = without_address(lab)

    answer = lab.call("get", "lab")

    assert answer.exit_code == 0, answer.output
    assert "16 fetched" in answer.stdout
    assert "0 failed" in answer.stdout
    assert (
        f"1 to adopt, as they have no address ({path}): verse-data adopt lab PATH\n"
        in answer.stderr
    )
    assert json.loads(lab.call("get", "lab", "--json").stdout)["to_adopt"] == [path]
    assert lab.call("get", "lab", "--scan", "verse900").exit_code == 0
    asked = lab.call("get", "lab", "--role", "grading")
    assert isinstance(asked.exception, ContentMissing)
    assert "1 of 1 files could not be fetched:" in str(asked.exception)
    assert "verse-data adopt lab PATH" in str(asked.exception)
    offline = lab.call("get", "lab", "--offline")
    assert (offline.exit_code, "1 to adopt" in offline.stderr) == (0, True)
    status = lab.call("status", "lab")
    assert "Fetch the rest" not in status.stderr
    assert "1 to adopt" in status.stderr


def test_the_commands_that_mend_name_version_and_root(lab: Lab, tmp_path: Path) -> None:
    """What verify and status say to type fits an older version, and another cache root."""
    lost = lab.dataset.lock().files[0]
    lab.node.delete(lost.path)
    assert lab.lock()["version"] == "v2"
    said = lab.call("verify", "lab", "--version", "v1", "--level", "presence", "--json")
    commands = {row["path"]: row["command"] for row in json.loads(said.stdout)}

    assert lost.path in commands
    assert set(commands.values()) == {"verse-data get lab --version v1"}
    assert (
        "verse-data get lab --version v1\n" in lab.call("status", "lab", "--version", "v1").stderr
    )
    root = tmp_path / "other root"
    assert lab.call("lock", "lab", "--node", "jtfa5", "--root", root).exit_code == 0
    status = lab.call("status", "lab", "--root", root)
    assert f"verse-data get lab --root '{root}'\n" in status.stderr


def test_a_mirror_on_a_private_network_is_allowed_for_our_calls_alone(lab: Lab) -> None:
    """The address of a configured loopback endpoint is allowed by option, and nothing is configured."""
    config = (lab.dataset.path / ".git" / "config").read_text()

    assert "allowed-ip-addresses" not in config
    assert isinstance(lab.dataset.config, Config)
    file: LockedFile = lab.dataset.lock().files[0]
    assert lab.dataset.fetch([file]).failed == ()
