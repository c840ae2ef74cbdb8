"""The page of `mobilezoo try` in Chromium: equal answers, camera, photographs, and every fault as one line.

Slow; needs `mobilezoo device setup browser` and chromium. The camera is fed by a file.
"""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilezoo.artifacts import InputSpec
from mobilezoo.installed import STAMP
from mobilezoo.workflows.model_options import NO_OPTIONS, ModelOptions
from mobilezoo.workflows.predict import predict
from mobilezoo.workflows.try_file import TryConfig, try_files
from mobilezoo_latency.browser import assets
from tests.mobilezoo.workflows.kit_cases import PREPARATIONS, columns_first
from tests.mobilezoo.workflows.test_try_file import network, onnx, recorded

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.slow
QUIET = TryConfig(lan=False, samples=0)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
READY = "body[data-state=ready]"
FOUR_CORES = "Object.defineProperty(Navigator.prototype, 'hardwareConcurrency', { get: () => 4 });"
NO_SIMD = "const real = WebAssembly.validate; WebAssembly.validate = (b) => b.length > 40 && real(b);"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not (assets.home() / STAMP).is_file():
        pytest.skip("no browser runtimes: run `mobilezoo device setup browser`")
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium on this machine: run `apt-get install chromium`")
    with playwright.sync_playwright() as play:
        yield lambda *flags: play.chromium.launch(executable_path=found, args=[*FLAGS, *flags])


@pytest.fixture(scope="module")
def plain(browser: Any) -> Iterator[Any]:
    """A browser without a camera."""
    opened = browser()
    yield opened
    opened.close()


@contextmanager
def opened(chromium: Any, url: str, script: str = "", **context: Any) -> Iterator[Any]:
    """A tab with the page, loaded or failed; nothing may break its policy."""
    complaints: list[str] = []
    tab = chromium.new_context(**context).new_page()
    tab.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda error: complaints.append(f"pageerror {error}"))
    if script:
        tab.add_init_script(script)
    tab.goto(url)
    tab.wait_for_selector(f"{READY}, body[data-state=failed]", timeout=60_000)
    yield tab
    assert not [text for text in complaints if "Content Security Policy" in text or "pageerror" in text]
    tab.context.close()


def answers_to(tab: Any, photographs: list[Path]) -> list[str]:
    """The page's best class of every photograph, in order; of two files with a comma between."""
    tab.set_input_files("#files", [str(path) for path in photographs])
    tab.wait_for_selector(f"{READY} #shots li:nth-child({len(photographs)})", timeout=120_000)
    found: list[str] = tab.eval_on_selector_all("#shots button", "all => all.map((one) => one.dataset.top)")
    return found


def best_of(file: Path, photographs: list[Path], options: ModelOptions = NO_OPTIONS) -> list[str]:
    return [str(one.best[0].index) for one in predict(str(file), photographs, options)]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """64 JPEGs of many sizes, some turned by EXIF: soft colors with edges."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    paths = []
    for number in range(64):
        width, height = (int(side) for side in rng.integers(40, 400, 2))
        rough = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
        image = rough.resize((width, height), Image.Resampling.BICUBIC)
        exif = Image.Exif()
        exif[0x0112] = int(rng.integers(1, 9)) if number % 4 == 0 else 1
        image.save(folder / f"{number:02}.jpg", quality=90, exif=exif)
        paths.append(folder / f"{number:02}.jpg")
    return paths


CROPS = """async ([urls, size, prep]) => {
  const { cropped } = await import('./prepare.mjs');
  const { decode } = await import('./decode.mjs');
  const all = [];
  for (const url of urls) {
    const image = await decode(await (await fetch(url)).blob());
    all.push(Array.from(cropped(image, size, prep)));
  }
  return all;
}"""


@pytest.mark.parametrize("channels", [3, 1])
def test_every_byte_of_every_crop_equals_the_evaluation_transform(
    channels: int, plain: Any, photographs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mobilezoo.data.pixels import Pixels
    from mobilezoo.data.transforms import eval_pixels

    images = [Pixels(channels=channels).read(path) for path in photographs[:6]]
    with try_files([network(tmp_path / "a.onnx")], config=QUIET) as page, opened(plain, page.url) as tab:
        for number, path in enumerate(photographs[:6]):
            lossless = io.BytesIO()
            Pixels().read(path).save(lossless, "PNG")
            page.site.blobs[f"{number}.png"] = lossless.getvalue()
        for name, prep in PREPARATIONS.items():
            prep = prep.for_channels(channels)
            for size in ((32, 32), (24, 40)):
                fit = eval_pixels(prep, size)
                found = tab.evaluate(CROPS, [[f"{i}.png" for i in range(6)], size, prep.model_dump(mode="json")])
                for image, given in zip(images, found, strict=True):
                    with monkeypatch.context() as patch:
                        patch.setattr(Image.Image, "resize", columns_first)
                        expected = fit(image).permute(1, 2, 0).numpy()
                    got = np.array(given, np.uint8).reshape(expected.shape)
                    assert np.array_equal(got, expected), (name, size, image.size)
                    usual = fit(image).permute(1, 2, 0).numpy()
                    assert np.abs(usual.astype(int) - got).mean() < 0.5, (name, size, image.size)


def test_two_onnx_files_answer_photographs_as_eval_does(plain: Any, photographs: list[Path], tmp_path: Path) -> None:
    files = [
        network(tmp_path / "a.onnx", preprocessing=PREPARATIONS["center bicubic"]),
        network(
            tmp_path / "b.onnx",
            preprocessing=PREPARATIONS["squash bilinear"],
            input=InputSpec(shape=(1, 3, 16, 16), colors="BGR"),
            labels=(),
        ),
    ]
    expected = [best_of(file, photographs) for file in files]
    assert len(set(expected[0])) > 3
    with try_files(files, config=QUIET) as page, opened(plain, page.url) as tab:
        assert answers_to(tab, photographs) == [",".join(pair) for pair in zip(*expected, strict=True)]
        same = sum(a == b for a, b in zip(*expected, strict=True))
        assert f"same answer on {same} of 64" in tab.inner_text("#score")
        assert "b.onnx has no labels" in tab.inner_text("#facts")
        assert "onnxruntime-web, WebAssembly" in tab.inner_text(".panel .where >> nth=0")
        broken = tmp_path / "broken.jpg"
        broken.write_bytes(b"no image")
        tab.set_input_files("#files", [str(photographs[0]), str(broken)])
        tab.wait_for_selector(f"{READY} #shots li:nth-child(2)")
        assert "broken.jpg: this browser reads no picture in it" in tab.inner_text("#shots")


def test_a_quantized_tflite_of_others_answers_photographs_as_eval_does(plain: Any, shared: Path) -> None:
    file = shared / "foreign" / "tflite" / "coral_mobilenet_v1_0.25_128_quant.tflite"
    images = sorted((shared / "foreign" / "images").rglob("*.jpg"))[::5][:64]
    options = ModelOptions(preprocess="raw")
    with try_files([file], options, config=QUIET) as page, opened(plain, page.url) as tab:
        assert answers_to(tab, images) == best_of(file, images, options)
        assert "LiteRT.js, WebAssembly" in tab.inner_text(".panel .where")
        assert "not proven here" in tab.inner_text(".panel .what")


def test_samples_of_the_data_set_are_scored(plain: Any, tmp_path: Path) -> None:
    file = network(tmp_path / "a.onnx")
    config = TryConfig(lan=False, samples=12)
    with try_files([file], data="digits", config=config) as page, opened(plain, page.url) as tab:
        tab.wait_for_selector(f"{READY} #shots li:nth-child(12)")
        truths = [one["truth"]["index"] for one in page.description["samples"]]
        found = tab.eval_on_selector_all("#shots button", "all => all.map((one) => Number(one.dataset.top))")
        right = sum(a == b for a, b in zip(truths, found, strict=True))
        assert f"12 pictures · {right} of 12 right" in tab.inner_text("#score")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of one color."""
    frame = io.BytesIO()
    Image.new("RGB", (320, 240), (200, 60, 30)).save(frame, "JPEG", quality=95)
    path = tmp_path_factory.mktemp("film") / "film.mjpeg"
    path.write_bytes(frame.getvalue() * 60)
    return path


def test_the_camera_runs_pauses_and_is_saved(browser: Any, film: Path, tmp_path: Path) -> None:
    files = [network(tmp_path / "a.onnx"), network(tmp_path / "b.onnx")]
    still = tmp_path / "still.png"
    Image.new("RGB", (320, 240), (200, 60, 30)).save(still)
    chromium = browser(
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    )
    phone: dict[str, Any] = {
        "viewport": {"width": 390, "height": 800},
        "is_mobile": True,
        "has_touch": True,
        "color_scheme": "dark",
    }
    with try_files(files, config=QUIET) as page, opened(chromium, page.url, **phone) as tab:
        tab.focus("#camera")
        tab.keyboard.press("Enter")
        tab.wait_for_selector("body[data-state=live][data-frames]", timeout=30_000)
        tab.wait_for_timeout(1500)
        tab.keyboard.press("Enter")
        tab.wait_for_selector(READY)
        frames = int(tab.get_attribute("body", "data-frames"))
        assert frames > 3
        assert f"100.0 % same best class, {frames} of {frames} frames" in tab.inner_text("#agreement")
        assert tab.inner_text(".best li >> nth=0").split()[0] == predict(str(files[0]), [still])[0].best[0].label
        assert float(tab.inner_text("[data-of=rate] >> nth=0")) > 0
        assert tab.inner_text("#camera") == "Go on"
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than a phone"
        with tab.expect_download() as download:
            tab.click("#shot")
        with Image.open(download.value.path()) as saved:
            assert (saved.format, saved.width) == ("PNG", 900)
    chromium.close()


def test_without_a_camera_or_permission_photographs_still_work(
    browser: Any, plain: Any, photographs: list[Path], tmp_path: Path
) -> None:
    file = network(tmp_path / "a.onnx")
    refusing = browser("--use-fake-device-for-media-stream", "--deny-permission-prompts")
    bare = "Object.defineProperty(navigator, 'mediaDevices', { value: undefined });"
    with try_files([file], config=QUIET) as page:
        for chromium, script, expected in (
            (plain, "", "No camera was found on this device"),
            (refusing, "", "The camera was refused"),
            (plain, bare, "This browser gives pages no camera"),
        ):
            with opened(chromium, page.url, script) as tab:
                tab.click("#camera")
                playwright.expect(tab.locator("#alert")).to_contain_text(expected)
                assert tab.inner_text("#alert").endswith("Photographs still work.")
                assert answers_to(tab, photographs[:3]) == best_of(file, photographs[:3])
    refusing.close()


def unknown_operator(folder: Path, kind: str) -> Path:
    """A file with an operator that nobody has."""
    if kind == "onnx":
        helper, float_kind = onnx.helper, onnx.TensorProto.FLOAT
        ends = [helper.make_tensor_value_info(name, float_kind, [1, 3, 16, 16]) for name in ("x", "y")]
        graph = helper.make_graph([helper.make_node("AcmeFold", ["x"], ["y"], domain="acme")], "g", ends[:1], ends[1:])
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("acme", 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "a.onnx")
        return recorded(folder / "a.onnx", "onnx")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    import flatbuffers

    from mobilezoo_latency.emulator.probe import write_probe

    path = write_probe(folder / "a.tflite", in_channels=3)
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    code, operator = model.operatorCodes[0], model.subgraphs[0].operators[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"AcmeFold"
    operator.builtinOptionsType, operator.builtinOptions = 0, None
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    shape = tuple(int(side) for side in model.subgraphs[0].tensors[0].shape)
    return recorded(path, "litert", input=InputSpec(shape=shape, layout="NHWC"), labels=())


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_an_operator_that_the_runtime_lacks_is_named(kind: str, plain: Any, tmp_path: Path) -> None:
    file = unknown_operator(tmp_path, kind)
    with try_files([file], config=QUIET) as page, opened(plain, page.url) as tab:
        assert tab.get_attribute("body", "data-state") == "failed"
        assert "AcmeFold is not in this browser's runtime" in tab.inner_text("#alert")


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_several_threads_run_in_the_worker(kind: str, plain: Any, tmp_path: Path) -> None:
    from mobilezoo_latency.emulator.probe import SIDE, write_probe

    if kind == "onnx":
        file = network(tmp_path / "a.onnx")
    else:
        spec = InputSpec(shape=(1, SIDE, SIDE, 3), layout="NHWC")
        file = recorded(write_probe(tmp_path / "a.tflite", in_channels=3), "litert", input=spec, labels=())
    with try_files([file], config=QUIET) as page, opened(plain, page.url, FOUR_CORES) as tab:
        assert "WebAssembly, 2 threads" in tab.inner_text(".where"), tab.inner_text(".where")


UNDER_WAY = """async () => {
  const { Engine } = await import('./engine.mjs');
  const { networks } = await (await fetch('try.json')).json();
  const engine = new Engine();
  await engine.load(networks, 'wasm', 1, () => {});
  const image = (i) => {
    const data = new Uint8ClampedArray(64 * 48 * 4);
    for (let at = 0; at < data.length; at++) data[at] = ((at * (i + 3) * 7919) >> 4) & 255;
    return { data, width: 64, height: 48 };
  };
  const found = ({ image: { data }, answers }) => [data[100], ...answers[0].best.map((one) => one.probability)];
  const alone = [];
  for (let i = 0; i < 6; i++) alone.push(found(await engine.answer(image(i))));
  const ended = [];
  const all = Array.from({ length: 6 }, async (_, i) => {
    const one = await engine.answer(image(i));
    ended.push(i);
    return found(one);
  });
  return { alone, together: await Promise.all(all), ended };
}"""


def test_images_under_way_at_once_keep_their_order_and_their_answers(plain: Any, tmp_path: Path) -> None:
    with try_files([network(tmp_path / "a.onnx")], config=QUIET) as page, opened(plain, page.url) as tab:
        found = tab.evaluate(UNDER_WAY)
        assert found["together"] == found["alone"]
        assert len({str(one) for one in found["alone"]}) == 6
        assert found["ended"] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("worker", ["network-worker.js", "prepare-worker.mjs"])
def test_a_worker_that_does_not_start_is_one_message(worker: str, plain: Any, tmp_path: Path) -> None:
    with try_files([network(tmp_path / "a.onnx")], config=QUIET) as page:
        page.site.blobs[worker] = b"throw new Error('no such thing');"
        with opened(plain, page.url) as tab:
            playwright.expect(tab.locator("#alert")).to_contain_text(f"a.onnx: {worker}: Uncaught Error: no such thing")
            assert tab.get_attribute("body", "data-state") == "failed"


def test_a_browser_without_simd_is_told_what_to_use(plain: Any, tmp_path: Path) -> None:
    with try_files([network(tmp_path / "a.onnx")], config=QUIET) as page, opened(plain, page.url, NO_SIMD) as tab:
        assert "no WebAssembly SIMD" in tab.inner_text("#alert")
        assert "Chrome 91" in tab.inner_text("#alert")


def test_buttons_have_names_and_answers_are_announced(plain: Any, photographs: list[Path], tmp_path: Path) -> None:
    with try_files([network(tmp_path / "a.onnx")], config=QUIET) as page, opened(plain, page.url) as tab:
        answers_to(tab, photographs[:1])
        for name in ("Start camera", "Save picture"):
            assert tab.get_by_role("button", name=name).is_visible()
        assert tab.get_by_label("Runs on").input_value() == "wasm"
        assert tab.get_by_role("heading", name="a.onnx").is_visible()
        assert tab.get_by_role("img", name="whole frame: median").is_visible()
        assert tab.inner_text("#spoken") == tab.inner_text(".best li >> nth=0 >> span >> nth=0")
        reached = set()
        for _ in range(12):
            tab.keyboard.press("Tab")
            reached.add(tab.evaluate("document.activeElement.id"))
        assert {"camera", "files", "shot", "accelerator"} <= reached
