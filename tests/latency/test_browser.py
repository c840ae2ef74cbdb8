"""The browser device: its server against strangers and broken pages, and (slow) real measurements in Chromium."""

import http.client
import json
import math
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilezoo.artifacts import InputSpec, Quantization
from mobilezoo.errors import ConfigError, DeviceError
from mobilezoo.installed import STAMP
from mobilezoo.latency_report import Protocol
from mobilezoo_latency import Store, load_artifact, load_device, profile
from mobilezoo_latency.browser import assets, device, reporting
from mobilezoo_latency.browser import server as browser_server
from mobilezoo_latency.browser.device import BrowserDevice
from mobilezoo_latency.browser.messages import CAPS, job_of
from mobilezoo_latency.browser.server import PageServer
from mobilezoo_latency.contract import ArtifactFile

QUICK = Protocol(name="quick", warmup_runs=2, warmup_s=0.0, min_runs=4, min_s=0.0, max_repeats=1)
HELLO = {
    "client": "0123456789abcdef",
    "user_agent": "a test",
    "browser": "Testbrowser 1",
    "system": "Linux",
    "cores": 2,
    "isolated": False,
    "simd": True,
    "relaxed_simd": False,
    "webgpu": False,
    "timer_step_ms": 0.1,
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(browser_server, "GOODBYE_S", 0.05)
    (tmp_path / "a.mjs").write_text("1")
    found = PageServer("127.0.0.1", ("localhost",), {"a.mjs": tmp_path / "a.mjs"}, None)
    yield found
    found.close()


def ask(
    server: PageServer, path: str, body: Any = None, headers: dict[str, str] | None = None, host: str = ""
) -> tuple[int, http.client.HTTPResponse, bytes]:
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    link.putrequest("POST" if data is not None else "GET", path, skip_host=True)
    link.putheader("Host", host or f"127.0.0.1:{server.port}")
    for key, value in (headers or ({} if data is None else {"Content-Type": "application/json"})).items():
        link.putheader(key, value)
    if data is not None and "Content-Length" not in (headers or {}):
        link.putheader("Content-Length", str(len(data)))
    link.endheaders(data)
    answer = link.getresponse()
    content = answer.read()
    link.close()
    return answer.status, answer, content


def test_only_the_token_and_the_right_host_open_anything(server):
    path = f"/{server.token}/"
    assert ask(server, path)[0] == 200
    assert ask(server, path, host="evil.example")[0] == 421
    assert ask(server, path, host=f"evil.example:{server.port}")[0] == 421
    for wrong in ("/", "/a.mjs", "/x/a.mjs", f"/{server.token}", f"/{server.token}x/a.mjs"):
        assert ask(server, wrong)[0] == 404
    for name in ("../a.mjs", "..%2fa.mjs", "server.py", "model"):
        assert ask(server, path + name)[0] == 404
    assert ask(server, path + "a.mjs")[2] == b"1"


def test_the_page_may_only_talk_to_its_own_server(server):
    _, first, text = ask(server, f"/{server.token}/")
    policy = first.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "'unsafe-eval'" not in policy
    assert f"nonce-{policy.partition('nonce-')[2].partition(chr(39))[0]}" in policy
    assert policy.partition("nonce-")[2].partition("'")[0].encode() in text
    assert first.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert ask(server, f"/{server.token}/")[1].headers["Content-Security-Policy"] != policy


def test_messages_that_are_too_big_broken_or_of_another_kind_are_refused(server):
    hello = f"/{server.token}/hello"
    json_type = {"Content-Type": "application/json"}
    assert ask(server, hello, b"", {**json_type, "Content-Length": str(CAPS["hello"] + 1)})[0] == 413
    assert ask(server, hello, b"", {**json_type, "Content-Length": "many"})[0] == 411
    assert ask(server, hello, HELLO, {"Content-Type": "text/plain"})[0] == 415
    for body in (b"{", b"[]", b"[" * 5000, b"\xff", {**HELLO, "client": "x"}, {**HELLO, "more": 1}):
        assert ask(server, hello, body)[0] == 400
    assert server.hello is None
    assert ask(server, f"/{server.token}/elsewhere", {})[0] == 404
    assert ask(server, hello, HELLO)[0] == 204


def test_the_first_browser_keeps_the_measurement(server):
    assert ask(server, f"/{server.token}/hello", HELLO)[0] == 204
    assert ask(server, f"/{server.token}/hello", HELLO)[0] == 204  # the same one, after a reload
    other = "f" * 16
    assert ask(server, f"/{server.token}/hello", {**HELLO, "client": other})[0] == 409
    server.give(job_of(5, "onnx", "a", InputSpec(shape=(1,)), QUICK))
    assert json.loads(ask(server, f"/{server.token}/job?client={other}")[2]) == {"id": 0}
    assert json.loads(ask(server, f"/{server.token}/job?client={HELLO['client']}")[2])["id"] == 5
    assert ask(server, f"/{server.token}/result", {"client": other, "job": 5, "error": "x"})[0] == 403
    assert ask(server, f"/{server.token}/result", {"client": HELLO["client"], "job": 4, "error": "x"})[0] == 409
    assert server.take_result() is None


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A device whose browser is a thread of this process, and what that browser answers."""
    monkeypatch.setattr(device, "find_assets", lambda: tmp_path)
    for name in assets.NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(device, "POLL_S", 0.01)
    found = load_device("browser", ("reach=localhost", "patience_s=5.0"))
    assert isinstance(found, BrowserDevice)
    found.on_message = lambda text: None
    found.answers = {}
    found.hello = HELLO

    def invited(url: str, note: str) -> None:
        threading.Thread(target=browse, args=(found, url), daemon=True).start()

    found._invite = invited
    yield found
    found.close()


def browse(found: Any, url: str) -> None:
    """Say hello, take jobs, answer each as told."""
    link = http.client.HTTPConnection(url.split("/")[2], timeout=5)
    base = f"/{url.split('/')[3]}/"

    def post(name: str, data: dict[str, Any]) -> None:
        body = json.dumps({"client": HELLO["client"], **data})
        link.request("POST", base + name, body, {"Content-Type": "application/json"})
        link.getresponse().read()

    post("hello", found.hello)
    with pytest.MonkeyPatch.context():
        for _ in range(1000):
            link.request("GET", f"{base}job?client={HELLO['client']}")
            answer = link.getresponse()
            if answer.status != 200:
                return
            job = json.loads(answer.read())
            if job["id"]:
                sizes = [piece["samples"] for piece in job["slices"]]
                fine = {
                    "load_ms": 1.0,
                    "first_run_ms": 2.0,
                    "warmup_runs": 3,
                    "warmup_settled": True,
                    "sentinel_before_ms": 0.5,
                    "slices": [{"start_s": 0.0, "samples": n, "sentinel_ms": 0.5} for n in sizes],
                    "samples_ms": [2.0] * sum(sizes),
                    "threads": job["threads"],
                }
                post("result", {"job": job["id"], **fine, **found.answers})
            time.sleep(0.01)


def test_a_browser_measures_and_its_result_is_of_its_own_kind(page, tiny_onnx, tmp_path):
    store = Store(tmp_path / "latency.db")
    report = profile(tiny_onnx, page, QUICK.model_copy(update={"restarts": 2}), store=store)
    assert (report.device.kind, report.samples_ms) == ("browser", (2.0,) * 4)
    assert len(report.processes) == 2
    assert report.device.runtime.startswith("onnxruntime-web")
    assert "Testbrowser 1" in report.device.name
    assert store.rows(kind="browser")
    assert not store.rows(kind="host")


def test_two_unnamed_phones_never_share_a_result(page, tiny_onnx):
    assert "unnamed 012345" in page.for_artifact(load_artifact(tiny_onnx)).describe().name
    page.config = page.config.model_copy(update={"phone": "my phone"})
    assert page.describe().name == "my phone, Testbrowser 1"


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"error": "out of\nmemory"}, "the browser reports: out of memory"),
        ({"samples_ms": []}, "incomplete result"),
        ({"samples_ms": [1.0]}, "incomplete result"),
        ({"threads": 4}, "requested threads 1, the runtime used 4"),
        ({"output": [1e9, 2.0]}, "output is off by"),
    ],
)
def test_what_a_browser_gets_wrong_is_one_line(page, answers, expected, tiny_onnx):
    page.answers = answers
    with pytest.raises(DeviceError, match=expected) as error:
        page.for_artifact(load_artifact(tiny_onnx)).measure(load_artifact(tiny_onnx), QUICK)
    assert "\n" not in str(error.value)


def test_a_page_in_the_background_makes_a_noisy_result(page, tiny_onnx):
    page.answers = {"hidden": True}
    report = page.for_artifact(load_artifact(tiny_onnx)).measure(load_artifact(tiny_onnx), QUICK)
    assert "the page was in the background" in report.noisy


def test_threads_without_isolation_are_refused_before_anything_runs(page, tiny_onnx):
    with pytest.raises(DeviceError, match="cross-origin isolated"):
        page.for_artifact(load_artifact(tiny_onnx)).measure(
            load_artifact(tiny_onnx), QUICK.model_copy(update={"threads": 2})
        )


def test_nobody_opening_the_link_and_a_browser_going_silent_end_by_themselves(page, tiny_onnx):
    page.config = page.config.model_copy(update={"patience_s": 0.2})
    page._invite = lambda url, note: None
    with pytest.raises(DeviceError, match="no browser opened the link"):
        page.describe()
    assert page._server is None


def test_a_closed_server_answers_nobody_even_on_a_kept_connection(server):
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    link.request("GET", f"/{server.token}/")
    assert link.getresponse().read()
    server.close()
    link.request("GET", f"/{server.token}/")
    assert link.getresponse().status == 410


def test_the_link_is_printed_with_a_qr_code(page):
    pytest.importorskip("segno")
    said: list[str] = []
    page.on_message = said.append
    BrowserDevice._invite(page, "http://192.0.2.7:1234/token/", "reachable by all")
    assert said[0].endswith("open on the phone: http://192.0.2.7:1234/token/\nreachable by all")
    assert said[0].count("\n") > 10


def test_only_types_that_the_runtimes_know_of_two_formats_are_taken(tiny_tflite, tiny_onnx, tmp_path):
    found = load_device("browser")
    artifact = load_artifact(tiny_tflite)
    spec = artifact.record.input.model_copy(update={"dtype": "int8"})
    integers = type(artifact)(artifact.path, artifact.record.model_copy(update={"input": spec}))
    with pytest.raises(DeviceError, match=r"takes int8, and LiteRT\.js only float32, int32, uint8: use --device host"):
        found.for_artifact(integers)
    bytes_in = artifact.record.input.model_copy(update={"dtype": "uint8"})
    taken = type(artifact)(artifact.path, artifact.record.model_copy(update={"input": bytes_in}))
    assert found.for_artifact(taken) is found
    other = type(artifact)(artifact.path, artifact.record.model_copy(update={"target": "coreml"}))
    with pytest.raises(DeviceError, match="no browser runtime for 'coreml'"):
        found.for_artifact(other)


def cast_and_sum(path: Path, kind: str, inputs: int = 1) -> ArtifactFile:
    """A file of others: the sum of its inputs as floats."""
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    given = [helper.make_tensor_value_info(f"x{i}", getattr(types, kind), [2, 3]) for i in range(inputs)]
    nodes = [helper.make_node("Cast", [f"x{i}"], [f"f{i}"], to=types.FLOAT) for i in range(inputs)]
    nodes.append(helper.make_node("Sum", [f"f{i}" for i in range(inputs)], ["y"]))
    graph = helper.make_graph(nodes, "g", given, [helper.make_tensor_value_info("y", types.FLOAT, [2, 3])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return load_artifact(path)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("UINT8", "uint8"), ("INT8", "int8"), ("INT64", "int64"), ("BOOL", "bool")]
)
def test_the_page_is_fed_in_the_files_own_type(kind, dtype, tmp_path):
    file = cast_and_sum(tmp_path / "theirs.onnx", kind)
    load_device("browser").for_artifact(file)
    fed, expected = reporting.input_and_output(file)
    values = np.frombuffer(fed, dtype).reshape(2, 3)
    assert expected == values.astype(float).ravel().tolist()
    assert job_of(1, "onnx", "a", file.record.input, QUICK)["dtype"] == dtype


def test_a_file_with_two_inputs_is_refused_in_one_line(tmp_path):
    file = cast_and_sum(tmp_path / "two.onnx", "FLOAT", inputs=2)
    with pytest.raises(DeviceError, match=r"two\.onnx takes x0 \(float32 2×3\), x1 .*, and the page feeds one input"):
        reporting.input_and_output(file)


def test_integers_of_a_browser_are_compared_as_the_numbers_they_stand_for(tiny_onnx):
    from types import SimpleNamespace

    file = load_artifact(tiny_onnx)
    how = Quantization(dtype="uint8", scale=0.5, zero_point=10)
    file = type(file)(file.path, file.record.model_copy(update={"output_quantization": how}))
    results: Any = [SimpleNamespace(threads=1, output=(12.0, 8.0))]
    hello: Any = SimpleNamespace(isolated=True, relaxed_simd=True)
    assert reporting.runtime_info_of(results, hello, "", [1.0, -1.0], file)["output_difference"] == "0.0e+00"
    with pytest.raises(DeviceError, match="off by"):
        reporting.runtime_info_of(results, hello, "", [12.0, 8.0], file)


def test_without_the_runtimes_the_set_up_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILEZOO_BROWSER", str(tmp_path))
    with pytest.raises(DeviceError, match="mobilezoo device setup browser"):
        load_device("browser").check()


def test_a_browser_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "find_assets", lambda: tmp_path)
    with pytest.raises(DeviceError, match="no-such-browser not found"):
        load_device("chromium", ("open=no-such-browser --headless",)).check()


def test_an_archive_with_another_checksum_is_refused(tmp_path, monkeypatch):
    package = assets.PACKAGES[2]
    (tmp_path / "a.tgz").write_bytes(b"something else")
    for way in ("_by_npm", "_by_https"):
        monkeypatch.setattr(assets, way, lambda *_: tmp_path / "a.tgz")
    with pytest.raises(DeviceError, match="SHA-512 is not the published one"):
        assets.fetch(package, tmp_path)


def test_a_misspelt_key_of_a_browser_yaml_is_one_line():
    with pytest.raises(ConfigError, match="did you mean scheme"):
        load_device("browser", ("shceme=http",))


# ---- real Chromium (slow; needs `mobilezoo device setup browser`)


@pytest.fixture(scope="module")
def chromium() -> str:
    if not (assets.home() / STAMP).is_file():
        pytest.skip("no browser runtimes: run `mobilezoo device setup browser`")
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium on this machine: run `apt-get install chromium`")
    return found


@pytest.mark.slow
def test_whole_runtimes_are_only_verified_and_a_changed_file_is_noticed(chromium, tmp_path, monkeypatch):
    shutil.copytree(assets.home(), tmp_path / "browser")
    monkeypatch.setenv("MOBILEZOO_BROWSER", str(tmp_path / "browser"))
    said: list[str] = []
    assert assets.set_up(said.append) == tmp_path / "browser"
    assert said == [f"browser: already prepared in {tmp_path / 'browser'}, every file as it was unpacked"]
    (tmp_path / "browser" / "litert" / "index.js").write_text("// changed")
    assert assets._whole() is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_tflite", "bigger_onnx"])
def test_chromium_runs_both_runtimes_and_computes_what_the_host_computes(name, chromium, request, tmp_path):
    file = request.getfixturevalue(name)
    how = Protocol(name="browser test", min_s=0.2, restarts=2, max_repeats=1)
    report = profile(file, "chromium", how, store=Store(tmp_path / "latency.db"))
    assert (report.device.kind, report.obtained["delegate"]) == ("browser", "WebAssembly")
    assert report.device.name.startswith("this machine, ")
    assert len(report.samples_ms) >= 64
    assert all(math.isfinite(ms) and ms > 0 for ms in report.samples_ms)
    assert len(report.processes) == 2
    assert float(report.obtained["output_difference"]) < 1e-4
    assert report.obtained["build"].endswith(".wasm")
    assert report.obtained["isolated"] == "True"


@pytest.mark.slow
def test_chromium_takes_the_bytes_of_a_quantized_file_of_others(chromium, shared, tmp_path):
    file = shared / "foreign" / "tflite" / "coral_mobilenet_v1_0.25_128_quant.tflite"
    how = Protocol(name="browser test", min_s=0.2, max_repeats=1)
    report = profile(file, "chromium", how, store=Store(tmp_path / "latency.db"))
    assert float(report.obtained["output_difference"]) < 1e-2
    assert report.unproven == "not proven here"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "threads", "outcome"),
    [
        (("reach=localhost",), 2, "isolated"),
        (("reach=lan",), 2, "isolated"),
        (("reach=lan", "scheme=http"), 1, "plain"),
        (("reach=lan", "scheme=http"), 2, "refused"),
    ],
)
@pytest.mark.parametrize("name", ["tiny_tflite", "bigger_onnx"])
def test_threads_need_an_isolated_page_and_nothing_breaks_the_policy(
    name, overrides, threads, outcome, chromium, request, tmp_path
):
    playwright = pytest.importorskip("playwright.sync_api")
    if overrides == ("reach=lan",) and shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine: run `apt-get install openssl`")
    file = request.getfixturevalue(name)
    found = load_device("browser", (*overrides, "patience_s=60.0"))
    assert isinstance(found, BrowserDevice)
    links: list[str] = []
    found._invite = lambda url, note: links.append(url)  # type: ignore[method-assign]
    outcomes: list[Any] = []

    def measure() -> None:
        how = QUICK.model_copy(update={"threads": threads})
        try:
            outcomes.append(profile(file, found, how, store=Store(tmp_path / "latency.db")))
        except DeviceError as error:
            outcomes.append(error)

    worker = threading.Thread(target=measure)
    worker.start()
    complaints: list[str] = []
    with playwright.sync_playwright() as play:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
        browser = play.chromium.launch(executable_path=chromium, args=flags)
        tab = browser.new_context(ignore_https_errors=True).new_page()
        tab.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        while not links:
            time.sleep(0.05)
        tab.goto(links[0])
        while worker.is_alive():
            tab.wait_for_timeout(100)
        found.close()
        if outcome != "refused":
            playwright.expect(tab.locator("#state")).to_contain_text("Done", timeout=20_000)
        browser.close()
    (result,) = outcomes
    if outcome == "refused":
        assert "cross-origin isolated" in str(result)
        return
    assert not isinstance(result, DeviceError), result
    assert result.obtained["threads"] == str(threads)
    assert result.obtained["isolated"] == str(outcome == "isolated")
    assert not [text for text in complaints if "Content Security Policy" in text], complaints
