"""The explorer's server: who is answered, with what, and what it costs to ask again."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import verse_data as vd
from tests.support.command import verse_data
from tests.support.pictures import store as write_store
from verse_data import phantom
from verse_data.api import lock_tree
from verse_data.errors import UsageError
from verse_data.explorer import cuts
from verse_data.explorer.prepare import describe
from verse_data.explorer.server import FILES, PAGE, Server
from verse_data.files import digest_file
from verse_data.spine.geometry import voxel_sizes
from verse_data.volumes.layout import MANIFEST_KEY
from verse_data.volumes.nifti import read_image
from verse_data.volumes.reader import ScanReader, close_all

pytestmark = pytest.mark.usefixtures("one_core")
Ask = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture
def ask(explorer: Server) -> Ask:
    """Return what the explorer answers to a request with its cookie, or with other headers."""

    def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        sent = {"Cookie": f"{explorer.cookie_name}={explorer.cookie}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", explorer.server_port, timeout=30)
        connection.putrequest(method, path, skip_host="Host" in sent)
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), content

    return ask


@pytest.fixture
def ready(ask: Ask) -> Callable[[str], dict[str, Any]]:
    """Return what is known of a scan, once it is ready or has failed."""

    def ready(scan_id: str, query: str = "") -> dict[str, Any]:
        state = json.loads(ask(f"/scan/{scan_id}{query}")[2])
        while state["state"] == "working":
            time.sleep(0.02)
            state = json.loads(ask(f"/scan/{scan_id}")[2])
        return dict(state)

    return ready


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": ""},
        {"Cookie": "verse_data_1=x"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
    ids=str,
)
def test_strangers_get_403(ask: Ask, headers: dict[str, str]) -> None:
    """Without the cookie, from another origin, or under another name, nothing is told."""
    for path in ("/", "/facts", "/scan/verse901"):
        status, _, content = ask(path, **headers)

        assert status == 403
        assert b"verse901" not in content


def test_the_token_of_the_address_works_once(explored: Path) -> None:
    """It becomes a cookie that scripts cannot read, and is gone from the address."""
    server = Server(vd.open_release("phantom", root=explored))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = server.url.partition(str(server.server_port))[2]
    found = []
    for query in (path, path, "/?token=wrong", "/?token=%C3%A9"):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        connection.request("GET", query)
        answer = connection.getresponse()
        found.append((answer.status, answer.getheader("Location"), answer.getheader("Set-Cookie")))
        answer.read()
        connection.close()
    server.shutdown()
    server.server_close()

    assert found[0][:2] == (303, "/")
    assert found[0][2].endswith("; Path=/; HttpOnly; SameSite=Strict")
    assert found[1:] == [(403, None, None)] * 3


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/page/../server.py",
        "/vendor/../../server.py",
        "/vendor/%2e%2e/%2e%2e/server.py",
        "//etc/passwd",
        "/vendor/pinned.json",
        "/scan/verse999",
        "/scan/..%2f..%2fetc",
        "/scan/verse901/ct",
        "/nothing",
    ],
)
def test_what_is_not_listed_is_not_there(ask: Ask, path: str) -> None:
    """Files are an allow-list and scans are those of the release, however a path is spelled."""
    assert ask(path)[0] == 404


def test_a_stranger_s_broken_address_leaves_no_trace_on_the_terminal(
    ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    """It is refused as any other, before the cookie is asked for, and nothing is logged."""
    assert ask("http://[::1", Host="127.0.0.1", Cookie="")[0] == 400
    assert ask("http://[::1", Host="evil.example")[0] == 403
    assert not caplog.records


def test_the_page_may_load_only_its_own_files(ask: Ask) -> None:
    """Every answer forbids other hosts, frames and guesses of types."""
    for name in ("", *FILES):
        status, headers, content = ask(f"/{name}")
        policy = headers["Content-Security-Policy"]

        assert (status, headers["X-Content-Type-Options"]) == (200, "nosniff")
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert content == (PAGE / (name or "index.html")).read_bytes()


def test_facts_are_the_tables(ask: Ask, explored: Path) -> None:
    """Cells, missing ones too, are those of the release; its licence and digest come along."""
    facts = json.loads(ask("/facts")[2])
    release = vd.open_release("phantom", root=explored)

    for name in ("vertebrae", "scans", "subjects"):
        rows, shown = getattr(release, name), facts["tables"][name]
        assert list(shown["cells"]) == [column["name"] for column in shown["columns"]]
        for column in rows.columns:
            kept = rows[column].astype(object).where(rows[column].notna(), None).tolist()
            for here, there in zip(shown["cells"][column], kept, strict=True):
                assert here == (
                    pytest.approx(there, abs=1e-6) if isinstance(there, float) else there
                )
    assert facts["release"]["lock"] == f"sha256:{release.lock.digest}"
    assert facts["release"]["note"] == "phantom, not a patient"
    assert facts["workbook"]["columns"]["T12"].isalpha()


def test_a_condition_selects_the_rows_that_the_package_selects(ask: Ask, explored: Path) -> None:
    """By the number of the row; on each table."""
    rows = vd.open_release("phantom", root=explored).select("grade >= 2")

    told = json.loads(ask("/select?table=vertebrae&where=grade%20%3E%3D%202")[2])
    assert told == {"rows": rows.index.tolist()}
    assert json.loads(ask("/select?table=subjects&where=n_scans%3D%3D2")[2]) == {"rows": [1]}


def test_a_refused_condition_points_at_the_place(ask: Ask) -> None:
    """With the package's own text, which is an answer and no fault."""
    status, _, content = ask("/select?table=vertebrae&where=grad%20%3E%3D%202")

    assert status == 200
    error = json.loads(content)["error"]
    assert "Did you mean 'grade'" in error or "grade" in error
    assert error.splitlines()[-1].strip("^ ") == ""


def test_a_scan_is_converted_when_it_is_asked_for(
    ask: Ask, ready: Callable[..., dict[str, Any]], explored: Path
) -> None:
    """Its volumes are those of the store: whole, or a box around a point, with their place in space."""
    assert ask("/scan/verse903/image")[0] == 409
    about = ready("verse903")
    [store] = vd.open_release("phantom", root=explored).build_cache(["verse903"]).values()
    reader = ScanReader(store)
    label, point = next(iter(about["centroids"].items()))
    x, y, z = point

    assert (about["state"], about["shape"]) == ("ready", list(reader.shape))
    value = json.loads(ask(f"/value?scan=verse903&x={x}&y={y}&z={z}")[2])
    image, labels = reader.read(cuts.Box.around(value["voxel"], (1, 1, 1)))
    assert (value["hu"], value["label"]) == (image.item(), labels.item())
    assert value["label"] == int(label)
    status, headers, content = ask(f"/scan/verse903/image?x={x}&y={y}&z={z}")
    assert (status, headers["Content-Type"]) == (200, "application/octet-stream")
    whole = ask("/scan/verse903/image")[2]
    path = explored / "cut.nii"
    path.write_bytes(whole)
    volume = read_image(path, name="cut")
    np.testing.assert_allclose(volume.affine, reader.affine, atol=1e-4)
    assert (volume.array == reader.read(cuts.Box.whole(reader.shape))[0]).all()
    assert len(content) <= len(whole)


@pytest.mark.parametrize("query", ["x=1&y=2", "x=a&y=1&z=1", "x=nan&y=1&z=1", "x=1&y=1&z=inf"])
def test_a_point_is_three_numbers(
    ask: Ask, ready: Callable[..., dict[str, Any]], query: str
) -> None:
    """Anything else is refused with what a point is."""
    ready("verse903")
    status, _, content = ask(f"/scan/verse903/image?{query}")

    assert (status, content) == (400, b"A point is x, y and z in mm.")


def test_an_etag_says_what_is_served_and_how(
    ask: Ask, ready: Callable[..., dict[str, Any]]
) -> None:
    """Asked again, nothing is sent; another view has another one."""
    ready("verse903")
    paths = ["/facts", "/", "/scan/verse903/image", "/scan/verse903/image?x=0&y=0&z=0"]
    paths += ["/scan/verse903/label", "/scan/verse903/image?x=0&y=0&z=1"]
    tags = [ask(path)[1]["ETag"] for path in paths]

    assert len(set(tags)) == len(tags)
    for path, tag in zip(paths, tags, strict=True):
        status, headers, content = ask(path, If_None_Match=tag)
        assert (status, headers["ETag"], content) == (304, tag, b"")


def test_a_damaged_store_says_what_is_wrong_and_is_built_again(
    ask: Ask, ready: Callable[..., dict[str, Any]], explored: Path
) -> None:
    """The error is the store's own; after the repair that it names, the scan can be seen."""
    release = vd.open_release("phantom", root=explored)
    [store] = release.build_cache(["verse904"]).values()
    manifest = store / MANIFEST_KEY
    manifest.write_bytes(manifest.read_bytes().replace(b"verse904", b"verse905"))
    close_all()
    failed = ready("verse904")

    assert failed["state"] == "failed"
    assert "verse-data cache verify --repair" in failed["error"]
    assert verse_data("cache", "verify", "--repair", "--root", str(explored)).returncode == 0
    assert ready("verse904", "?again=1")["state"] == "ready"


def test_a_damaged_voxel_is_mended_while_the_explorer_runs(
    ask: Ask, ready: Callable[..., dict[str, Any]], explored: Path
) -> None:
    """A store that is open already is opened anew after the repair, when the page asks again."""
    assert ready("verse901")["state"] == "ready"
    [store] = vd.open_release("phantom", root=explored).build_cache(["verse901"]).values()
    shard = store / "image/c/0/0/0"
    content = shard.read_bytes()
    shard.chmod(0o644)
    shard.write_bytes(content.replace(content[1000:2000], bytes(1000)))
    close_all()
    status, _, content = ask("/scan/verse901/image")
    assert (status, b"verse-data cache verify --repair" in content) == (422, True)
    assert verse_data("cache", "verify", "--repair", "--root", str(explored)).returncode == 0
    assert ready("verse901", "?again=1")["state"] == "ready"
    assert ask("/scan/verse901/image")[0] == 200


def test_a_mask_without_centroids_still_leads_to_its_vertebrae(tmp_path: Path) -> None:
    """Their places are guessed from the mask, and said to be; a centroid is not guessed."""
    label = np.zeros((40, 40, 60), np.uint8)
    label[10:30, :, 5:20], label[10:30, :, 30:45] = 21, 20
    part = write_store(tmp_path / "a", 100.0 * label, label, {20: (20, 20, 37)}, np.eye(4))
    about = describe(ScanReader(part))
    assert (list(about["centroids"]), list(about["guessed"])) == ([20], [21])
    assert label[tuple(np.rint(about["guessed"][21]).astype(int))] == 21


def test_offline_a_scan_that_is_not_here_says_how_to_get_it(tmp_path: Path) -> None:
    """The page shows the package's own text."""
    tree = phantom.write(tmp_path / "tree", n_subjects=4, shape=(32, 64, 24))
    lock_tree("phantom", tree, root=tmp_path)
    release = vd.open_release("phantom", root=tmp_path, offline=True)
    ct = release.path("verse901", "ct")
    ct.parent.chmod(0o755)
    ct.unlink()
    server = Server(release)
    while (state := server.scans.state("verse901"))["state"] == "working":
        time.sleep(0.02)
    server.server_close()

    assert state["state"] == "failed"
    assert "verse-data adopt phantom" in state["error"]


@pytest.mark.parametrize(("voxels", "factor"), [((100, 100, 100), 1), ((512, 512, 400), 4)])
def test_a_whole_scan_has_as_many_voxels_as_a_browser_bears(
    voxels: tuple[int, int, int], factor: int
) -> None:
    """Small scans are shown as they are, large ones by a coarser level of their store."""
    assert cuts.factor_of(voxels) == factor


@pytest.mark.parametrize("size", [0.3, 0.8, 3.0])
def test_a_box_is_120_mm_unless_its_voxels_are_too_many(size: float) -> None:
    """It holds its point, lies within the scan, and a point outside gives the nearest voxels."""
    shape, affine = (512, 512, 400), np.diag([size, size, size, 1.0])
    for at in ((150.0, 150.0, 100.0), (-900.0, 0.0, 5000.0)):
        box = cuts.box_around(shape, affine, at)
        assert box.clipped(shape) == box
        assert np.prod(box.shape) <= 1.01 * cuts.BOX_VOXELS
        assert min(box.shape) > 0
        assert max(np.multiply(box.shape, voxel_sizes(affine))) <= cuts.BOX_MM + size


def test_niivue_is_the_pinned_one() -> None:
    """Version, size and SHA-256 of the vendored file are those that are written beside it."""
    pinned = json.loads((PAGE / "vendor" / "pinned.json").read_text())
    digests = digest_file(PAGE / "vendor" / pinned["file"])

    assert (digests.size, digests.sha256) == (pinned["bytes"], pinned["sha256"])
    assert "BSD 2-Clause" in (PAGE / "vendor" / pinned["licence_file"]).read_text()
    assert pinned["version"] in (PAGE / "explorer.js").read_text()
    served = {path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.is_file()}
    assert served - set(FILES) == {"vendor/pinned.json"}


def test_no_address_leads_elsewhere_from_the_page() -> None:
    """Its own files name no host: no CDN, no telemetry."""
    for name in FILES:
        if not name.startswith("vendor/"):
            assert "://" not in (PAGE / name).read_text()


# --- on disk --------------------------------------------------------------------------------------


def test_a_folder_is_written_with_the_selected_scans(explored: Path, tmp_path: Path) -> None:
    """Its size is told before and nearly met; the same place is not written twice."""
    told: list[str] = []
    options: Any = {"where": "grade == 3", "spacing": 4}
    plan = vd.open_release("phantom", root=explored).save_explorer(
        tmp_path / "page", dry_run=True, tell=told.append, **options
    )

    assert not (tmp_path / "page").exists()
    page = vd.open_release("phantom", root=explored).save_explorer(
        tmp_path / "page", tell=told.append, **options
    )
    rows = vd.open_release("phantom", root=explored).select("grade == 3")
    assert set(page.scan_ids) == set(rows["scan_id"]) == set(plan.scan_ids)
    written = {path.stem for path in (tmp_path / "page" / "scans").iterdir()}
    assert written == set(page.scan_ids)
    assert page.nbytes == pytest.approx(page.estimated_bytes, rel=0.2)
    assert told[0] == told[1]
    assert "4 mm voxels" in told[0]
    with pytest.raises(UsageError, match="not empty"):
        vd.open_release("phantom", root=explored).save_explorer(tmp_path / "page", **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scan_ids": ["verse999"]}, "no scan 'verse999'"),
        ({"where": "grade == 3 and level == 'C1'"}, "nothing to write"),
        ({"scan_ids": ["verse901"], "split": ["validation", "test"]}, "nothing to write"),
        ({"where": "grad"}, "refused"),
        ({"single_file": True}, r"ends in \.html"),
        ({"out": "page.html"}, "--single-file"),
    ],
)
def test_a_wrong_selection_writes_nothing(
    explored: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    """The error says what is wrong, and no file is left behind."""
    out = tmp_path / options.get("out", "page")
    options = {name: value for name, value in options.items() if name != "out"}
    with pytest.raises(vd.VerseDataError, match=said):
        vd.open_release("phantom", root=explored).save_explorer(out, **options)
    assert list(tmp_path.iterdir()) == []


def test_one_file_of_many_scans_has_previews(
    explored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where volumes would be too large, which is told with the other way."""
    monkeypatch.setattr("verse_data.explorer.saved.SINGLE_FILE_BYTES", 1000)
    told: list[str] = []
    page = vd.open_release("phantom", root=explored).save_explorer(
        tmp_path / "page.html", single_file=True, tell=told.append
    )

    assert not page.has_volumes
    assert "a preview each" in told[0]
    assert page.path.read_text().count('"preview": "data:image/webp;base64,') == len(page.scan_ids)


def test_the_command_writes_a_page_and_prints_where(explored: Path, tmp_path: Path) -> None:
    """Stdout is the path to open; options of pages on disk are refused without --out."""
    words = ["explore", "phantom", "--scan", "verse901", "--spacing", "4", "--root", str(explored)]
    done = verse_data(*words, "--out", str(tmp_path / "page"))
    refused = verse_data(*words)

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'page' / 'index.html'}\n"
    assert "1 scan, volumes of 4 mm voxels: about" in done.stderr
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--scan goes with --out PATH" in refused.stderr
