"""Times of the explorer's page, measured in Chromium: ``python benchmarks/explorer.py``.

Printed are the time from the click on a row to the first picture of a 512 x 512 x 400 scan that is
converted, to its full resolution around the vertebra, and that of filtering 4,000 rows. Without a
GPU (``--gpu`` uses one) pictures are drawn by SwiftShader, which takes most of the time.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

import verse_data as vd
from verse_data import phantom
from verse_data.explorer.server import Server
from verse_data.progress import silent

SOFTWARE = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
GROW = """() => {
  const table = verse.facts.tables.vertebrae, size = table.index.length, times = Math.ceil(4000 / size);
  for (const [name, cells] of Object.entries(table.cells))
    table.cells[name] = Array.from({ length: 4000 }, (_, at) => cells[at % size]);
  table.index = Array.from({ length: 4000 }, (_, at) => at);
  verse.app.filters = new verse.Filters(verse.facts);
  return verse.app.openTable("vertebrae");
}"""

CLICK = """(box) => {
  const start = performance.now();
  document.querySelector(box).click();
  document.body.offsetHeight;  // lays the page out, as what is measured is what is seen
  return performance.now() - start;
}"""


def wait(page: Page, expression: str) -> None:
    """Wait until an expression is true in the page, which evaluates no texts by itself."""
    end = time.monotonic() + 60
    while not page.evaluate(expression):
        if time.monotonic() > end:
            raise SystemExit(f"never true: {expression}")
        page.wait_for_timeout(10)


def measure(page: Page, address: str) -> None:
    """Print the times of one visit."""
    page.goto(address)
    wait(page, "document.documentElement.hasAttribute('data-ready')")
    page.locator(".rows .row").nth(1).click()
    start = time.perf_counter()
    wait(page, "!!verse.firstPictureTook")
    first = page.evaluate("verse.firstPictureTook")
    wait(page, "document.getElementById('stage').ariaBusy === 'false'")
    print(f"{'first picture, ms':32}{first:8.0f}")
    print(f"{'full resolution, ms':32}{1000 * (time.perf_counter() - start):8.0f}")
    page.evaluate(GROW)
    boxes = [f"[data-facet=grade][data-word='{grade}']" for grade in range(4)] * 5
    took = [page.evaluate(CLICK, box) for box in boxes]
    print(f"{'filter 4,000 rows, ms (median)':32}{statistics.median(took):8.1f}")
    print(f"{'filter 4,000 rows, ms (longest)':32}{max(took):8.1f}")


def main() -> None:
    """Write a phantom of this size, convert its first scan, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="512,512,400", help="voxels of the scan")
    parser.add_argument("--gpu", action="store_true", help="draw with the GPU")
    options = parser.parse_args()
    shape = tuple(int(part) for part in options.shape.split(","))
    flags = ["--no-sandbox", "--ignore-gpu-blocklist", *([] if options.gpu else SOFTWARE)]
    with tempfile.TemporaryDirectory() as folder:
        tree = phantom.write(Path(folder) / "tree", n_subjects=4, shape=(48, 96, 36))
        resample(tree, shape)
        release = vd.lock_tree("phantom", tree, root=folder, check=False, progress=silent)
        release.build_cache(["verse901"], progress=silent)
        server = Server(release)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
            measure(browser.new_page(viewport={"width": 1600, "height": 1000}), server.url)
            browser.close()
        server.shutdown()
        server.server_close()


def resample(tree: Path, shape: tuple[int, ...]) -> None:
    """Enlarge CT and mask of the first scan to `shape`, by repeating voxels, and add noise to the CT."""
    import numpy as np

    from verse_data.spine.geometry import apply_affine
    from verse_data.volumes.nifti import read_image, read_mask, write_nifti

    random = np.random.default_rng(0)
    for read, name in ((read_image, "ct"), (read_mask, "seg-vert_msk")):
        [path] = tree.rglob(f"sub-verse901_{name}.nii.gz")
        volume = read(path, name=path.name)
        steps = [old / new for old, new in zip(volume.shape, shape, strict=True)]
        index = [
            (np.arange(new) * step).astype(int) for new, step in zip(shape, steps, strict=True)
        ]
        grown = volume.array[np.ix_(*index)]
        if name == "ct":
            grown = grown + random.integers(-20, 21, grown.shape, dtype=np.int16)
        affine = volume.affine @ np.diag([*steps, 1.0])
        affine[:3, 3] = apply_affine(volume.affine, [(step - 1) / 2 for step in steps])
        write_nifti(path, grown, affine)


if __name__ == "__main__":
    main()
