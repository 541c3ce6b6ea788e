"""The release lock: one canonical form, one digest, and what it refuses."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verse_data.errors import ValidationFailed
from verse_data.records.lock import LockedFile, LockSource, ReleaseLock, check_path

SHA = "ab" * 32


def a_lock(*paths: str, **changes: object) -> ReleaseLock:
    """Return a lock of small files."""
    files = tuple(LockedFile(path=path, size=3, sha256=SHA) for path in paths)
    fields = {"release": "phantom", "source": LockSource(kind="tree"), "files": files} | changes
    return ReleaseLock(**fields)


def test_canonical_form_round_trips() -> None:
    """Reading the canonical form gives the same lock with the same digest."""
    lock = a_lock("a/rawdata/x_ct.nii.gz", "b.json")

    again = ReleaseLock.parse(lock.canonical())

    assert again == lock
    assert again.digest == lock.digest
    assert lock.canonical().endswith(b"}\n")


def test_digest_does_not_hang_on_the_spelling_of_the_json() -> None:
    """Indentation and key order of a lock file change nothing."""
    lock = a_lock("a.json")
    value = json.loads(lock.canonical())
    spelled = json.dumps(dict(reversed(value.items())), indent=4).encode()

    assert ReleaseLock.parse(spelled).digest == lock.digest


@pytest.mark.parametrize(
    "path",
    ["", "/a", "a/../b", "../a", "a//b", "a/", "./a", "a\\b", "a\nb", "a\0b", ".git/config", "x/.GIT/hooks/y",
     ".gitattributes", ".gitmodules", ".datalad/config", ".verse/lock.json", "a/" * 500 + "a", "x/" + "a" * 256,
     "\u00e4" * 128, "a\udce4"],
)  # fmt: skip
def test_unsafe_paths_are_refused(path: str) -> None:
    """A path that climbs out, hides from people, or is git's own, is not part of a lock."""
    with pytest.raises(ValueError):
        check_path(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.update(schema_version="2.0.0"), "schema_version is '2.0.0'"),
        (lambda v: v.pop("schema_version"), "schema_version is None"),
        (lambda v: v.update(extra=1), "extra"),
        (lambda v: v.update(release="../x"), "release"),
        (lambda v: v["files"][0].update(size="3"), "files.0.size"),
        (lambda v: v["files"][0].update(size=-1), "files.0.size"),
        (lambda v: v["files"][0].update(sha256="AB" * 32), "files.0.sha256"),
        (lambda v: v["files"][0].update(urls=["file:///etc/passwd"]), "files.0.urls"),
        (lambda v: v["files"][0].update(urls=["https://x/a b"]), "files.0.urls"),
        (lambda v: v["files"][0].update(file_id="../../x?y"), "files.0.file_id"),
        (lambda v: v["files"][0].update(node="jtfa5/.."), "files.0.node"),
        (lambda v: v["files"].reverse(), "not sorted"),
        (lambda v: v["files"].append(dict(v["files"][1])), "the same name on some file systems"),
        (lambda v: v["files"].append(v["files"][1] | {"path": "b.json/c"}), "is a file and the folder"),
    ],
)  # fmt: skip
def test_broken_locks_are_refused_with_the_place(change: object, words: str) -> None:
    """A lock that breaks a rule is one error that names the field and the rule."""
    value = json.loads(a_lock("a.json", "b.json").canonical())
    change(value)

    with pytest.raises(ValidationFailed, match=words) as caught:
        ReleaseLock.parse(json.dumps(value).encode(), name="my.json")

    assert str(caught.value).startswith("my.json")


@pytest.mark.parametrize(
    "data",
    [b"", b"[1]", b"\xff\xfe", b'{"files":[],"files":[]}', b'{"x":NaN}', b"[" * 100_000],
)
def test_what_is_no_lock_is_refused(data: bytes) -> None:
    """No JSON, a key said twice, NaN, and deep nesting are named errors, not tracebacks."""
    with pytest.raises(ValidationFailed):
        ReleaseLock.parse(data)


def test_names_that_some_machines_confuse_are_refused() -> None:
    """Two paths that differ in case alone cannot both be checked out everywhere."""
    with pytest.raises(ValueError, match="the same name on some file systems"):
        a_lock("A.json", "a.json")


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    """Whatever the bytes are, reading them gives a lock or a named error."""
    with pytest.raises(ValidationFailed):
        ReleaseLock.parse(data)


def test_the_same_files_with_other_addresses_are_the_same_content() -> None:
    """Content is path, size and digest; addresses are not part of it."""
    plain = a_lock("a.json")
    moved = plain.files[0].model_copy(update={"urls": ("https://example.org/a",)})

    assert a_lock(files=(moved,)).content() == plain.content()
    assert a_lock(files=(moved,)).digest != plain.digest


def test_broken_rules_are_told_in_plain_words() -> None:
    """Each with its field; none in the words of the library that checks them."""
    good = json.loads(a_lock("a.json", "b.json", "c.json").canonical())
    first, second, third = good["files"][:3]
    first["size"] = "12"
    del second["sha256"]
    third["colour"] = "red"
    good["source"]["kind"] = "ftp"

    with pytest.raises(ValidationFailed) as caught:
        ReleaseLock.parse(json.dumps(good).encode(), name="my.lock")
    text = str(caught.value)

    assert "files.0.size: must be a whole number" in text
    assert "files.1.sha256: is missing" in text
    assert "files.2.colour: is not a known field" in text
    assert "source.kind: must be '" in text
    assert "Input" not in text
    assert "Field required" not in text
