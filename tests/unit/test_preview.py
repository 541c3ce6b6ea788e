"""The preview of a scan: what is drawn where, at which size, in which words."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.pictures import colours, store, subject
from verse_data import phantom
from verse_data.errors import UsageError
from verse_data.spine.geometry import AxisMap
from verse_data.spine.levels import LEVEL_OF_LABEL, LEVELS
from verse_data.views.drawing import AMBER, level_colour, mark_colour, write_picture
from verse_data.views.preview import draw_comparison, draw_preview
from verse_data.views.slices import Labels, along_spine, middle_planes, places
from verse_data.volumes.nifti import read_mask
from verse_data.volumes.reader import ScanReader

PIR = np.array([[0, 0, 2.0, -50], [-1, 0, 0, 60], [0, -1, 0, -300], [0, 0, 0, 1]])
SHAPE = (60, 90, 30)  # 60 x 90 x 60 mm


def scan() -> tuple[np.ndarray, np.ndarray, dict[int, tuple[float, float, float]]]:
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[10:40, 10:35, 8:22] = 20
    label[10:40, 50:75, 8:22] = 21
    image = np.where(label > 0, 400, 0).astype(np.int16)
    return image, label, {20: (25, 22, 14.5), 21: (25, 62, 14.5)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(tmp_path_factory.mktemp("whole") / "a", *scan(), PIR)


def test_slices_hang_as_radiologists_read_them(tmp_path):
    """Anterior is on the left of the sagittal slice, the patient's right on that of the coronal."""
    image, label, points = scan()
    image[:5] = 900  # index 0 of a P axis lies in front
    image[:, :, :3] = 700  # index 0 of an R axis lies on the patient's left
    reader = ScanReader(store(tmp_path / "a", image, label, points, PIR))
    sagittal, coronal = along_spine(reader, places(reader))
    assert sagittal.grey.shape == (90, 60)
    assert coronal.grey.shape == (90, 30)
    assert (sagittal.grey[:, :5] == 900).all()
    assert (coronal.grey[:, -3:] == 700).all()
    assert (sagittal.sides, coronal.sides, sagittal.ends) == (("A", "P"), ("R", "L"), ("S", "I"))
    assert sagittal.points[20] == pytest.approx((25, 22))
    assert (sagittal.size_mm, coronal.size_mm) == ((60, 90), (60, 90))


def test_planes_of_an_array_hang_the_same_way():
    """In the axial plane anterior is above and the patient's right on the left."""
    image = np.zeros(SHAPE)
    image[:5], image[:, :5], image[:, :, :3] = 1, 2, 3  # in front; above; on the patient's left
    sagittal, coronal, axial = middle_planes(image, None, PIR, None)
    assert (sagittal.grey[-1, 0], sagittal.grey[0, -1]) == (1, 2)
    assert (coronal.grey[0, 0], coronal.grey[-1, -1]) == (2, 3)
    assert (axial.grey[0, 0], axial.grey[-1, -1]) == (1, 3)
    assert (axial.sides, axial.ends) == (("R", "L"), ("A", "P"))


@pytest.mark.parametrize("codes", ["RAS", "ASR"])
def test_orientation_of_the_volume_does_not_change_the_picture(whole, tmp_path, codes):
    """A reoriented scan gives the same picture."""
    image, label, points = scan()
    axes = AxisMap.between(PIR, codes)
    turned = {key: tuple(axes.points(point, SHAPE)) for key, point in points.items()}
    other = store(
        tmp_path / "b", axes.apply(image), axes.apply(label), turned, axes.affine(PIR, SHAPE)
    )
    one, two = (np.asarray(draw_preview(subject(path))) for path in (whole, other))
    assert np.array_equal(one, two)


def test_slices_follow_the_spine(tmp_path):
    """Where bodies lie apart from left to right, both slices pass through each of them."""
    label = np.zeros((60, 90, 60), dtype=np.uint8)
    label[10:40, 5:35, 5:20] = 20
    label[10:40, 50:85, 40:55] = 21
    reader = ScanReader(store(tmp_path / "a", label, label, {20: (25, 20, 12), 21: (25, 67, 47)}))
    for part in along_spine(reader, places(reader)):
        assert {20, 21} <= set(np.unique(part.label))


def test_a_wide_field_of_view_is_cut_down_to_the_spine(tmp_path):
    """Slices show 80 mm beside the spine, with mask and centroids in their places."""
    label = np.zeros((300, 40, 250), dtype=np.uint8)
    label[140:160, 10:30, 110:140] = 20
    reader = ScanReader(store(tmp_path / "a", label, label, {20: (150, 20, 125)}))
    for part in along_spine(reader, places(reader)):
        assert part.grey.shape == (40, 161)
        assert part.points[20] == pytest.approx((80, 20))
        assert part.label[20, 80] == 20


def test_a_centroid_outside_the_scan_is_no_reason_to_fail(tmp_path):
    """A wrong centroid beyond each edge leaves the picture its size."""
    image, label, points = scan()
    wrong = points | {19: (-500, -500, -500), 22: (900.0, 900.0, 900.0)}
    picture = draw_preview(subject(store(tmp_path / "a", image, label, wrong, PIR)))
    assert max(picture.size) < 1800


def test_each_level_is_drawn_in_its_colour(whole, tmp_path):
    """Outlines, names and centroids have the level's colour, and a scan without any has none."""
    bare = store(tmp_path / "b", scan()[0], affine=PIR)
    wanted = {level_colour("L1"), level_colour("L2")}
    assert wanted <= colours(draw_preview(subject(whole)))
    assert not wanted & colours(draw_preview(subject(bare)))


def test_vertebrae_are_outlined_and_filled_only_on_request(whole):
    """Without `fill`, grey values within a vertebra are those of the plain slice beside it."""
    outlined, filled = (
        np.asarray(draw_preview(subject(whole, fill=fill))).astype(int) for fill in (False, True)
    )
    grey = 127  # 400 HU in the bone window
    bone = [(np.abs(picture - grey).max(axis=2) < 2).sum() for picture in (outlined, filled)]
    assert bone[0] > 2.5 * bone[1] > 0  # three panels, and the plain one


def test_a_level_without_centroid_is_named_and_said(whole, tmp_path):
    """A mask alone is labelled too; the caption says which levels have no centroid."""
    image, label, points = scan()
    del points[21]
    part = store(tmp_path / "b", image, label, points, PIR)
    found = places(ScanReader(part))
    assert (set(found.points), found.marked) == ({20, 21}, {20})
    assert AMBER in colours(draw_preview(subject(part)))
    assert AMBER not in colours(draw_preview(subject(whole)))


@pytest.mark.parametrize("mark", ["1", "2", "3", "x"])
def test_each_grade_stands_beside_its_level(whole, mark):
    """A grade, or x, is written in its own colour, and only where a level has it."""
    assert mark_colour(mark) in colours(draw_preview(subject(whole, marks={"L1": mark})))
    assert mark_colour(mark) not in colours(draw_preview(subject(whole, marks={"T4": mark})))


def test_colours_of_levels_are_distinct():
    """No two levels share a colour, and neighbours differ much."""
    palette = {level: np.array(level_colour(level), dtype=float) for level in LEVELS}
    assert min(np.linalg.norm(a - b) for a, b in combinations(palette.values(), 2)) > 12
    assert min(np.linalg.norm(palette[a] - palette[b]) for a, b in pairwise(LEVELS)) > 120
    assert min(colour.max() for colour in palette.values()) == 255  # legible on black


@pytest.mark.parametrize(
    "options",
    [{"is_phantom": True}, {"marks": None}, {"marks": {"T6": "0"}}, {"marks": {"L5": "x"}}],
    ids=["made up", "no grades", "a graded level that is not there", "an implant likewise"],
)
def test_what_a_reader_must_know_is_said(whole, options):
    """A phantom, a lack of grades, and a mark of a level without mask and centroid are warnings."""
    assert AMBER in colours(draw_preview(subject(whole, **options)))
    assert AMBER not in colours(draw_preview(subject(whole, marks={"T6": "?", "L1": "0"})))


def test_names_at_one_height_stand_apart_in_spine_order(tmp_path):
    """Centroids of all levels at the foot of a scan are named from head to foot, above the caption."""
    points = dict.fromkeys(LEVEL_OF_LABEL, (25, 88, 14.5))
    picture = draw_preview(subject(store(tmp_path / "a", scan()[0], None, points, PIR)))
    pixels = np.asarray(picture).astype(int)
    tops = [
        np.argwhere((pixels == level_colour(level)).all(axis=2).any(axis=1))[0, 0]
        for level in LEVELS
    ]
    assert np.diff(tops).min() > 15
    rows = [(pixels == level_colour(level)).all(axis=2).any(axis=1) for level in LEVELS]
    assert not np.any(rows, axis=0)[900:].any()


def test_sacrum_and_coccyx_are_no_levels(tmp_path):
    """Labels 26 and 27 are drawn and named, without a grade, and no centroid of theirs is missed."""
    image, label, points = scan()
    label[10:40, 80:88, 8:22], label[30:40, 88:, 8:22] = 26, 27
    found = subject(store(tmp_path / "a", image, label, points, PIR), marks={"L1": "1", "L2": "0"})
    picture = draw_preview(found)
    assert AMBER not in colours(picture)
    assert (found.mark(26), found.mark(27), found.mark(22)) == ("", "", "?")


@pytest.mark.parametrize("lacks", ["mask", "centroids", "mask and centroids"])
def test_the_caption_says_what_a_scan_lacks(tmp_path, lacks):
    """A picture without mask, centroids or both is drawn, and carries a note."""
    image, label, points = scan()
    part = store(
        tmp_path / "a",
        image,
        None if "mask" in lacks else label,
        {} if "centroids" in lacks else points,
        PIR,
    )
    assert AMBER in colours(draw_preview(subject(part)))


@pytest.mark.parametrize("shape", [(400, 60, 30), (40, 800, 20), (1, 1, 1), (3, 200, 3)])
def test_the_picture_is_limited_in_size(tmp_path, shape):
    """A wide, a long and a tiny field of view end up between 600 and 1800 pixels wide."""
    part = store(tmp_path / "a", np.zeros(shape), affine=PIR)
    width, height = draw_preview(subject(part)).size
    assert 600 <= width <= 1800
    assert height <= 1040


def test_names_of_a_comparison_can_be_read_on_a_page(tmp_path):
    """Shrunk to 1,232 pixels, which a window of 1,280 leaves it, they are at least 15 high."""
    reader = ScanReader(store(tmp_path / "a", np.zeros((200, 200, 100)), affine=PIR))
    predicted = Labels.of(np.zeros(reader.shape, np.uint8), {})
    assert draw_comparison(subject(reader.path), predicted).width * 15 <= 1232 * 19


@pytest.mark.parametrize("shape", [(60, 90, 1), (1, 90, 30), (60, 1, 30), (1, 1, 1)])
def test_a_slice_of_one_voxel_has_a_letter_on_each_side(tmp_path, shape):
    """A and P, R and L stand beside each other, also where the slice has no room for them."""
    part = store(tmp_path / "a", np.full(shape, -1000.0), affine=PIR)
    picture = np.asarray(draw_preview(subject(part)).convert("L"))
    high = max(8 * 90 * (shape[1] == 90), 48)  # of the panels: 8 pixels a millimetre
    middle = 20 + high // 2
    inked = (picture[middle - 6 : middle + 6] > 128).any(axis=0)
    # The letters above and below the middle of a low panel are between those of its sides.
    assert np.count_nonzero(np.diff(inked.astype(int)) == 1) == (4 if high > 48 else 6)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.jpeg", "JPEG"), ("a.webp", "WEBP"), ("a.pdf", None)],
)
def test_the_extension_is_the_format(tmp_path, name, kind):
    """A picture is written in the format of its name, complete."""
    write_picture(Image.new("RGB", (30, 20)), tmp_path / name)
    if kind is None:
        assert (tmp_path / name).read_bytes()[:5] == b"%PDF-"
        return
    with Image.open(tmp_path / name) as picture:
        picture.load()
        assert (picture.format, picture.size) == (kind, (30, 20))


@pytest.mark.parametrize("name", ["a.tiff", "a", "a.png.gz", ".png", "-", ""])
def test_other_extensions_are_refused(tmp_path, name):
    """A name without one of the known extensions is a usage error that lists them."""
    with pytest.raises(UsageError, match=r"\.png, \.jpg, \.jpeg, \.webp or \.pdf"):
        write_picture(Image.new("RGB", (30, 20)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_real_masks_are_drawn(shared, tmp_path):
    """A released mask with a painted CT gives a picture with all of its levels' colours."""
    found = shared / "data/verse19/dataset-verse19training/derivatives/sub-verse004"
    mask = read_mask(found / "sub-verse004_seg-vert_msk.nii.gz", name="verse004")
    ct = phantom.paint_ct(mask.array, mask.affine, seed=0)
    part = store(tmp_path / "a", ct, mask.array, {}, mask.affine)
    names = ("T9", "T10", "T11", "T12", "L1", "L2", "L3", "L4", "L5")
    assert {level_colour(name) for name in names} <= colours(draw_preview(subject(part)))
