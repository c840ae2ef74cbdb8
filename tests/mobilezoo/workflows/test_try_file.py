"""`mobilezoo try`: what the page is given, what is refused, and the links that it is reached by."""

import gzip
import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilezoo.artifacts import Artifact, InputSpec, Preprocessing, Quantization, save_record
from mobilezoo.cli.main import main
from mobilezoo.errors import ConfigError, DeviceError, MobilezooError
from mobilezoo.files import sha256_of, size_of
from mobilezoo.workflows import try_file
from mobilezoo.workflows.hooks import Hooks
from mobilezoo.workflows.model_options import ModelOptions
from mobilezoo.workflows.try_file import PAGE, TryConfig, try_files
from mobilezoo_latency.browser import assets

onnx = pytest.importorskip("onnx")
SIDE, CLASSES = 16, 10
LOCAL = TryConfig(lan=False, samples=6)


def network(path: Path, **changes: Any) -> Path:
    """A random linear classifier of small images, with its record."""
    helper, kinds = onnx.helper, onnx.TensorProto
    weights = np.random.default_rng(0).standard_normal((3 * SIDE * SIDE, CLASSES), dtype=np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    ends = [
        helper.make_tensor_value_info(name, kinds.FLOAT, shape)
        for name, shape in (("x", [1, 3, SIDE, SIDE]), ("y", [1, CLASSES]))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [onnx.numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return recorded(path, "onnx", **changes)


def recorded(path: Path, target: str, **changes: Any) -> Path:
    fields: dict[str, Any] = {
        "path": path.name,
        "target": target,
        "precision": "fp32",
        "model": "tiny",
        "input": InputSpec(shape=(1, 3, SIDE, SIDE)),
        "preprocessing": Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3),
        "labels": tuple(str(i) for i in range(CLASSES)),
        "sha256": sha256_of(path),
        "size_bytes": size_of(path),
        "parity": None,
        "tools": {},
    }
    save_record(path, Artifact(**{**fields, **changes}))
    return path


@pytest.fixture
def runtimes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files without content in place of the JavaScript runtimes."""
    folder = tmp_path / "runtimes"
    for name in assets.NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b'import { x } from "@litertjs/wasm-utils";' if name == "litert/index.js" else b"")
    monkeypatch.setattr(assets, "find_assets", lambda: folder)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


@pytest.mark.usefixtures("runtimes")
def test_the_page_is_given_what_the_record_holds_and_serves_nothing_else(tmp_path: Path) -> None:
    file = network(tmp_path / "a.onnx")
    with try_files([file], data="digits", config=LOCAL) as page:
        described = json.loads(get(page.url + "try.json"))
        (given,) = described["networks"]
        assert (given["name"], given["runtime"], given["size"]) == ("a.onnx", "onnx", [SIDE, SIDE])
        assert given["preprocessing"]["crop_pct"] == 0.875
        assert get(page.url + given["url"]) == file.read_bytes()
        assert len(described["samples"]) == 6
        assert {one["truth"]["label"] for one in described["samples"]} <= {str(i) for i in range(10)}
        assert get(page.url + described["samples"][0]["url"])[:4] == b"\x89PNG"
        for name in PAGE.iterdir():
            assert get(page.url + name.name)
        for wrong in (page.url + "a.onnx", page.url.replace(page.site.token, "x"), page.url + "../a.onnx"):
            with pytest.raises(urllib.error.HTTPError):
                get(wrong)
    with pytest.raises(OSError, match="refused"):
        get(page.url)


@pytest.mark.usefixtures("runtimes")
def test_runtimes_cross_the_network_compressed_where_the_browser_takes_it(tmp_path: Path) -> None:
    name = "ort/ort-wasm-simd-threaded.wasm"
    (tmp_path / "runtimes" / name).write_bytes(b"wasm" * 5000)
    config = TryConfig(lan=True, https=False, address="127.0.0.1", samples=0)
    with try_files([network(tmp_path / "a.onnx")], config=config) as page:
        deadline = time.monotonic() + 30
        while name not in page.site.packed and time.monotonic() < deadline:
            time.sleep(0.01)
        for accepts, expected in (("br;q=0.5, GZIP;q=0.9", "gzip"), ("gzip;q=0, br", None), ("", None)):
            asked = urllib.request.Request(page.url + name, headers={"Accept-Encoding": accepts})
            with urllib.request.urlopen(asked, timeout=10) as answer:
                body = answer.read()
            assert answer.headers["Content-Encoding"] == expected
            assert answer.headers["Content-Type"] == "application/wasm"
            assert len(body) < 1000 if expected else len(body) == 20_000
            assert (gzip.decompress(body) if expected else body) == b"wasm" * 5000
        assert not [one for one in page.site.packed if one.startswith("litert")]
    with try_files([network(tmp_path / "a.onnx")], config=LOCAL) as page:
        assert not page.site.packed


@pytest.mark.usefixtures("runtimes")
def test_two_files_of_one_name_are_told_apart_and_three_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    files = [network(tmp_path / "a.onnx"), network(tmp_path / "x" / "a.onnx")]
    with try_files(files, config=LOCAL) as page:
        assert [one["name"] for one in page.description["networks"]][1] == "x/a.onnx"
    with pytest.raises(ConfigError, match="3 files: the page runs one, or two"), try_files([*files, files[0]]):
        pass


@pytest.mark.usefixtures("runtimes")
def test_a_file_without_labels_is_shown_by_numbers_and_that_is_a_message(tmp_path: Path) -> None:
    heard: list[str] = []
    file = network(tmp_path / "a.onnx", labels=())
    with try_files([file], config=LOCAL, hooks=Hooks(on_message=heard.append)) as page:
        assert (
            page.description["notes"] == heard == ["a.onnx has no labels: classes are shown by their number (--labels)"]
        )
    with try_files([file], ModelOptions(labels=tuple("abcdefghij")), config=LOCAL) as page:
        assert not page.description["notes"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.pte", r"'a\.pte' runs in no browser: the page runs \.tflite \(LiteRT\.js\) and \.onnx"),
        ("a.qnn.onnx", r"runs in no browser"),
        ("a.mlpackage", r"runs in no browser"),
        ("a.safetensors", r"is no exported file: .*make one with `mobilezoo export`"),
        ("missing.onnx", "missing"),
    ],
)
@pytest.mark.usefixtures("runtimes")
def test_what_no_browser_runs_is_one_line(name: str, message: str, tmp_path: Path) -> None:
    if "missing" not in name:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(MobilezooError, match=message) as error, try_files([tmp_path / name]):
        pass
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("runtimes")
def test_a_changed_file_and_types_that_the_runtime_lacks_are_one_line(tmp_path: Path) -> None:
    file = network(tmp_path / "a.onnx")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(MobilezooError, match="changed since its record was written"), try_files([file]):
        pass
    (tmp_path / "b.tflite").write_bytes(b"x")
    how = Quantization(dtype="int8", scale=0.1, zero_point=0)
    spec = InputSpec(shape=(1, SIDE, SIDE, 3), layout="NHWC", dtype="int8", quantization=how)
    file = recorded(tmp_path / "b.tflite", "litert", input=spec)
    with pytest.raises(ConfigError, match=r"takes int8, and LiteRT\.js only float32, int32, uint8"), try_files([file]):
        pass


def test_without_the_runtimes_the_command_that_prepares_them_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOBILEZOO_BROWSER", str(tmp_path / "none"))
    with pytest.raises(DeviceError, match="device setup browser"), try_files([network(tmp_path / "a.onnx")]):
        pass


@pytest.mark.usefixtures("runtimes")
def test_a_page_that_nobody_opens_or_that_is_closed_ends_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(try_file, "SILENT_S", 0.3)
    monkeypatch.setattr(try_file, "POLL_S", 0.02)
    file = network(tmp_path / "a.onnx")
    with try_files([file], config=LOCAL.model_copy(update={"patience_s": 0.2})) as page:
        assert page.wait() == "nobody opened the link within 0 s"
        get(page.url + "beat")
        assert page.wait() == "the page was closed"


@pytest.mark.usefixtures("runtimes")
def test_the_command_prints_link_code_and_what_a_page_without_https_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("segno")
    monkeypatch.setattr(try_file.TryPage, "wait", lambda self: "the page was closed")
    file = str(network(tmp_path / "a.onnx"))
    for words, expected in (
        (["--local"], "adb reverse tcp:"),
        (["--no-https", "--address", "127.0.0.1"], "phones give this page no camera and one thread; photographs work"),
    ):
        with pytest.raises(SystemExit) as done:
            main(["try", file, "--samples", "0", *words])
        out = capsys.readouterr()
        assert (done.value.code, expected in out.out) == (0, True), out
        assert "open: http://" in out.out
        assert "the page was closed" in out.err
    with pytest.raises(SystemExit) as done:
        main(["try", file, "--address", "everywhere"])
    assert done.value.code == 2
    assert "--address 'everywhere': an IP address of this machine" in capsys.readouterr().err
