"""The explorer's page in a real Chromium: what a person sees, clicks and types."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pytest
from PIL import Image

import verse_data as vd
from tests.support import browser
from tests.support.command import verse_data
from verse_data.explorer.server import Server
from verse_data.spine.geometry import Box, apply_affine
from verse_data.spine.levels import LEVEL_OF_LABEL
from verse_data.volumes.layout import MANIFEST_KEY
from verse_data.volumes.reader import ScanReader, close_all

pytestmark = pytest.mark.usefixtures("one_core")

SHOWN = "document.getElementById('stage').ariaBusy === 'false' && !!document.getElementById('at') && !document.getElementById('status').textContent"
DETAIL = f"{SHOWN} && !!verse.app.shown && verse.app.shown.detail"
MARKS_OUTSIDE = """(() => {
  const { marks, tiles } = verse.app.viewer;
  const { data } = marks.getContext("2d").getImageData(0, 0, marks.width, marks.height);
  const inside = (x, y) => tiles.some((one) => x > one.left - 2 && x < one.left + one.width + 2 && y > one.top - 2 && y < one.top + one.height + 2);
  return data.some((value, at) => at % 4 === 3 && value && !inside((at >> 2) % marks.width, Math.floor((at >> 2) / marks.width)));
})()"""


@pytest.fixture(scope="module")
def context(browser: Any, explorer: Server) -> Iterator[Any]:
    """The profile that has opened the address of the server."""
    context = browser.new_context(viewport={"width": 1200, "height": 760})
    page = context.new_page()
    page.goto(explorer.url)
    page.close()
    yield context
    context.close()


class Tab(browser.Tab):
    """A tab of the explorer."""

    def __init__(self, context: Any, address: str) -> None:
        super().__init__(context, address)
        self.until("document.documentElement.hasAttribute('data-ready')")

    def row(self, level: str, scan: str = "verse901") -> Any:
        """Return the row of a vertebra."""
        cells = "".join(f":has([role=gridcell]:text-is('{text}'))" for text in (scan, level))
        return self.page.locator(f".rows .row{cells}")

    @property
    def count(self) -> int:
        """Number of rows that are left."""
        return int(self.page.inner_text("#count").split()[0])

    def picture(self) -> Any:
        """Return hue, saturation and value of the pixels of the scan."""
        png = self.page.locator("#stage").screenshot()
        return np.asarray(Image.open(io.BytesIO(png)).convert("HSV"))

    @property
    def mm(self) -> list[float]:
        """World mm of the crosshair."""
        return [float(text) for text in self.page.get_attribute("#at", "data-mm").split()]


@pytest.fixture
def tab(context: Any, explorer: Server) -> Iterator[Tab]:
    """A new tab of the page; at its end nothing was wrong, and nothing left this machine."""
    origin = explorer.url.split("?")[0]
    tab = Tab(context, origin)
    yield tab
    assert tab.said == []
    assert [url for url in tab.asked if not url.startswith((origin, "data:", "blob:"))] == []
    tab.page.close()


def test_bars_and_boxes_filter(tab: Tab, explored: Path) -> None:
    """Counts are those of the package, and the line of Python gives the same rows."""
    release = vd.open_release("phantom", root=explored)
    tab.page.click("[data-facet=grade][data-word='2']")
    assert tab.count == len(release.select("grade == 2"))
    tab.page.click("[id='bar-level-T12']")
    assert tab.count == len(release.select("grade == 2 and level == 'T12'"))
    tab.page.click("[data-facet=grade][data-word=missing]")
    line = tab.page.inner_text("#python-line")
    where = json.loads(line.partition("where=")[2].rstrip(")"))
    assert tab.count == len(release.select(where))
    tab.page.click("[data-facet=findings] >> nth=1")
    line = tab.page.inner_text("#python-line")
    where = json.loads(line.partition("where=")[2].rstrip(")"))
    assert tab.count == len(release.select(where))
    tab.page.click("#clear")
    assert tab.count == len(release.vertebrae)


def test_what_is_not_known_has_no_bars(tab: Tab) -> None:
    """A release without ages has no chart of ages."""
    tab.ask("verse.facts.tables.vertebrae.cells.age_years.fill(null)")
    tab.ask("verse.app.filters = new verse.Filters(verse.facts)")
    tab.ask("verse.app.openTable('vertebrae')")
    names = tab.ask("[...document.querySelectorAll('.chart')].map((one) => one.ariaLabel)")
    assert names == ["Level and grade", "Type", "BMD"]


def test_a_condition_filters_and_a_refused_one_shows_its_place(tab: Tab, explored: Path) -> None:
    """The caret of the package's message stands below the word that is wrong."""
    tab.page.fill("#where", "grade >= 2 and level >= 'T11'")
    tab.page.press("#where", "Enter")
    expected = len(
        vd.open_release("phantom", root=explored).select("grade >= 2 and level >= 'T11'")
    )
    tab.until(f"document.getElementById('count').textContent.startsWith('{expected} of')")
    tab.page.fill("#where", "grade >= 2 and leval == 'T11'")
    tab.page.press("#where", "Enter")
    tab.until("!document.getElementById('where-error').hidden")
    *_, line, caret = tab.page.inner_text("#where-error").splitlines()

    assert line[caret.index("^") : caret.rindex("^") + 1] == "leval"


def test_a_click_on_a_row_leads_to_its_vertebra(tab: Tab, explored: Path) -> None:
    """The crosshair is at the centroid, the label there is the store's, and j goes to the next."""
    release = vd.open_release("phantom", root=explored)
    rows = release.select("scan_id == 'verse901'").set_index("level")
    [store] = release.build_cache(["verse901"]).values()
    reader = ScanReader(store)
    tab.row("T12").click()
    tab.until(DETAIL)
    for level in ("T12", "L1"):
        tab.until(f"verse.app.state.level === '{level}' && {DETAIL}")
        centroid = rows.loc[level, ["centroid_x", "centroid_y", "centroid_z"]].tolist()
        assert tab.mm == pytest.approx(centroid, abs=0.6)
        i, j, k = apply_affine(np.linalg.inv(reader.affine), tab.mm).round().astype(int).tolist()
        hu, label = reader.read(Box((i, j, k), (i + 1, j + 1, k + 1)))
        tab.until(f"document.getElementById('hu').textContent === '{hu.item()} HU'")
        assert tab.page.inner_text("#level-here") == LEVEL_OF_LABEL[label.item()] == level
        assert f"{level} of verse901" in tab.page.inner_text("#card")
        tab.page.keyboard.press("j")


def test_a_key_held_down_loads_what_it_ends_at(tab: Tab) -> None:
    """Vertebrae that are passed by are not loaded, and the last one is shown."""
    tab.row("T11").click()
    tab.until(DETAIL)
    before = len(tab.asked)
    tab.ask(
        "for (let n = 0; n < 5; n++) verse.app.key({ key: 'j', target: document.body, preventDefault() {} })"
    )
    tab.until(f"verse.app.state.level === 'L4' && {DETAIL}")
    assert tab.page.inner_text("#level-here") == "L4"
    assert sum("/image" in url for url in tab.asked[before:]) <= 2


def test_keys_choose_windows_and_the_extent(tab: Tab) -> None:
    """1, 2 and 3 are windows; d shows the whole scan; buttons show which is on."""
    tab.row("T12").click()
    tab.until(DETAIL)
    image = "verse.app.viewer.nv.volumes[0]"
    for key, name, window in (("2", "soft", [-160, 240]), ("3", "full", [-1024, 3071])):
        tab.page.keyboard.press(key)
        assert tab.ask(f"[{image}.cal_min, {image}.cal_max]") == window
        assert tab.page.get_attribute(f"[data-window={name}]", "aria-pressed") == "true"
    tab.page.keyboard.press("d")
    tab.until(f"{SHOWN} && !verse.app.shown.detail")
    assert tab.ask(f"{image}.dims.slice(1, 4)") == tab.ask("verse.app.about.shape")


def test_the_address_keeps_what_is_chosen(tab: Tab, context: Any, explorer: Server) -> None:
    """Opened in a second tab, it shows the same, and each tab goes its own way."""
    tab.page.fill("#where", "level >= 'T11'")
    tab.page.press("#where", "Enter")
    tab.until("verse.app.filters.table.where !== ''")
    tab.page.click("[data-facet=grade][data-word='0']")
    tab.row("T11").click()
    tab.until(DETAIL)
    for key in "2on":
        tab.page.keyboard.press(key)
    tab.page.fill("#opacity", "0.7")
    for level in ("L1", "L3"):
        tab.page.click(f"#levels button:has-text('{level}')")
    for _ in range(2):
        tab.page.click("[role=columnheader] button >> nth=1")
    tab.until(
        "['window=soft', 'mm=', 'hidden=', 'sort=-level'].every((one) => location.hash.includes(one))"
    )
    other = Tab(context, tab.page.url)
    other.until(DETAIL)

    assert other.page.inner_text("#count") == tab.page.inner_text("#count")
    assert other.page.input_value("#where") == "level >= 'T11'"
    assert other.mm == pytest.approx(tab.mm, abs=0.6)
    assert other.page.get_attribute("[data-window=soft]", "aria-pressed") == "true"
    assert other.page.inner_text(".rows") == tab.page.inner_text(".rows")
    assert other.page.get_attribute("[aria-sort=descending]", "role") == "columnheader"
    shown = (
        "[verse.app.viewer.mask.opacity, verse.app.viewer.mask.outline, verse.app.viewer.named.on]"
    )
    assert other.ask(shown) == [0.7, True, False]
    hidden = other.page.locator("#levels [aria-pressed=false]").all_inner_texts()
    assert hidden == ["L1", "L3"] == other.ask("[...verse.app.viewer.mask.hidden]")
    other.page.click("#clear")
    assert tab.count != other.count
    assert other.said == []
    other.page.close()


def test_an_address_of_another_release_says_what_is_not_here(tab: Tab) -> None:
    """Followed in an open page: what is here is chosen, the rest is named, and nothing else is left."""
    tab.page.fill("#where", "grade == 3")
    tab.page.press("#where", "Enter")
    tab.until("verse.app.filters.table.where === 'grade == 3'")
    parts = "only=grade~2~7&only=toString~x&sort=nothing&window=constructor&opacity=x&hidden=T99,L1"
    tab.ask(f"location.hash = 'scan=verse904&level=L4&{parts}'")
    tab.until(DETAIL)
    assert tab.page.inner_text("#where-error").endswith("is not here: Grade 7, toString x.")
    assert tab.page.input_value("#where") == ""
    assert tab.count == tab.ask(
        "verse.facts.tables.vertebrae.cells.grade.filter((one) => one === 2).length"
    )
    assert tab.page.get_attribute("[data-window=bone]", "aria-pressed") == "true"
    tab.ask("location.hash = 'scan=verse999&level=L9'")
    tab.until("document.getElementById('where-error').textContent.endsWith(': scan verse999.')")
    assert tab.page.inner_text("#scan-name") == "No scan"
    assert tab.page.inner_text("#card") == tab.page.inner_text("#readout") == ""


def test_the_row_of_an_address_is_in_sight(tab: Tab, context: Any) -> None:
    """Also where it is the last of many."""
    other = Tab(context, f"{tab.page.url.split('#')[0]}#scan=verse904&level=L6")
    assert other.page.locator(".rows [aria-selected=true]").bounding_box()["y"] < 700
    assert other.said == []
    other.page.close()


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((1024, 700), id="small", marks=pytest.mark.slow),
        pytest.param((640, 400), id="zoom of 200 %"),
    ],
)
def test_a_small_window_shows_rows_and_pictures(tab: Tab, size: tuple[int, int]) -> None:
    """Some rows and a picture of some size can be seen, if need be by scrolling; axe-core agrees."""
    tab.row("T12").click()
    tab.until(DETAIL)
    tab.page.set_viewport_size({"width": size[0], "height": size[1]})
    assert tab.ask("verse.app.table.shownHeight") > 8 * 25
    assert tab.page.locator("#stage").bounding_box()["height"] > 200
    assert tab.ask("document.documentElement.scrollWidth") == size[0]
    assert browser.axe_violations(tab.page) == []


def test_rows_that_no_condition_can_name_are_named_by_number(tab: Tab, explored: Path) -> None:
    """A condition of more words than a query may have gives the same rows in Python, too."""
    where = " or ".join(["grade >= 1"] * 199)
    tab.page.fill("#where", where)
    tab.page.press("#where", "Enter")
    tab.until("verse.app.filters.table.passing !== null")
    tab.page.click("[data-facet=grade][data-word='2']")
    tab.page.click("[id='bar-level-T12']")
    line = tab.page.inner_text("#python-line")
    name, _, numbers = line.partition(".loc")
    arguments = dict(re.findall(r'(\w+)="(\w+)"', name))
    rows = vd.load_table("vertebrae", **arguments, root=explored).loc[json.loads(numbers)[0]]
    expected = vd.open_release("phantom", root=explored).select("grade == 2 and level == 'T12'")
    assert rows.equals(expected)


def test_a_patient_s_row_shows_a_scan_that_has_a_ct(tab: Tab) -> None:
    """The first of its scans may have none."""
    tab.page.click("#tab-subjects")
    tab.ask("verse.facts.scans = verse.facts.scans.filter((name) => !name.endsWith('951'))")
    tab.page.click(".rows .row:has-text('verse902')")
    assert tab.page.inner_text("#scan-name") == "verse902_split-verse952"
    tab.until(SHOWN)


def test_an_ended_explorer_says_so(context: Any, explorer: Server) -> None:
    """And what to type, as nothing in a browser would."""
    tab = Tab(context, explorer.url.split("?")[0])
    tab.page.route("**/scan/**", lambda route: route.abort())
    tab.row("T12").click()
    tab.page.wait_for_selector("#status button")
    assert "Start it again: verse-data explore" in tab.page.inner_text("#status")
    tab.page.close()


def test_the_keyboard_is_enough(tab: Tab) -> None:
    """From the condition over the rows to the crosshair, without a mouse."""
    press = tab.page.keyboard.press
    press("/")
    tab.page.keyboard.type("grade == 3")
    press("Enter")
    tab.until("verse.app.filters.table.where === 'grade == 3'")
    press("Escape")
    press("Home")
    tab.until(DETAIL)
    before = tab.mm
    tab.page.focus("#gl")
    press("ArrowUp")
    tab.until(
        f"document.getElementById('at').dataset.mm !== '{' '.join(f'{x:.2f}' for x in before)}'"
    )
    assert tab.mm[2] > before[2]
    press("Escape")
    press("t")
    tab.until("verse.app.filters.table.name === 'scans'")
    tab.page.focus("#tab-scans")
    press("ArrowRight")
    tab.until("verse.app.filters.table.name === 'subjects'")
    press("ArrowLeft")
    tab.page.focus("[role=columnheader] button")
    press("Enter")
    press("Enter")
    assert tab.page.get_attribute("[role=columnheader]", "aria-sort") == "descending"
    assert "verse904" in tab.page.inner_text(".rows .row >> nth=0")
    press("?")
    assert tab.page.is_visible("#help")


def test_nothing_needs_a_mouse(tab: Tab) -> None:
    """Tab alone reaches every button, box, list and field that can be seen."""
    tab.row("T12").click()
    tab.until(DETAIL)
    kinds = "button, input, select, canvas[tabindex], [tabindex='0']"
    every = f'[...document.querySelectorAll("{kinds}")].filter((one) => one.checkVisibility())'
    # Of tabs, as usual, the chosen one: arrows lead to the others.
    wanted = tab.ask(
        f"{every}.filter((one) => one.getAttribute('aria-selected') !== 'false').length"
    )
    tab.ask(
        f"{every}.forEach((one) => one.addEventListener('focus', () => one.dataset.reached = ''))"
    )
    tab.ask("document.activeElement.blur()")
    for _ in range(wanted + 5):
        tab.page.keyboard.press("Tab")

    assert tab.ask("document.querySelectorAll('[data-reached]').length") == wanted


def test_rows_are_saved_as_csv(tab: Tab, explored: Path) -> None:
    """Those that are left, with the columns and cells of the table."""
    tab.page.click("[data-facet=grade][data-word='3']")
    with tab.page.expect_download() as started:
        tab.page.click("#csv")
    saved = pd.read_csv(started.value.path())
    expected = vd.open_release("phantom", root=explored).select("grade == 3")

    assert list(saved.columns) == list(expected.columns)
    for column in ("scan_id", "level", "grade", "fracture_type"):
        assert saved[column].tolist() == expected[column].tolist()
    assert saved["centroid_z"].tolist() == pytest.approx(expected["centroid_z"].tolist(), abs=1e-5)


def test_the_card_names_the_cell_of_the_grade(tab: Tab, explored: Path) -> None:
    """Opened there, the workbook has the grade that the card shows; a line of Python serves it."""
    tab.row("T12").click()
    tab.until(DETAIL)
    card = tab.page.inner_text("#card")
    cell = re.search(r"Workbook\s+([A-Z]+[0-9]+) in", card)
    path = vd.open_release("phantom", root=explored).path("verse901", "grading")

    assert cell
    sheet = openpyxl.load_workbook(path).active
    assert f"Grade\n{sheet[cell[1]].value}\n" in card
    assert "unit=\"vertebra\", where=\"scan_id == 'verse901' and level == 'T12'\")[0]" in card


def test_a_damaged_store_shows_its_error(tab: Tab, explored: Path) -> None:
    """With the command that mends it; after that, the button shows the scan."""
    release = vd.open_release("phantom", root=explored)
    [store] = release.build_cache(["verse904"]).values()
    manifest = store / MANIFEST_KEY
    manifest.write_bytes(manifest.read_bytes().replace(b"verse904", b"verse905"))
    close_all()
    tab.page.click("#tab-scans")
    tab.page.click(".rows .row:has-text('verse904')")
    tab.page.wait_for_selector("#status button")
    assert "verse-data cache verify --repair" in tab.page.inner_text("#status")
    assert verse_data("cache", "verify", "--repair", "--root", str(explored)).returncode == 0
    tab.page.click("#status button")
    tab.until(SHOWN)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(tab: Tab, scheme: str) -> None:
    """Names, roles and contrast pass axe-core, in both schemes."""
    tab.page.emulate_media(color_scheme=scheme)
    tab.row("T12").click()
    tab.until(DETAIL)
    tab.page.keyboard.press("o")

    assert browser.axe_violations(tab.page) == []


def test_levels_can_be_hidden_and_the_mask_outlined(tab: Tab) -> None:
    """A level's button takes its colour out of the mask; outlined, there is none within."""
    tab.row("T12").click()
    tab.until(DETAIL)
    tab.page.click("#levels button:has-text('T12')")
    assert tab.page.get_attribute("#levels button:has-text('T12')", "aria-pressed") == "false"
    lut = "verse.app.viewer.nv.volumes[1].colormapLabel"
    assert tab.ask(f"{lut}.lut[4 * (19 - {lut}.min) + 3]") == 0
    assert tab.ask(f"{lut}.lut[4 * (20 - {lut}.min) + 3]") == 255
    tab.row("L3").click()
    tab.until(f"verse.app.state.level === 'L3' && {DETAIL}")
    tab.ask("verse.app.setView('sagittal')")
    tab.page.uncheck("#names")  # a dot is drawn where the crosshair is
    nv = "verse.app.viewer.nv"
    x, y = map(round, tab.ask(f"{nv}.frac2canvasPos({nv}.scene.crosshairPos)"))
    for outline in (False, True):
        tab.page.set_checked("#outline", outline)
        tab.page.wait_for_timeout(300)
        saturation = tab.picture()[..., 1]
        assert bool(saturation[y, x + 3] > 60) is not outline
        assert (saturation > 60).mean() > 0.02


def test_the_solid_view_shows_vertebrae_alone(tab: Tab, tmp_path: Path) -> None:
    """V leads from all four to it, the address keeps it, and what is seen has the colours of levels."""
    tab.row("L1").click()
    tab.until(DETAIL)
    tab.page.keyboard.press("v")
    assert tab.page.input_value("#view") == "solid"
    tab.until("location.hash.includes('view=solid')")
    seen = []
    for turn in (False, True):
        if turn:
            tab.page.focus("#gl")
            tab.page.keyboard.press("Shift+ArrowLeft")
        tab.page.wait_for_timeout(300)
        picture = tab.picture()
        seen.append(picture)
        shown = picture[..., 2] > 60
        assert 0.05 < shown.mean() < 0.6
        assert (picture[..., 1][shown] > 60).mean() > 0.9  # coloured: no grey block of CT
    assert (seen[0] != seen[1]).any()
    tab.page.keyboard.press("v")
    assert tab.page.input_value("#view") == "axial"
    tab.page.keyboard.press("m")
    tab.page.wait_for_timeout(300)
    assert (tab.picture()[..., 1] < 40).mean() > 0.8  # one grey slice


def test_without_webgl_there_are_slices(context: Any, explorer: Server) -> None:
    """Three planes on a canvas, with the patient's right on the left, and the same crosshair."""
    tab = Tab(context, f"{explorer.url.split('?')[0]}?plain")
    tab.row("L3").click()
    tab.until(DETAIL)
    assert not tab.ask(MARKS_OUTSIDE)  # of levels above the box, too
    tab.row("T12").click()
    tab.until(f"verse.app.state.level === 'T12' && {DETAIL}")
    tab.page.keyboard.press("d")
    tab.until(f"{SHOWN} && !verse.app.shown.detail")
    assert tab.page.inner_text("#level-here") == "T12"
    before, axial = tab.mm[0], "verse.app.viewer.tiles[0]"
    left, top, height = tab.ask(f"[{axial}.left, {axial}.top, {axial}.height]")
    tab.page.click("#gl", position={"x": left + 4, "y": top + height / 2})
    assert tab.said == []
    assert tab.mm[0] > before + 15
    tab.page.close()


@pytest.mark.parametrize("single_file", [False, True], ids=["folder", "one file"])
def test_a_page_on_disk_needs_nothing_else(
    browser: Any, explored: Path, tmp_path: Path, *, single_file: bool
) -> None:
    """From file:// and with the network off: tables, facets, and the vertebra that is clicked."""
    out = tmp_path / ("page.html" if single_file else "page")
    options: Any = {"scan_ids": ["verse901"], "single_file": single_file, "where": "grade >= 2"}
    vd.open_release("phantom", root=explored).save_explorer(out, tell=lambda _: None, **options)
    offline = browser.new_context(offline=True, viewport={"width": 1200, "height": 760})
    tab = Tab(offline, (out if single_file else out / "index.html").as_uri())
    rows = vd.open_release("phantom", root=explored).select("scan_id == 'verse901' and grade >= 2")

    assert tab.count == len(rows)
    assert not tab.page.is_visible("#where")
    tab.row("T12").click()
    tab.until(SHOWN)
    centroid = rows.set_index("level").loc["T12", ["centroid_x", "centroid_y", "centroid_z"]]
    assert tab.mm == pytest.approx(centroid.tolist(), abs=1.1)
    assert tab.page.inner_text("#level-here") == "T12"
    tab.page.click("#tab-subjects")
    assert tab.page.inner_text("#python-line").endswith('version="v1").loc[[0]]')
    assert {url.split(":")[0] for url in tab.asked} <= {"file", "data", "blob"}
    assert tab.said == []
    offline.close()
