"""Makes docs/demo.png out of the page that `mobilezoo demo` leaves. Needs playwright and chromium.

python docs/demo_picture.py runs/demo/report.html
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

COLUMNS = (
    ("header", "body .cards", "#training .grid", "#latency", "#search .winner"),
    ("#evaluation-1 h2", "#evaluation-1 .confusions", "#search h2", "#search .chart"),
)
"""Parts of the page, from top to bottom."""
HIDDEN = """
header nav, #latency .table, #latency > p, .confusions .table, #search .split > :nth-child(n+2),
#training .grid > :nth-child(n+2) { display: none }
.confusions { grid-template-columns: 1fr }
"""
"""Tables and lists, which are too small to be read in a picture, and more curves."""
HEIGHT = 1540
WIDTH, GAP, MARGIN = 780, 22, 30


def part(page: Page, selector: str) -> Image.Image:
    """One part as it is shown."""
    box, section = (page.locator(one).first.bounding_box() for one in (selector, "#search"))
    assert box is not None
    assert section is not None
    clip = {"x": section["x"], "y": box["y"], "width": section["width"], "height": box["height"]}
    return Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip))).convert("RGB")  # type: ignore[arg-type]


def main() -> None:
    report, out = Path(sys.argv[1]).resolve(), Path(__file__).with_name("demo.png")
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no chromium on this machine: apt-get install chromium")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, color_scheme="light")
        page.goto(report.as_uri())
        page.wait_for_timeout(2000)
        page.add_style_tag(content=HIDDEN)
        columns = [[part(page, selector) for selector in column] for column in COLUMNS]
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        browser.close()
    wide = max(image.width for column in columns for image in column)
    canvas = Image.new("RGB", (2 * wide + 3 * MARGIN, HEIGHT), ground)
    for place, column in enumerate(columns):
        top = MARGIN
        for image in column:
            canvas.paste(image, (MARGIN + place * (wide + MARGIN), top))
            top += image.height + GAP
        print(f"column {place + 1}: {top} of {HEIGHT} pixels")
    canvas.resize((1600, round(1600 * HEIGHT / canvas.width)), Image.Resampling.LANCZOS).quantize(192).save(
        out, optimize=True
    )
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
