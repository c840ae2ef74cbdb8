"""The page of `mobilezoo try` in headless Chromium: frames per second of its loop over those of the bare runtime.

    python benchmarks/try_page.py runs/digits/export/*.tflite runs/digits/export/*.onnx

Bare is the same file in the same tab: its runtime alone, on one tensor again and again. Loop and bare run in turns; a
loop's frames come from a fake camera of 640x480 that gives 60 per second, which bounds what fast networks reach.
Needs `mobilezoo device setup browser` and chromium.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from mobilezoo.workflows.try_file import TryConfig, try_files

READY = "body[data-state=ready]"
LIVE = "body[data-state=live][data-frames]"
FLAGS = ["--no-sandbox", "--disable-gpu", "--use-fake-ui-for-media-stream"]
FRAMES = "Number(document.body.dataset.frames || 0)"
SETUP = """async () => {
  const { load } = await import('./network.mjs');
  const { networks } = await (await fetch('try.json')).json();
  window.bare = { network: networks[0], runner: await load(networks[0], 'wasm', () => {}) };
}"""
BARE = """async (ms) => {
  const { network, runner } = window.bare;
  const size = network.input.shape.reduce((a, b) => a * b, 1);
  const tensor = network.input.dtype === 'float32' ? new Float32Array(size) : new Uint8Array(size);
  const start = performance.now();
  let count = 0;
  for (; performance.now() - start < ms; count += 1) await runner.run(tensor);
  return (1000 * count) / (performance.now() - start);
}"""


def film(folder: Path) -> Path:
    """Soft noise of 640x480 as uncompressed video of 60 frames per second, which the fake camera repeats."""
    rng = np.random.default_rng(0)
    path = folder / "film.y4m"
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W640 H480 F60:1 Ip A1:1 C420\n")
        for _ in range(30):
            rough = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), "YCbCr")
            planes = rough.resize((640, 480), Image.Resampling.BICUBIC).split()
            halves = [plane.resize((320, 240)) for plane in planes[1:]]
            file.write(b"FRAME\n" + b"".join(plane.tobytes() for plane in (planes[0], *halves)))
    return path


def measure(file: Path, seconds: float, turns: int) -> dict[str, Any]:
    """Frames per second of loop and bare runtime, seconds from the opened page to its first answer, kB it loads."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no chromium on this machine: apt-get install chromium")
    found: dict[str, Any] = {"loop": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        camera = [
            "--use-fake-device-for-media-stream=fps=60",
            f"--use-file-for-fake-video-capture={film(Path(folder))}",
        ]
        browser = play.chromium.launch(executable_path=chromium, args=[*FLAGS, *camera])
        with try_files([file], config=TryConfig(lan=False, samples=0)) as page:
            tab = browser.new_page()
            sizes: list[int] = []
            tab.on("response", lambda answer: sizes.append(int(answer.headers.get("content-length", 0))))
            opened = time.perf_counter()
            tab.goto(page.url)
            tab.wait_for_selector(READY, timeout=60_000)
            tab.click("#camera")
            tab.wait_for_selector(LIVE, timeout=60_000)
            now = time.perf_counter()
            found |= {"page_s": now - opened, "page_kb": sum(sizes) / 1e3}
            tab.click("#camera")
            tab.evaluate(SETUP)
            for _ in range(turns):
                tab.wait_for_selector(READY)
                tab.click("#camera")
                time.sleep(1)
                frames, start = tab.evaluate(FRAMES), time.perf_counter()
                time.sleep(seconds)
                found["loop"].append((tab.evaluate(FRAMES) - frames) / (time.perf_counter() - start))
                tab.click("#camera")
                tab.wait_for_selector(READY)
                found["bare"].append(tab.evaluate(BARE, 1000 * seconds))
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the page of `mobilezoo try`.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    print("| file | loop, frames/s | bare | loop / bare, median (least–most) | page to first answer, s | page, kB |")
    print("|---|--:|--:|--:|--:|--:|")
    for file in args.files:
        got = measure(file, args.seconds, args.turns)
        ratios = [loop / bare for loop, bare in zip(got["loop"], got["bare"], strict=True)]
        spread = f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        rates = f"{median(got['loop']):.1f} | {median(got['bare']):.1f}"
        print(f"| {file.name} | {rates} | {spread} | {got['page_s']:.1f} | {got['page_kb']:.0f} |", flush=True)


if __name__ == "__main__":
    main()
