"""Parser of VerSe's file names, in both layouts.

The subject-based layout writes ``sub-verse401_split-verse253_seg-vert_msk.nii.gz``, the MICCAI
layout ``verse253_seg.nii.gz`` (VerSe'19) or ``verse400_verse090_CT-iso_seg.nii.gz`` (VerSe'20).
Of the latter many names are irregular: ``GL003.nii.gz``, ``GL124_CT_ax-iso-ctd.json`` beside
``GL124_CT-ax.nii.gz``, ``GL018-GL016_seg.nii.gz`` of the series gl016.
In a file name, ``split-`` tells several series of one subject apart (``series_label`` here); it
has nothing to do with training and test.
Source: the 374 names of VerSe'19 and '20, and the wiki pages of their OSF nodes.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final, Literal

Role = Literal["ct", "ct_json", "mask", "centroids", "snapshot", "grading"]
Split = Literal["training", "validation", "test"]
Layout = Literal["subject", "miccai"]
Entities = tuple[tuple[str, str], ...]

SPLITS: Final[tuple[Split, ...]] = ("training", "validation", "test")
_SPLIT_OF_WORD: Final[dict[str, Split]] = {split: split for split in SPLITS}
_SPLIT_OF_WORD.update(train="training", val="validation")

_SERIES_OF_SUBJECT: Final = (
    "400:090,155 401:201,253 402:202,251 403:208,255 404:209,256 405:212,258,259 406:214,261 "
    "407:215,262 408:223,265 409:226,266 410:227,267 411:232,270 412:235,290 413:239,272 "
    "414:241,273 415:243,275 416:247,279 417:277,278"
)
SUBJECT_OF_SERIES: Final[dict[str, str]] = {
    f"verse{series}": f"verse{subject}"
    for subject, _, listed in (part.partition(":") for part in _SERIES_OF_SUBJECT.split())
    for series in listed.split(",")
}
"""Subject of each of the 37 series of VerSe's 18 multi-series subjects.

MICCAI names carry only series numbers, so verse201 and verse253 look like two people.
"""

_ROLES: Final[dict[tuple[str, str], Role]] = {
    ("", "ct.nii.gz"): "ct",
    ("", "ct.nii"): "ct",
    ("", "ct.json"): "ct_json",
    ("seg-vert", "msk.nii.gz"): "mask",
    ("seg-vert", "msk.nii"): "mask",
    ("seg-vb", "ctd.json"): "centroids",
    ("seg-subreg", "ctd.json"): "centroids",
    ("seg-vert", "snp.png"): "snapshot",
}
"""Role of each marker and suffix of the subject-based layout."""
_SUFFIXES: Final = "|".join(dict.fromkeys(re.escape(suffix) for _, suffix in _ROLES))
# VerSe knows `split-` and `dir-`, never together; `ses-` and `ce-` occur in the same group's other
# data. A scan's id names them in this order, whatever order a file name uses.
_RANK: Final = {key: rank for rank, key in enumerate(("ses", "split", "dir", "ce"))}

_SUBJECT_BASED: Final = re.compile(
    r"(?P<sub>sub-)?(?P<subject>[A-Za-z0-9]+)(?P<entities>(?:_[A-Za-z0-9]+-[A-Za-z0-9]+)*?)"
    rf"(?:_(?P<marker>seg-[a-z]+))?_(?P<suffix>{_SUFFIXES})"
)
_MICCAI: Final = re.compile(
    r"(?P<first>verse\d{3}|gl\d{3})(?:_(?P<second>verse\d{3})|-(?P<own>gl\d{3}))?(?P<rest>[_-].*)?",
    re.IGNORECASE | re.ASCII,
)
_MICCAI_DIRECTION: Final = re.compile(
    r"[_-]CT[_-](ax|sag|iso)(?![A-Za-z])", re.IGNORECASE | re.ASCII
)
# Of what follows the id in a MICCAI name, the middle is irregular and the end is not.
_MICCAI_ROLES: Final[dict[Role, str]] = {
    "mask": r"([_.-].*)?_seg\.nii(\.gz)?",
    "ct": r"([_-]ct([_-](ax|sag|iso))?)?\.nii(\.gz)?",
    "centroids": r"[_.-].*ctd\.json",
    "snapshot": r"([_.-].*)?\.png",
}
_GRADING_WORDS: Final = "appendixe1|grading|grades|scores"
_GRADING: Final = re.compile(
    rf"(?![.~])(.*\.(xls[xmb]?|xlt[xm]|ods)|.*({_GRADING_WORDS}).*\.csv)", re.IGNORECASE | re.ASCII
)
# `dataset-mylabtest` names a split, and these words do not, though they end like one.
_WORDS_IN_TEST: Final = re.compile(r"(la|con|pro|pre|re|post|sub|fas|grea)test")
_CLUTTER: Final = re.compile(
    r"\..+|~.*|.*~|thumbs\.db|ehthumbs(_vista)?\.db|desktop\.ini|icon[\r?\uf00d]|__macosx"
    r"|@eadir|@tmp|[@#]recycle|[@#](recently-)?snapshot|@gmt-.*|\$recycle\.bin|recycle[dr]"
    r"|system volume information|found\.\d{3}|lost\+found|a?quota\.(user|group)"
    r"|network trash folder|temporary items|thevolumesettingsfolder|desktop d[bf]|@sharebin|#sync"
    r"|\$winreagent|iconcache\.db|wpsettings\.dat|pagefile\.sys"
    r"|.*[:\uf022](zone\.identifier|encryptable|afp_\w+)(:\$data)?",
    re.DOTALL,
)
"""Hidden names, and what macOS, Windows, Office, editors and file servers leave in folders."""


@dataclass(frozen=True, kw_only=True)
class FileName:
    """The parts of one file name."""

    role: Role
    subject_id: str
    """Label of the person, such as ``"verse401"``; empty for the grading workbook."""
    series_label: str | None = None
    """Value of the name's ``split-`` entity, where a subject has several series."""
    entities: Entities = ()
    """All entities after the subject, in the name's order, unknown ones too; without ``seg-``."""
    layout: Layout = "subject"

    @property
    def scan_id(self) -> str:
        """Name of the CT series: ``verse004``, ``verse401_split-verse253``, ``verse509_dir-iso``."""
        ranked = sorted(self.entities, key=lambda item: _RANK.get(item[0], len(_RANK)))
        return "_".join([self.subject_id, *(f"{key}-{value}" for key, value in ranked)])

    @property
    def series_id(self) -> str:
        """Name of the series alone, the key that is the same in both layouts and in the workbook."""
        return self.series_label or self.subject_id


def parse_path(path: str) -> FileName | None:
    """Parse the file name of `path`; its folders are ignored.

    Returns
    -------
    FileName or None
        None if the name belongs to no role of either layout.
    """
    name = path.rsplit("/", 1)[-1]
    if _GRADING.fullmatch(name):
        return FileName(role="grading", subject_id="")
    return _subject_based(name) or _miccai(name)


def _subject_based(name: str) -> FileName | None:
    match = _SUBJECT_BASED.fullmatch(name)
    role = _ROLES.get((match["marker"] or "", match["suffix"])) if match else None
    if match is None or role is None or (match["sub"] is None and role != "snapshot"):
        return None
    parts = (part.partition("-") for part in match["entities"].split("_")[1:])
    pairs = [(key, value) for key, _, value in parts]
    entities = dict(pairs)
    if len(entities) < len(pairs) or entities.keys() & {"seg", "sub"}:
        return None
    return FileName(
        role=role,
        subject_id=match["subject"],
        series_label=entities.get("split"),
        entities=tuple(entities.items()),
    )


def _miccai(name: str) -> FileName | None:
    match = _MICCAI.match(name)
    if match is None:
        return None
    last = next(part for part in ("own", "second", "first") if match[part])
    tail = name[match.end(last) :]
    roles = (
        role
        for role, end in _MICCAI_ROLES.items()
        if re.fullmatch(end, tail, re.IGNORECASE | re.ASCII | re.DOTALL)
    )
    role = next(roles, None)
    if role is None:
        return None
    # The subject-based layout has gl016 and gl017, of the folder GL018, as two subjects.
    first = (match["own"] or match["first"]).lower()
    series = match["second"].lower() if match["second"] else None
    if series is None and first in SUBJECT_OF_SERIES:
        first, series = SUBJECT_OF_SERIES[first], first
    direction = _MICCAI_DIRECTION.match(tail)
    entities: Entities = (("split", series),) if series else ()
    # The subject-based layout never writes `dir-` beside `split-`.
    if direction and not series:
        entities = (("dir", direction[1].lower()),)
    return FileName(
        role=role, subject_id=first, series_label=series, entities=entities, layout="miccai"
    )


def is_scan_id(name: str) -> bool:
    """Whether `name` can be the id of a scan, and so be part of paths."""
    return re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) is not None


def is_called_grading(name: str) -> bool:
    """Whether a file is named as a grading workbook is, such as ``grades.csv``."""
    return re.search(_GRADING_WORDS, name, re.IGNORECASE) is not None


def role_of(path: str) -> Role | None:
    """Return the role that the file name of `path` says, or None if it fits none."""
    name = parse_path(path)
    return name.role if name else None


def scan_of(path: str) -> str | None:
    """Return the scan id in the file name of `path`, or None if there is none."""
    name = parse_path(path)
    return name.scan_id if name and name.role != "grading" else None


def is_clutter(name: str) -> bool:
    """Whether a name is hidden, or one that systems leave in folders: no part of a release."""
    return _CLUTTER.fullmatch(name.casefold()) is not None and name != ".."


def split_of(path: str) -> Split | None:
    """Return the split that a folder of `path` names, or None."""
    # The folder has the split as a whole word, as in ``01_training``, or ends with it, as in
    # ``dataset-verse19training``.
    # The innermost folder counts, since unpacking a zip may nest it in a second one.
    for folder in reversed(path.split("/")[:-1]):
        if folder.lower().startswith(("sub-", "ses-")):
            continue  # `sub-test` is a person
        name = unicodedata.normalize("NFC", folder).lower()
        words = re.findall(r"[^\W\d_]+", name)
        found = {_SPLIT_OF_WORD[word] for word in words if word in _SPLIT_OF_WORD}
        if not found and name.startswith("dataset-") and not _WORDS_IN_TEST.fullmatch(words[-1]):
            found = {split for split in SPLITS if name.endswith(split)}
        if len(found) == 1:  # `train_and_val` is two splits
            return found.pop()
    return None
