"""The chart of README, out of the table in docs/benchmarks.md: no number is typed twice.

::

    python benchmarks/chart.py        # writes docs/images/loader-speed.svg
"""

from __future__ import annotations

import re
import sys
from html import escape
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
OURS = "verse-data, 2 threads"
SHOWN = {
    OURS: "verse-data, 2 threads",
    "memory map, kept open": "uncompressed memory map",
    "nnU-Net, int16, opened at each read": "nnU-Net, blosc2 as int16",
    "nnU-Net, float32, as it ships": "nnU-Net, blosc2 as it ships",
    "MONAI CacheDataset, copy_cache=False, all in memory": "MONAI CacheDataset, all in memory",
    "TorchIO Queue, 16 patches a volume, held in memory": "TorchIO Queue, all in memory",
    "MONAI PersistentDataset, 4 patches a volume": "MONAI PersistentDataset",
}
ROW, BAR, LEFT, WIDE = 34, 20, 290, 390


def speeds(text: str) -> dict[str, float]:
    """Return patches a second, as parts of ours, of the table of loaders."""
    rows = re.findall(r"^\| ([^|]+?) \| ([\d.]+) \| [\d.]+ x \|", text, re.MULTILINE)
    found = {name: float(rate) for name, rate in rows}
    return {title: found[name] / found[OURS] for name, title in SHOWN.items()}


def draw(parts: dict[str, float]) -> str:
    """Return bars as SVG, on a ground of their own, so that they are read on light and dark pages."""
    high = 70 + ROW * len(parts)
    title = "Patches of 96³ per second through a loader, as parts of verse-data's"
    view = f'viewBox="0 0 760 {high}" role="img" font-family="system-ui, sans-serif" font-size="15"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {view}>', f"<title>{escape(title)}</title>"]
    lines += [f'<rect width="760" height="{high}" rx="8" fill="#fff"/>']
    lines += [_text(20, 34, title, 'font-size="17" font-weight="600"')]
    for number, (name, part) in enumerate(parts.items()):
        top, wide = 54 + ROW * number, round(WIDE * part)
        colour, weight = ("#0b5f6b", 600) if part == 1 else ("#8a97a3", 400)
        style = f'font-weight="{weight}"'
        bar = f'x="{LEFT}" y="{top}" width="{wide}" height="{BAR}" rx="2" fill="{colour}"'
        lines += [_text(LEFT - 10, top + BAR - 5, name, f'text-anchor="end" {style}')]
        lines += [f"<rect {bar}/>", _text(LEFT + wide + 8, top + BAR - 5, f"{part:.2f}", style)]
    return "\n".join([*lines, "</svg>", ""])


def _text(x: int, y: int, text: str, style: str) -> str:
    return f'<text x="{x}" y="{y}" fill="#111" {style}>{escape(text)}</text>'


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "images" / "loader-speed.svg"
    out.write_text(draw(speeds((DOCS / "benchmarks.md").read_text(encoding="utf-8"))), "utf-8")
