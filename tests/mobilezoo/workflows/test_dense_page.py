"""Boxes and masks on the page of `mobilezoo try` and in a web kit, in Chromium, against `predict`. Nightly.

Needs `mobilezoo device setup browser` and chromium.
"""

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilezoo.artifacts import BoxThresholds
from mobilezoo.dense.reading import boxes_of
from mobilezoo.workflows.kit import write_kit
from mobilezoo.workflows.predict import predict
from mobilezoo.workflows.try_file import try_files
from tests.mobilezoo.workflows.dense_cases import detector, segmenter
from tests.mobilezoo.workflows.test_try_page import QUIET, READY, browser, film, opened, plain

__all__ = ["browser", "film", "plain"]
pytestmark = pytest.mark.nightly
READ = """async ([values, network]) => {
  const { boxesOf } = await import('./dense.mjs');
  return boxesOf(Float32Array.from(values), network).map((one) => [one.index, one.probability, ...one.sides]);
}"""
COLORS = """([id, places]) => {
  const canvas = document.querySelector(id);
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  const at = ([x, y]) => pen.getImageData(x * canvas.width, y * canvas.height, 1, 1).data;
  return places.map((place) => Array.from(at(place).slice(0, 3)));
}"""


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """Three stripes of the segmenter's three classes."""
    pixels = np.zeros((60, 120, 3), np.uint8)
    pixels[:, :40, 0], pixels[:, 40:80, 1], pixels[:, 80:, 2] = 255, 255, 255
    Image.fromarray(pixels).save(tmp_path / "flag.png")
    return tmp_path / "flag.png"


def test_the_page_reads_boxes_as_predict_does(plain: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = rng.random((300, 2)) * 0.6
    answer = np.concatenate((first, first + rng.random((300, 2)) * 0.4, rng.random((300, 3))), 1).astype(np.float32)
    network = {"output_shape": [300, 7], "boxes": {"score": 0.7, "overlap": 0.3}, "labels": []}
    expected = boxes_of(answer, BoxThresholds(score=0.7, overlap=0.3))
    with try_files([detector(tmp_path / "a.onnx")], config=QUIET) as page, opened(plain, page.url) as tab:
        found = tab.evaluate(READ, [answer.ravel().tolist(), network])
    np.testing.assert_allclose(found, [(box.index, box.probability, *box.sides) for box in expected], rtol=1e-6)
    assert len(found) > 10


def test_boxes_are_listed_and_drawn_as_predict_finds_them(plain: Any, tmp_path: Path) -> None:
    file = detector(tmp_path / "a.onnx")
    rng = np.random.default_rng(3)
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (3, 5, 3), dtype=np.uint8)).resize((160, 90)).save(path)
    found = predict(str(file), paths, top=100)
    assert any(one.boxes for one in found)
    with try_files([file], config=QUIET) as page, opened(plain, page.url) as tab:
        for path, one in zip(paths, found, strict=True):
            tab.set_input_files("#files", str(path))
            tab.wait_for_selector(f"{READY} #shots li:nth-child(1)")
            rows = tab.eval_on_selector_all(".best li:not([hidden])", "all => all.map((one) => one.innerText)")
            if not one.boxes:
                assert "nothing found" in rows[0]
                assert tab.inner_text("#shots li") == "nothing found"
                continue
            assert len(rows) == min(5, len(one.boxes))
            found_names = ", ".join(box.label for box in one.boxes[:3])
            assert tab.inner_text("#shots li").startswith(found_names)
            best = one.boxes[0]
            assert rows[0].split("\n")[0] == best.label
            middle = (best.top + best.bottom) / 2 / 90
            drawn, original = tab.evaluate(COLORS, ["#still", [[(best.left + 0.3) / 160, middle]]])[0], Image.open(path)
            seen = original.getpixel((max(0, min(159, round(best.left))), round(middle * 90)))
            assert np.abs(np.array(drawn) - seen[:3]).max() > 8, "no side of the best box"


def test_a_mask_is_drawn_over_what_it_covers_and_saved(plain: Any, flag: Path, tmp_path: Path) -> None:
    file = segmenter(tmp_path / "a.onnx")
    (expected,) = predict(str(file), [flag])
    with try_files([file], config=QUIET) as page, opened(plain, page.url) as tab:
        tab.set_input_files("#files", str(flag))
        tab.wait_for_selector(f"{READY} #shots li:nth-child(1)")
        clear, green, blue = tab.evaluate(COLORS, ["#still", [[0.15, 0.5], [0.5, 0.5], [0.85, 0.5]]])
        assert clear == [255, 0, 0]
        assert green != [0, 255, 0]
        assert blue not in ([0, 0, 255], green)
        rows = tab.eval_on_selector_all(".best li:not([hidden])", "all => all.map((one) => one.innerText)")
        assert [row.split("\n")[1] for row in rows] == [f"{100 * area.share:.1f} %" for area in expected.areas]
        things = [f"{area.label} ({100 * area.share:.1f} %)" for area in expected.areas if area.index]
        assert tab.inner_text("#shots li") == ", ".join(things[:2])
        with tab.expect_download() as download:
            tab.click("#shot")
        with Image.open(download.value.path()) as saved:
            assert np.abs(np.array(saved.convert("RGB").getpixel((450, 225))) - green).max() < 3


def test_the_camera_shows_the_frame_that_was_answered(browser: Any, film: Path, tmp_path: Path) -> None:
    chromium = browser(
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    )
    with try_files([segmenter(tmp_path / "a.onnx")], config=QUIET) as page, opened(chromium, page.url) as tab:
        tab.click("#camera")
        tab.wait_for_selector("body[data-state=live][data-frames]", timeout=30_000)
        assert tab.is_visible("#still")
        assert tab.is_hidden("#video")
        tab.click("#camera")
        tab.wait_for_selector(READY)
        assert tab.inner_text(".best li >> nth=0").split()[0] == "sky"
    chromium.close()


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_a_web_kit_draws_a_mask(plain: Any, flag: Path, tmp_path: Path) -> None:
    file = segmenter(tmp_path / "a.onnx")
    write_kit(file, "web", tmp_path / "kit")
    with served(tmp_path / "kit") as url:
        tab = plain.new_page()
        tab.goto(url)
        tab.wait_for_selector("body[data-state=ready], body[data-state=failed]")
        assert "onnxruntime-web" in tab.inner_text("#status")
        tab.set_input_files("#files", str(flag))
        tab.wait_for_selector("body[data-state=ready] #answers li canvas")
        clear, green = tab.evaluate(COLORS, ["#answers canvas", [[0.15, 0.5], [0.5, 0.5]]])
        assert clear == [255, 0, 0]
        assert green != [0, 255, 0]
        tab.close()
