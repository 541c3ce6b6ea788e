"""What the command line answers: every verb that reads, and the usual mistakes."""

from __future__ import annotations

import gzip
import inspect
import json
import re
import shlex
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import verse_data as vd
from tests.house.place import Place, Said, change_upstream, stored

VERBS = (
    *("releases", "lock", "get", "adopt", "status", "verify", "diff", "drop"),
    *("query", "table", "columns", "findings", "summary", "report", "folds", "leaks"),
    *("cache build", "cache list", "cache verify", "cache prune", "cache size", "preview", "demo"),
    *("provenance", "export prov", "export rocrate", "export croissant", "cite"),
    *("schemas list", "schemas show", "schemas write", "schemas check", "doctor", "env"),
)
PHANTOM = (
    "releases --json",
    "status phantom --json",
    "verify phantom --json",
    "verify phantom --level content --split test --json",
    "diff phantom v1 v1 --json",
    "query phantom 'grade == 3' --json",
    "table phantom vertebrae --where 'grade >= 2' --json",
    "columns --json",
    "findings phantom --json",
    "provenance phantom --json",
    "provenance phantom verse902_split-verse951 --json",
    "cite phantom --json",
    "cite phantom --format text",
    "cite phantom --format bibtex",
    "cite phantom --format ris",
    "cite --json",
    "cite verse19 --json",
    "schemas list",
    "schemas show vertebra",
    "schemas check",
    "leaks leaky.json --json",
    "leaks sound.json --release phantom --json",
    "leaks train=train.txt val=val.txt --json",
    "cache size --json",
    "cache list --json",
    "cache verify --json",
    "cache prune --dry-run --json",
    "get phantom --dry-run --json",
)
FIRST_VERSION = (
    "lock verse19 --json",
    "get verse19 --split training --dry-run --json",
    "get verse19 --split training --jobs 1 --json",
    "get verse19 --split validation --offline --json",
    "status verse19 --json",
    "query verse19 'grade >= 2' --json",
    """query verse19 "level == 'L1'" --json""",
)
SECOND_VERSION = (
    "lock verse19 --json",
    "status verse19 --json",
    "get verse19 --jobs 1 --json",
    "diff verse19 v1 v2 --json",
    "verify verse19 --json",
    "query verse19 'grade >= 2' --json",
    "findings verse19 --json",
    "report verse19 --json",
    "provenance verse19 verse901 --json",
    "provenance verse19 --version v1 --json",
    "cite verse19 --json",
    "cite verse19 --format bibtex",
    "doctor --osf --json",
)
MISTAKES = (
    "",
    "querry phantom",
    "status",
    "status nowhere",
    "status phantom --version v9",
    "status phantom --version sha256:000000000000",
    "get phantom --split train",
    "get phantom --scan verse999",
    "get phantom --role mri",
    "query phantom 'grad >= 2'",
    """query phantom "split == 'train'\"""",
    """query phantom "grade >= 'x'\"""",
    "query phantom 'grade > 3'",
    "query phantom 'grade >='",
    "query phantom 'grade = 2'",
    """query phantom "__import__('os').getcwd()\"""",
    "query phantom --columns nothing",
    "table phantom nothing",
    "table phantom --out table.txt",
    "diff phantom v1 v9",
    "verify phantom --level deep",
    "folds phantom --k 1",
    "leaks nowhere.json",
    "leaks broken.json",
    "cache build phantom --spacing 0",
    "cache build phantom --spacing 1,2",
    "cache build phantom --spacing nan",
    "cache build phantom --codec gzip",
    "cache build phantom --scan verse999",
    "cache prune --release nowhere",
    "preview phantom verse999",
    "export prov nowhere",
    "cite nowhere",
    "cite phantom --format html",
    "schemas show nothing",
    "report verse19 --workbook nowhere.xlsx",
    "lock lab --from-tree nowhere",
    "lock phantom --from-tree empty",
    "lock ../lab --from-tree tree",
    "adopt phantom nowhere",
)
METHODS = (
    *("build_cache", "citation", "dataset", "diff", "fetch", "folds", "open_scan", "path"),
    *("provenance", "read_folds", "select", "verify"),
)
NOTHING_HERE = (
    "get verse19 --offline",
    "query verse19 'grade >= 2' --offline",
    "table verse19 --offline",
    "status verse19",
    "provenance verse19",
)


def options(place: Place) -> dict[str, Any]:
    """Return which options each verb has, and what the command says of itself."""
    found: dict[str, Any] = {}
    whole = place.call("--help")
    listed = re.findall(r"^  ([a-z]+)  ", whole.stdout, re.MULTILINE)
    found["verse-data --help"] = {"exit": whole.exit, "verbs": sorted(listed)}
    for verb in VERBS:
        help_text = place.call(*verb.split(), "--help")
        names = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", help_text.stdout.partition("Options:")[2])
        found[f"{verb} --help"] = {"exit": help_text.exit, "options": " ".join(sorted({*names}))}
    version = place.call("--version")
    found["verse-data --version"] = {"exit": version.exit, "stdout": version.stdout}
    command = [sys.executable, "-m", "verse_data", "status", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    here = place.call("status", "nowhere")
    found["in a process of its own"] = {
        "exit": done.returncode,
        "stdout": done.stdout,
        "as in this one": place.tidy(done.stderr) == here.stderr,
    }
    return found | _names()


def _names() -> dict[str, Any]:
    """Return the public names, what they take, and the exit code of each error."""
    calls = {name: getattr(vd, name) for name in dir(vd) if callable(getattr(vd, name))}
    del calls["Release"]  # nobody makes one but open_release
    calls |= {f"Release.{name}": getattr(vd.Release, name) for name in METHODS}
    calls["phantom.write"] = vd.phantom.write
    found: dict[str, Any] = {"names of vd": dir(vd)}
    for name, call in calls.items():
        found[f"vd.{name} takes"] = _taken(call)
    errors = {name: getattr(vd.errors, name) for name in dir(vd.errors)}
    found["vd.errors"] = {
        name: f"{error.exit_code} {' '.join(base.__name__ for base in error.__bases__)}"
        for name, error in errors.items()
        if isinstance(error, type) and issubclass(error, vd.VerseDataError)
    }
    return found


def _taken(call: Any) -> list[str]:
    """Return the parameters of a call with their defaults, and what must be given by name."""
    try:
        taken = inspect.signature(call).parameters.values()
    except ValueError:  # a class that takes what the builtin it comes from takes
        return []
    star = {inspect.Parameter.KEYWORD_ONLY: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [
        f"{star.get(one.kind, '')}{one.name}"
        + ("" if one.default is one.empty or callable(one.default) else f"={one.default!r}")
        for one in taken
        if one.name != "self"
    ]


def answers(place: Place) -> dict[str, Any]:
    """Return what every reading verb says of both releases, and of VerSe'19 before and after a change."""
    _write_splits(place.folder)
    found = {words: answer(place, words) for words in PHANTOM}
    found["doctor --offline --json"] = _names_alone(place.call("doctor", "--offline", "--json"))
    found["env"] = _variables(place.call("env"))
    found |= {f"v1: {words}": answer(place, words) for words in FIRST_VERSION}
    change_upstream(place)
    found |= {f"v2: {words}": answer(place, words) for words in SECOND_VERSION}
    return found


def answer(place: Place, words: str) -> dict[str, Any]:
    """Return the exit code of a command and its JSON, or its text; with its complaint if it failed."""
    said = place.call(*shlex.split(words))
    try:
        value = settled(json.loads(said.stdout))
    except ValueError:
        value = said.stdout
    found = {"exit": said.exit, "stdout": value}
    return found | ({"stderr": said.complaint} if said.exit else {})


def settled(value: Any) -> Any:
    """Put placeholders for what varies by its key: versions of packages, ages, days of publishing."""
    if isinstance(value, list):
        return [settled(part) for part in value]
    if not isinstance(value, dict):
        return value
    found = {key: settled(part) for key, part in value.items()}
    for key, placeholder in (("age_days", "<days>"), ("datePublished", "<date>")):
        if key in found:
            found[key] = placeholder
    if isinstance(found.get("packages"), dict):
        found["packages"] = dict.fromkeys(found["packages"], "<version>")
    if str(found.get("name", found.get("id"))).startswith("verse-data") and "version" in found:
        found["version"] = "<version>"
    if "about" in found:
        found["about"] = sorted(found["about"])
    return found


def _names_alone(said: Said) -> dict[str, Any]:
    """Return what doctor looks at; what it finds is this machine's."""
    value = json.loads(said.stdout)
    keys = sorted({key for check in value["checks"] for key in check})
    names = [check["name"] for check in value["checks"]]
    return {"exit": said.exit, "keys": sorted(value), "keys of a check": keys, "checks": names}


def _variables(said: Said) -> dict[str, Any]:
    """Return which variables env sets."""
    names = re.findall(r"^export (\w+)=", said.stdout, re.MULTILINE)
    return {"exit": said.exit, "variables": names, "lines": len(said.stdout.splitlines())}


def _write_splits(folder: Path) -> None:
    """Write splits that leak, that do not, and that are none."""
    series = ["verse902_split-verse951", "verse902_split-verse952"]
    leaky = {"train": ["verse901", series[0]], "val": [series[1], "verse903"]}
    (folder / "leaky.json").write_text(json.dumps(leaky))
    (folder / "sound.json").write_text(json.dumps({"train": series, "val": ["verse903", "99"]}))
    (folder / "broken.json").write_text("{")
    (folder / "train.txt").write_text("imagesTr/sub-verse901_ct.nii.gz\n902\n")
    (folder / "val.txt").write_text("sub-verse901\nverse951\n")
    (folder / "empty").mkdir()


def mistakes(place: Place) -> dict[str, Any]:
    """Return exit code and first line of what is said to a typical mistake."""
    found = {words or "(nothing)": _refusal(place, words) for words in MISTAKES}
    with place.elsewhere("bare"):
        found |= {f"not here: {words}": _refusal(place, words) for words in NOTHING_HERE}
    for name, value in (("OFFLINE", "maybe"), ("OSF_TOKEN", "two words"), ("OFFLINE", "1")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(f"VERSE_DATA_{name}", value)
            patch.setenv("VERSE_DATA_HOME", str(place.folder / "bare"))
            found[f"VERSE_DATA_{name}={value} get verse19"] = _refusal(place, "get verse19")
    return found | _of_bad_trees(place) | _of_python(place)


def _refusal(place: Place, words: str) -> dict[str, Any]:
    said = place.call(*shlex.split(words))
    return {"exit": said.exit, "stderr": said.complaint}


def _of_bad_trees(place: Place) -> dict[str, Any]:
    """Return what is said to a tree whose CT is cut, claims to be enormous, or is no volume."""
    volume = "dataset-verse19training/rawdata/sub-verse901/sub-verse901_ct.nii.gz"
    whole = (place.folder / "osf" / volume).read_bytes()
    header = bytearray(gzip.decompress(whole))
    header[40:48] = struct.pack("<4h", 3, 30_000, 30_000, 30_000)
    bad = {
        "cut": whole[: len(whole) // 2],
        "enormous": stored(bytes(header)),
        "no volume": stored(b"no volume"),
    }
    found = {}
    for name, content in bad.items():
        tree = place.folder / name
        shutil.copytree((place.folder / "osf" / volume).parents[3], tree)
        (tree / volume).write_bytes(content)
        found[f"a CT that is {name}: lock lab"] = _refusal(place, f"lock lab --from-tree '{name}'")
    return found


def _of_python(place: Place) -> dict[str, Any]:
    """Return class, exit code and first line of the errors that Python sees."""
    phantom = {"release": "phantom"}
    calls = {
        "load_split('train')": lambda: vd.load_split("train", **phantom),
        "unit='voxel'": lambda: vd.load_split("test", unit="voxel", **phantom),
        "orientation='RAX'": lambda: vd.load_split("test", orientation="RAX", **phantom),
        "spacing=0": lambda: vd.load_split("test", spacing=0, **phantom),
        "spacing=(1, 2)": lambda: vd.load_split("test", spacing=(1, 2), **phantom),
        "codec='gzip'": lambda: vd.load_split("test", codec="gzip", **phantom),
        "patchsize=16": lambda: vd.load_split("test", unit="patch", patchsize=16, **phantom),
        "patch_size=0": lambda: vd.load_split("test", unit="patch", patch_size=0, **phantom),
        "sampling='mask'": lambda: vd.load_split(
            "test", unit="patch", patch_size=16, sampling="mask", **phantom
        ),
        "image_dtype='uint8'": lambda: vd.load_split("test", image_dtype="uint8", **phantom),
        "seed=-1": lambda: vd.load_split("test", seed=-1, **phantom),
        "where='grad'": lambda: vd.load_split("test", where="grad", **phantom),
        "label_mode='all_'": lambda: vd.load_split(
            "test", unit="vertebra", label_mode="all_", **phantom
        ),
        "load_table('rows')": lambda: vd.load_table("rows", **phantom),
        "open_release('nowhere')": lambda: vd.open_release("nowhere"),
        "open_release(version='v9')": lambda: vd.open_release("phantom", version="v9"),
        "dataset(['verse999'])": lambda: vd.open_release("phantom").dataset(["verse999"]),
        "phantom.write(n_subjects=3)": lambda: vd.phantom.write(place.folder / "x", n_subjects=3),
        "VerSeDataset(transform=)": lambda: vd.VerSeDataset(transform=len, **phantom),
        "a transform that fails": lambda: vd.load_split(
            "test", transform=json.loads, workers=1, **phantom
        )[0],
        "load_split offline": lambda: vd.load_split(
            "test", root=place.folder / "bare", offline=True
        ),
    }
    found = {}
    for name, call in calls.items():
        try:
            call()
        except vd.VerseDataError as error:
            line = place.tidy(str(error)).splitlines()[0]
            found[f"python: {name}"] = {
                "error": type(error).__name__,
                "exit": error.exit_code,
                "line": line,
            }
        else:
            found[f"python: {name}"] = {"error": "none"}
    return found


def damage(place: Place) -> dict[str, Any]:
    """Return what is said of broken contents and stores; done last, since it breaks them."""
    home, found = place.home, {}
    (store,) = [store for store in (home / "stores").glob("*/*") if _is_of(store, "verse901")][:1]
    chunk = store / "label/c/0/0/0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0xFF
    _overwrite(chunk, bytes(content))
    found["a flipped chunk: cache verify --json"] = answer(place, "cache verify --json")
    shutil.rmtree(store / "coarse")
    found["a level gone: cache list --json"] = _states(place)
    raw = home / "releases/phantom/dataset-phantomtraining/rawdata/sub-verse901"
    sidecar, volume = raw / "sub-verse901_ct.json", raw / "sub-verse901_ct.nii.gz"
    _overwrite(sidecar.resolve(), b"?" * sidecar.stat().st_size)
    target = volume.resolve()
    target.parent.chmod(0o755)
    target.unlink()
    for words in (
        "verify phantom --json",
        "verify phantom --level size --json",
        "status phantom --json",
        "cache build phantom --scan verse901 --codec none --workers 1",
    ):
        found[f"a file gone, one overwritten: {words}"] = answer(place, words)
    return found


def _states(place: Place) -> dict[str, int]:
    """Return how many stores are in which state."""
    states = [one["state"] for one in json.loads(place.call("cache", "list", "--json").stdout)]
    return {state: states.count(state) for state in sorted(set(states))}


def _is_of(store: Path, scan_id: str) -> bool:
    return f'"{scan_id}"' in (store / "zarr.json").read_text()


def _overwrite(path: Path, content: bytes) -> None:
    path.parent.chmod(0o755)
    path.unlink()
    path.write_bytes(content)
