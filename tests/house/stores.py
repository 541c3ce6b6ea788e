"""What locks, datasets, stores and exports are, to the byte."""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any

import numpy as np
from PIL import Image

import verse_data as vd
from tests.house.commands import settled
from tests.house.place import Place, file_digests, one_digest

RECIPES = {
    "default": "",
    "spacing 1": "--spacing 1 --scan verse907",
    "spacing 4,4,3 cubic": "--spacing 4,4,3 --interpolation cubic --scan verse902_split-verse951",
    "spacing 6": "--spacing 6 --split training",
    "zstd": "--codec zstd --scan verse901,verse904,verse908",
    "no codec": "--codec none --scan verse901",
}
_PROBE = bytes(range(256)) * 40 + b"verse" * 999


def releases(place: Place) -> dict[str, Any]:
    """Return digests of the written phantom, of locks, commits and annex keys."""
    found: dict[str, Any] = {"phantom as written, unpacked": file_digests_of(place)}
    packed = one_digest(file_digests(place.folder / "written"))
    found["phantom as written, packed"] = {"zlib": zlib_word(), "sha256": packed}
    found["lock phantom"] = settled(
        json.loads(place.call("lock", "phantom", "--from-tree", "tree", "--json").stdout)
    )
    release = vd.open_release("phantom")
    found["phantom"] = {
        "lock": release.lock.digest,
        "commit": release.commit,
        "version": release.version,
        "versions": [list(one.versions) for one in vd.list_releases()],
        "repr": repr(release),
    }
    files = json.loads(place.call("provenance", "phantom", "--json").stdout)["files"]
    found["annex keys of phantom"] = {file["path"]: file["key"] for file in files}
    found["roles of phantom"] = {file["path"]: str(file["role"]) for file in files}
    with place.elsewhere("lab"):
        place.call("lock", "lab", "--from-tree", str(place.folder / "osf"))
        lab = vd.open_release("lab")
        found["lab"] = {"lock": lab.lock.digest, "commit": lab.commit, "repr": repr(lab)}
    return found


def file_digests_of(place: Place) -> dict[str, str]:
    """Return the digests of the files that ``vd.phantom.write`` wrote."""
    return file_digests(place.folder / "written", unpacked=True)


def zlib_word() -> str:
    """Return a word that two machines share if their zlib packs alike."""
    packer = zlib.compressobj(1)
    return hashlib.sha256(packer.compress(_PROBE) + packer.flush()).hexdigest()[:12]


def stores(place: Place) -> dict[str, Any]:
    """Return the fingerprint and the digest of every store, for each recipe."""
    found: dict[str, Any] = {}
    for name, options in RECIPES.items():
        said = place.call("cache", "build", "phantom", "--workers", "1", *options.split())
        found[f"cache build: {name}"] = {"exit": said.exit, "stderr": said.complaint}
    listed = json.loads(place.call("cache", "list", "--json").stdout)
    for store in listed:
        recipe = " ".join(f"{key}={part}" for key, part in sorted(store["recipe"].items()))
        found[f"{store['scan_id']}, {recipe}"] = described(place, store)
    found["states"] = sorted({store["state"] for store in listed})
    of_one = [v for k, v in found.items() if k.startswith("verse904,") and "codec=lz4" in k]
    folder = place.home / "stores" / of_one[0]["fingerprint"][:2] / of_one[0]["fingerprint"]
    found["the files of verse904"] = file_digests(folder)
    return found | {"cache size": settled(json.loads(place.call("cache", "size", "--json").stdout))}


def described(place: Place, store: dict[str, Any]) -> dict[str, Any]:
    """Return what the list says of a store, and one digest over its files."""
    folder = place.home / "stores" / store["fingerprint"][:2] / store["fingerprint"]
    files = file_digests(folder)
    kept = {name: store[name] for name in ("fingerprint", "nbytes", "releases")}
    return {**kept, "files": len(files), "sha256": one_digest(files)}


def exports(place: Place) -> dict[str, Any]:
    """Return names and contents of everything that is written for others to read."""
    found: dict[str, Any] = {}
    for kind in ("prov", "rocrate", "croissant"):
        for words in ("phantom", "phantom verse902_split-verse951", "verse19", "verse19 verse901"):
            said = place.call("export", kind, *words.split())
            value = settled(json.loads(said.stdout))
            found[f"export {kind} {words}"] = {"exit": said.exit, "stdout": value}
    out = place.folder / "rocrate.json"
    place.call("export", "rocrate", "phantom", "--out", str(out))
    value = settled(json.loads(place.tidy(out.read_text())))
    same = value == found["export rocrate phantom"]["stdout"]
    found["export rocrate --out"] = {"same as stdout": same}
    place.call("schemas", "write", "--folder", str(place.folder / "schemas"))
    found["schemas write"] = file_digests(place.folder / "schemas")
    said = place.call("preview", "phantom", "verse902_split-verse951", "--out", "drawn.png")
    with Image.open(place.folder / "drawn.png") as drawn:
        found["preview"] = {
            "exit": said.exit,
            "stdout": said.stdout,
            "mode": drawn.mode,
            "size": list(drawn.size),
            "pixels": hashlib.sha256(np.asarray(drawn).tobytes()).hexdigest(),
        }
    return found
