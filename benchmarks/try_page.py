"""The page of `mobilezoo try` in headless Chromium: frames per second of its loop over those of the bare runtime.

    python benchmarks/try_page.py runs/digits/export/*.tflite runs/digits/export/*.onnx

Bare is the same file in the same tab: its runtime alone, on one tensor again and again. Loop, bare and the loop's two
workers on a picture in memory (no camera, nothing drawn) run in turns. The fake camera of 640x480 gives --camera-fps
frames per second, which bounds what fast networks reach; on few cores, its frames and what is drawn take time from the
network.
"Network at work" is the share of the loop's time in which the network's thread computed: what is missing, it waited.
Needs `mobilezoo device setup browser` and chromium.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
WANTED_RATE = """
const devices = navigator.mediaDevices;
const usual = devices?.getUserMedia.bind(devices);
if (devices) {{
  devices.getUserMedia = (wanted) => usual({ ...wanted, video: { ...wanted.video, frameRate: RATE } });
}"""
COUNT = """
window.counted = { frames: 0, busy: 0 };
window.Worker = class extends Worker {
  constructor(...given) {
    super(...given);
    this.addEventListener('message', ({ data: { answers } }) => {
      if (!answers) return;
      counted.frames += 1;
      for (const { times } of answers) counted.busy += times.run + times.read;
    });
  }
};"""
COUNTED = "({ ...counted, now: performance.now() })"
SETUP = """async () => {
  const { load } = await import('./network.mjs');
  const { Engine } = await import('./engine.mjs');
  const { networks } = await (await fetch('try.json')).json();
  const engine = new Engine();
  await engine.load(networks, 'wasm', 1, () => {});
  window.bare = { network: networks[0], runner: await load(networks[0], 'wasm', () => {}, 1), engine };
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
MEMORY = """async (ms) => {
  const send = () => window.bare.engine.answer(new ImageData(640, 480));
  const way = [send(), send(), send()];
  const start = performance.now();
  let count = 0;
  for (; performance.now() - start < ms; count += 1) {
    await way.shift();
    way.push(send());
  }
  const rate = (1000 * count) / (performance.now() - start);
  await Promise.all(way);
  return rate;
}"""

COLUMNS = (
    "file",
    "bare, frames/s",
    "loop / bare, median (least–most)",
    "without camera / bare",
    "network at work",
    "command to link, s",
    "page to first answer, s",
    "page, kB",
    "over a network",
    "load",
)


def film(folder: Path, camera_fps: int) -> Path:
    """Soft noise of 640x480 as uncompressed video, which the fake camera repeats."""
    rng = np.random.default_rng(0)
    path = folder / "film.y4m"
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W640 H480 F{camera_fps}:1 Ip A1:1 C420\n".encode())
        for _ in range(30):
            rough = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).convert("YCbCr")
            light, *colors = rough.resize((640, 480), Image.Resampling.BICUBIC).split()
            halves = [plane.resize((320, 240)) for plane in colors]
            file.write(b"FRAME\n" + b"".join(plane.tobytes() for plane in (light, *halves)))
    return path


@contextmanager
def chromium(camera_fps: int) -> Iterator[Any]:
    """A browser whose camera is a film."""
    found = shutil.which("chromium")
    if found is None:
        raise SystemExit("no chromium on this machine: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        camera = [
            f"--use-fake-device-for-media-stream=fps={camera_fps}",
            f"--use-file-for-fake-video-capture={film(Path(folder), camera_fps)}",
        ]
        browser = play.chromium.launch(executable_path=found, args=[*FLAGS, *camera])
        yield browser
        browser.close()


def first_answer(browser: Any, file: Path) -> dict[str, float]:
    """Seconds from the command to its link, and from the opened page to the first answer to a camera's frame."""
    command = [sys.executable, "-m", "mobilezoo", "try", str(file), "--local"]
    began = time.perf_counter()
    served = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert served.stdout is not None
        link = next(found.group(0) for line in served.stdout if (found := re.search(r"http://\S+", line)))
        linked = time.perf_counter()
        tab = browser.new_page()
        tab.goto(link)
        tab.wait_for_selector(READY, timeout=60_000)
        tab.click("#camera")
        tab.wait_for_selector(LIVE, timeout=60_000)
        answered = time.perf_counter()
        tab.close()
    finally:
        served.terminate()
        served.wait()
    return {"command_s": linked - began, "page_s": answered - linked}


def transferred_kb(browser: Any, file: Path, network: bool) -> float:
    """What the page loads until it is ready, headers and the network's own file not counted."""
    config = TryConfig(lan=network, https=False, address="127.0.0.1" if network else "", samples=0)
    sizes: list[int] = []
    with try_files([file], config=config) as page:
        packing, deadline = -1, time.monotonic() + 120
        while network and packing != len(page.site.packed) and time.monotonic() < deadline:
            packing = len(page.site.packed)
            time.sleep(15)
        tab = browser.new_page()
        tab.on(
            "response",
            lambda answer: sizes.append(0 if answer.url.endswith("model0") else int(answer.headers["content-length"])),
        )
        tab.goto(page.url)
        tab.wait_for_selector(READY, timeout=60_000)
        tab.close()
    return sum(sizes) / 1e3


def rates(browser: Any, file: Path, args: argparse.Namespace) -> dict[str, list[float]]:
    """Frames per second of loop, workers alone and bare runtime, and the share of time the loop's network computed."""
    found: dict[str, list[float]] = {"loop": [], "busy": [], "memory": [], "bare": []}
    with try_files([file], config=TryConfig(lan=False, samples=0)) as page:
        tab = browser.new_page()
        tab.add_init_script(WANTED_RATE.replace("RATE", str(args.camera_fps)))
        tab.add_init_script(COUNT)
        tab.goto(page.url)
        tab.wait_for_selector(READY, timeout=60_000)
        tab.evaluate(SETUP)
        for _ in range(args.turns):
            tab.click("#camera")
            tab.wait_for_selector(LIVE)
            time.sleep(1)
            before = tab.evaluate(COUNTED)
            time.sleep(args.seconds)
            after = tab.evaluate(COUNTED)
            passed_ms = after["now"] - before["now"]
            found["loop"].append(1000 * (after["frames"] - before["frames"]) / passed_ms)
            found["busy"].append((after["busy"] - before["busy"]) / passed_ms)
            tab.click("#camera")
            tab.wait_for_selector(READY)
            found["bare"].append(tab.evaluate(BARE, 1000 * args.seconds))
            found["memory"].append(tab.evaluate(MEMORY, 1000 * args.seconds))
        tab.close()
    return found


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def over(some: list[float], others: list[float]) -> str:
    return spread([one / other for one, other in zip(some, others, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the page of `mobilezoo try`.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--camera-fps", type=int, default=30, help="30 is what phones give as a rule")
    args = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|---|{'--:|' * (len(COLUMNS) - 1)}")
    with chromium(args.camera_fps) as browser:
        for file in args.files:
            got = rates(browser, file, args)
            bare = got["bare"]
            cells = [file.name, f"{median(bare):.1f}", over(got["loop"], bare), over(got["memory"], bare)]
            cells.append(spread(got["busy"]))
            starts = [first_answer(browser, file) for _ in range(5)]
            cells += [f"{median(one[name] for one in starts):.1f}" for name in ("command_s", "page_s")]
            cells += [f"{transferred_kb(browser, file, network):.0f}" for network in (False, True)]
            print(f"| {' | '.join([*cells, f'{os.getloadavg()[0]:.0f}'])} |", flush=True)


if __name__ == "__main__":
    main()
