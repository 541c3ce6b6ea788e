"""What the doctor says of a machine, whole or broken: it never raises, and never shows a secret."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from osf_standin import Node, OsfStandin
from osf_standin.server import forbidden_sockets
from support.trees import write_tree
from typer.testing import CliRunner

from verse_data.cli.main import app
from verse_data.config import resolve
from verse_data.doctor import Check, examine, exit_code
from verse_data.doctor.checks import (
    certificates_check,
    cores_check,
    memory_check,
    packages_check,
    proxy_check,
    shared_memory_check,
)
from verse_data.doctor.places import disk_check, folder_check, release_checks
from verse_data.machine import allowed_cores, memory, memory_limit
from verse_data.releases.repository import Repository
from verse_data.releases.tree import lock_tree

GB = 10**9


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    """Return the checks by name; a warning or problem without a remedy fails the test."""
    assert all(check.remedy or check.state == "ok" for check in checks)
    assert all((check.state == "problem") == bool(check.exit_code) for check in checks)
    return {check.name: check for check in checks}


def test_a_sound_machine_has_no_problem_and_nothing_is_left_on_it(home: Path) -> None:
    """Every part has a line, the report is JSON, and no folder was made."""
    checks = examine(offline=True)
    found = by_name(checks)

    assert exit_code(checks) == 0
    assert {"verse-data", "git", "git-annex", "DataLad", "packages", "disk", "OSF"} <= set(found)
    assert {"cores", "memory", "shared memory", "proxy", "certificates", "stores"} <= set(found)
    assert "2.31 or newer needed" in found["git"].fact
    assert "torch " in found["packages"].fact
    assert str(home) in found["releases folder"].fact
    assert "(VERSE_DATA_HOME)" in found["releases folder"].fact
    assert found["releases"].fact == "none is here; the catalog knows phantom, verse19, verse20"
    assert json.loads(json.dumps([asdict(check) for check in checks]))
    assert not home.exists()
    assert list(home.parent.iterdir()) == []


def test_offline_opens_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of OSF says that it was not asked."""
    with forbidden_sockets(monkeypatch) as tried:
        found = by_name(examine(offline=True))

    assert tried == []
    assert found["OSF"].fact.startswith("not asked: the network is forbidden")


def test_osf_is_asked_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the network is allowed, one small request says whether OSF answers."""
    with OsfStandin(Node("jtfa5")) as osf:
        for name, value in osf.environment.items():
            monkeypatch.setenv(name, value)
        answering = by_name(examine())["OSF"]
        requests = len(osf.seen)
        osf.play("html", host="api")
        portal = by_name(examine())["OSF"]

    assert (answering.state, requests) == ("ok", 1)
    assert portal.state == "warning"
    assert "not JSON" in portal.fact


def test_a_server_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the given seconds the line of OSF says so."""
    with OsfStandin(Node("jtfa5")) as osf:
        for name, value in osf.environment.items():
            monkeypatch.setenv(name, value)
        osf.latency = 600
        found = examine(seconds=0.1)

    assert "no answer for too long" in {check.name: check for check in found}["OSF"].fact


def test_releases_and_stores_have_sizes(tmp_path: Path, home: Path) -> None:
    """Version, lock, files here and bytes; a release that is broken hides no other."""
    tree = write_tree(tmp_path / "tree")
    dataset = Repository(home / "releases" / "lab")
    dataset.publish(lock_tree(tree, release="lab"))
    dataset.adopt([tree / "dataset-phantomtraining" / "rawdata"])
    (home / "releases" / "broken" / ".git").mkdir(parents=True)
    (home / "releases" / "a file").touch()

    found = by_name(examine(offline=True))

    lab = found["release lab"]
    assert lab.fact.startswith(
        f"v1, lock sha256:{dataset.lock().digest[:12]}, 6 of 15 files here, "
    )
    assert lab.state == "ok"
    assert found["release broken"].state == "warning"
    assert found["release broken"].remedy == "verse-data status broken"
    assert found["stores"].fact == "0 stores, 0 bytes"


def test_a_release_of_version_0_1_is_found_where_it_lies(tmp_path: Path) -> None:
    """It lies beside the stores, and is used there; one in the data folder counts too."""
    settings = replace(resolve(root=tmp_path / "cache"), data=tmp_path / "data")
    for folder, name in (("cache", "old"), ("data", "new")):
        lock = lock_tree(write_tree(tmp_path / name, subjects=1), release=name)
        Repository(tmp_path / folder / "releases" / name).publish(lock)

    found = by_name(tuple(release_checks(settings)))

    assert found["release old"].fact.endswith(f"at {tmp_path}/cache/releases/old")
    assert found["release new"].fact.endswith(f"at {tmp_path}/data/releases/new")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://key:s3cret@bucket/verse?sig=s3cret", "s3://bucket/verse"),
        ("{folder}", "{folder}"),
        ("file://localhost{folder}", "file://localhost{folder}"),
    ],
)
def test_shared_stores_are_named_without_keys(
    url: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root that several machines share, as it is set."""
    monkeypatch.setenv("VERSE_DATA_STORES", url.format(folder=tmp_path))
    check = by_name(examine(offline=True))["stores"]

    place = shown.format(folder=tmp_path)
    assert check.fact == f"0 stores, 0 bytes; shared ones at {place} (VERSE_DATA_STORES)"
    assert check.state == "ok"


@pytest.mark.parametrize(
    ("url", "remedy", "code"),
    [
        ("s3://key:s3cret@bucket/verse", "pip install fsspec obstore", 6),
        ("/no/such lab", "mkdir -p '/no/such lab'", 6),
        ("bogus://s3cret@lab", "s3://bucket/prefix", 2),
        ("memory://lab", "s3://bucket/prefix", 2),
        ("lab/stores", "/mnt/lab/stores", 2),
    ],
)
def test_shared_stores_that_cannot_be_used_are_a_problem(
    url: str, remedy: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a package for them, a folder that is there, or a place that can be shared; no socket is opened."""
    for package in ("obstore", "obstore.fsspec", "s3fs"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv("VERSE_DATA_STORES", url)
    with forbidden_sockets(monkeypatch) as tried:
        checks = examine(offline=True)
    check = by_name(checks)["stores"]

    assert (check.state, exit_code(checks)) == ("problem", code)
    assert remedy in check.remedy
    assert "s3cret" not in str(checks)
    assert tried == []


def test_missing_git_is_a_problem_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 6, as every command would end, and what to install."""
    monkeypatch.setenv("PATH", "/nowhere")
    checks = examine(offline=True)

    assert exit_code(checks) == 6
    assert by_name(checks)["git"].remedy.startswith("apt install git")


def test_a_wrong_setting_is_a_problem_and_the_machine_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 2; tools, memory and packages have their lines."""
    monkeypatch.setenv("VERSE_DATA_OFFLINE", "perhaps")
    checks = examine()
    found = by_name(checks)

    assert exit_code(checks) == 2
    assert "'perhaps' is neither a yes nor a no" in found["settings"].fact
    assert found["git"].state == "ok"
    assert "OSF" not in found


def test_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a right token nor one with blanks in it."""
    for token in ("t0ken-canary", "t0ken canary"):
        monkeypatch.setenv("VERSE_DATA_OSF_TOKEN", token)
        assert "canary" not in str(examine(offline=True))


def test_a_root_that_cannot_be_made_is_a_problem(tmp_path: Path) -> None:
    """A folder below a file: exit code 6, with the variable that leads elsewhere."""
    (tmp_path / "file").touch()
    checks = examine(root=tmp_path / "file" / "home", offline=True)

    assert exit_code(checks) == 6
    folder = by_name(checks)["releases folder"]
    assert "(--root) cannot be written" in folder.fact
    assert "VERSE_DATA_HOME" in folder.remedy


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that nobody can write to")
def test_a_folder_that_can_only_be_read_is_a_warning() -> None:
    """What is in it can be served, so nothing is unusable."""
    check = folder_check("releases folder", Path("/proc/self"), origin="--root")

    assert (check.state, check.exit_code) == ("warning", 0)
    assert "existing files can be used" in check.fact


def test_a_package_that_cannot_be_imported_is_a_line() -> None:
    """A broken NumPy is a problem with exit code 6, and everything else is still looked at."""
    script = (
        "import sys; sys.modules['numpy'] = None\n"
        "from verse_data.doctor import examine, exit_code\n"
        "checks = examine(offline=True)\n"
        "print(exit_code(checks), [c.fact for c in checks if c.state == 'problem'])\n"
        "print([c.name for c in checks if c.name in ('git', 'memory', 'proxy')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout.startswith("6 ['numpy cannot be imported")
    assert done.stdout.endswith("['git', 'memory', 'proxy']\n")


def test_the_doctor_imports_no_heavy_package() -> None:
    """Versions are read without an import, so the report is there at once."""
    script = (
        "import sys; from verse_data.doctor import examine; examine(offline=True)\n"
        "print([m for m in ('torch', 'zarr', 'xarray', 'nibabel', 'datalad', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"


def test_packages_that_are_missing_or_old_are_a_problem() -> None:
    """Each is named with what is needed, and the line that mends it."""
    good = packages_check("packages", {"numpy": "1.0", "typer": "0"})
    bad = packages_check("packages", {"numpy": "99.1", "no-such-package": "2", "typer": "0"})

    assert (good.state, good.exit_code) == ("ok", 0)
    assert (bad.state, bad.exit_code) == ("problem", 6)
    assert "(99.1 or newer needed), no-such-package is missing (2 or newer needed)" in bad.fact
    assert bad.remedy == "pip install --upgrade numpy no-such-package"


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [
        ("http://proxy.lab:3128", "http://proxy.lab:3128"),
        ("http://user:s3cret@proxy.lab:3128/", "http://proxy.lab:3128"),
        ("user:s3cret@proxy.lab:3128", "proxy.lab:3128"),
        ("HTTP://user:s3cret/s3cret@proxy.lab", "http://proxy.lab"),
        ("http://user:s3cret?#@s3cret@proxy.lab:1", "http://proxy.lab:1"),
        ("user:s3cret://s3cret@proxy.lab:1", "proxy.lab:1"),
        ("http://proxy.lab:3128?password=s3cret", "http://proxy.lab:3128"),
    ],
)
def test_a_proxy_is_shown_without_its_password(proxy: str, shown: str) -> None:
    """However it is written: with or without a scheme, with marks in the password."""
    check = proxy_check({"https_proxy": proxy, "NO_PROXY": "localhost,.lab"})

    assert check.fact.startswith(f"https_proxy={shown}, NO_PROXY=localhost,.lab")
    assert (check.state == "warning") == proxy.startswith("user:s3cret@")
    assert "s3cret" not in str(check)


@pytest.mark.parametrize(
    ("scheme", "text"),
    [
        ("", "cannot be opened. Nothing was sent. Check how the proxy"),
        ("http://", ": it cannot be"),
    ],
)
def test_an_error_shows_a_proxy_without_its_password(
    scheme: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that does not answer, or is no address, is named by its host."""
    monkeypatch.setenv("HTTPS_PROXY", f"{scheme}user:s3cret@127.0.0.1:9")
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    checks = examine()
    osf = by_name(checks)["OSF"]

    assert osf.state == "warning"
    assert f"through the proxy {scheme}127.0.0.1:9{' ' * (not scheme)}{text}" in osf.fact
    assert "s3cret" not in str(checks)


def test_a_socks_proxy_needs_a_package() -> None:
    """Requests takes one only together with PySocks."""
    check = proxy_check({"ALL_PROXY": "socks5h://user:s3cret@proxy.lab:1080"})

    assert (check.state, check.remedy) == ("warning", "pip install pysocks")
    assert "ALL_PROXY=socks5h://proxy.lab:1080;" in check.fact


def test_certificates_that_are_not_there_are_a_warning(tmp_path: Path) -> None:
    """A variable that names no file makes all of https fail; without one, the bundle of certifi counts."""
    bundle = tmp_path / "ca.pem"
    missing = certificates_check({"REQUESTS_CA_BUNDLE": str(bundle)})
    bundle.touch()

    assert missing.state == "warning"
    assert missing.remedy.startswith("unset REQUESTS_CA_BUNDLE")
    assert certificates_check({"REQUESTS_CA_BUNDLE": str(bundle)}).state == "ok"
    assert certificates_check({}).fact.endswith("cacert.pem")


def control_groups(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Write what the kernel would say of this process's control groups."""
    texts = {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_limits_of_a_container_count(tmp_path: Path) -> None:
    """Version 2 of control groups: the tightest limit on the way up."""
    files = {
        "cpu.max": "max 100000\n",
        "job/cpu.max": "50000 100000\n",
        "job/step/cpu.max": "80000 100000\n",
        "job/memory.max": f"{4 * GB}\n",
        "job/step/memory.max": "max\n",
    }
    root = control_groups(tmp_path, "0::/job/step\n", files)

    assert allowed_cores(root=root) == 0.5
    assert memory_limit(root=root) == 4 * GB


def test_limits_of_old_control_groups_count(tmp_path: Path) -> None:
    """Version 1, where each resource has a tree of its own, and no limit is a huge number."""
    files = {
        "cpu/cpu.cfs_quota_us": "-1\n",
        "cpu/cpu.cfs_period_us": "100000\n",
        "cpu/docker/a/cpu.cfs_quota_us": "25000\n",
        "cpu/docker/a/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/docker/a/memory.limit_in_bytes": f"{2 * GB}\n",
    }
    root = control_groups(tmp_path, "4:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n", files)

    assert allowed_cores(root=root) == 0.25
    assert memory_limit(root=root) == 2 * GB


def test_a_machine_that_says_nothing_has_no_limits(tmp_path: Path) -> None:
    """No control groups, no /proc: what the system calls say."""
    assert memory_limit(root=tmp_path) is None
    assert allowed_cores(root=tmp_path) >= 1
    assert memory(root=tmp_path)
    assert memory_check(None, None, 4).state == "ok"


@pytest.mark.parametrize(
    ("check", "state", "text"),
    [
        (cores_check(8, 8.0), "ok", "8"),
        (cores_check(64, 2.5), "warning", "workers=2"),
        (cores_check(64, 0.5), "warning", "workers=1"),
        (memory_check((64 * GB, 32 * GB), None, 16), "ok", "64.0 GB, 32.0 GB of it free"),
        (memory_check((64 * GB, 32 * GB), 4 * GB, 16), "warning", "--workers 2"),
        (memory_check((2 * GB, GB), None, 2), "warning", "--workers 1"),
        (shared_memory_check(None), "ok", "no /dev/shm"),
        (shared_memory_check(0), "warning", "no /dev/shm that can be written"),
        (shared_memory_check(64 << 20), "warning", "--shm-size=8g"),
        (shared_memory_check(8 << 30), "ok", "8.6 GB at /dev/shm"),
        (disk_check("disk", 30 * GB, needed=24 * GB), "ok", "30.0 GB free"),
        (disk_check("disk", 3 * GB, needed=24 * GB), "warning", "cache prune"),
    ],
)
def test_little_of_anything_is_a_warning_that_says_what_then(
    check: Check, state: str, text: str
) -> None:
    """Enough is ok; too little has a number to give or a line to type."""
    assert check.state == state
    assert text in f"{check.fact} {check.remedy}"
    assert bool(check.remedy) == (state == "warning")


def test_the_command_prints_a_line_each_and_ends_with_the_code(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """State, name and fact; below a problem what to type; the counts stand on stderr."""
    sound = CliRunner().invoke(app, ["doctor", "--offline"])
    monkeypatch.setenv("PATH", "/nowhere")
    broken = CliRunner().invoke(app, ["doctor", "--offline"])
    as_json = CliRunner().invoke(app, ["doctor", "--offline", "--json"])

    assert (sound.exit_code, broken.exit_code, as_json.exit_code) == (0, 6, 6)
    assert "ok       git               2" in sound.stdout
    assert "problem  git               git is not installed" in broken.stdout
    assert f"\n{' ' * 27}-> apt install git" in broken.stdout
    assert broken.stderr.startswith("1 problem, ")
    assert json.loads(as_json.stdout)["exit_code"] == 6
