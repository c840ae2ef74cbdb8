"""Web kits in Chromium, served by Python's own static server, against `mobilezoo predict` on 64 photographs. Slow.

Needs `mobilezoo device setup browser` and chromium.
"""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mobilezoo.workflows.kit import write_kit
from mobilezoo_latency.browser import assets
from tests.mobilezoo.workflows.kit_cases import (
    Case,
    Guesses,
    assert_same,
    expected,
    expected_columns_first,
    exported_cases,
    foreign_cases,
    onnx_cases,
    photographs,
)

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.nightly
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
READ = """all => all.map((one) => [...one.querySelectorAll('ol li')].map(
  (line) => [+line.dataset.index, +line.dataset.probability]))"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if not (assets.home() / assets.STAMP).is_file():
        pytest.skip("no browser runtimes: run `mobilezoo device setup browser`")
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium on this machine: run `apt-get install chromium`")
    with playwright.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=found, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return photographs(tmp_path_factory.mktemp("photographs"))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder, served as the kit's README has it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


def answers(tab: Any, images: list[Path]) -> Guesses:
    tab.set_input_files("#files", [str(path) for path in images])
    tab.wait_for_selector(f"body[data-state=ready] #answers > li:nth-child({len(images)})", timeout=120_000)
    found = tab.eval_on_selector_all("#answers > li", READ)
    return [[(int(index), share) for index, share in one] for one in found]


def check(case: Case, images: list[Path], chromium: Any, out: Path) -> str:
    """The text of the page, once it answered as predict does."""
    write_kit(case.file, "web", out, case.options)
    with served(out) as url:
        tab = chromium.new_page()
        complaints: list[str] = []
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("requestfailed", lambda request: complaints.append(request.url))
        tab.goto(url)
        tab.wait_for_selector("body[data-state=ready], body[data-state=failed]", timeout=60_000)
        assert tab.get_attribute("body", "data-state") == "ready", tab.inner_text("#status")
        found = answers(tab, images)
        if case.file.parent.name == "tflite":  # real photographs
            assert_same(found, expected(case, images), atol=0.05)  # Pillow 13's order of passes
        else:
            assert_same(found, expected_columns_first(case, images))
        text: str = tab.inner_text("body")
        tab.close()
    assert not complaints
    return text


@pytest.mark.parametrize("name", ["center", "squash"])
def test_onnx_pages_answer_as_predict_does(name: str, images: list[Path], chromium: Any, tmp_path: Path) -> None:
    text = check(onnx_cases(tmp_path)[name], images, chromium, tmp_path / "kit")
    assert "onnxruntime-web, WebAssembly" in text
    assert ("no names of classes" in text) == (name == "squash")
    assert ('plain "quoted"' in text) == (name == "center")


@pytest.mark.parametrize("name", ["softmax", "batch", "flexible"])
def test_pages_of_our_exports_answer_as_predict_does(
    name: str, images: list[Path], chromium: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check(exported_cases(tmp_path_factory.getbasetemp())[name], images, chromium, tmp_path / "kit")


def test_the_page_of_a_uint8_file_of_others_answers_as_predict_does(
    chromium: Any, shared: Path, tmp_path: Path
) -> None:
    taken = sorted((shared / "foreign" / "images").rglob("*.jpg"))[::5][:64]
    check(foreign_cases(shared)["coral"], taken, chromium, tmp_path / "kit")


def test_images_that_are_none_and_a_file_that_is_gone_are_a_line(
    images: list[Path], chromium: Any, tmp_path: Path
) -> None:
    write_kit(onnx_cases(tmp_path)["center"].file, "web", tmp_path / "kit")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with served(tmp_path / "kit") as url:
        tab = chromium.new_page()
        tab.goto(url)
        tab.wait_for_selector("body[data-state=ready]")
        answers(tab, [images[0], tmp_path / "broken.jpg"])
        assert "broken.jpg: this browser reads no picture in it" in tab.inner_text("#answers")
        (tmp_path / "kit" / "model.onnx").unlink()
        tab.goto(url)
        tab.wait_for_selector("body[data-state=failed]")
        assert "status 404" in tab.inner_text("#status")
        tab.close()
