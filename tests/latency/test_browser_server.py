"""The page's server among strangers: odd requests, floods, slow senders, costly bodies; and where it listens."""

import contextlib
import hashlib
import http.client
import json
import random
import socket
import ssl
import time
import tracemalloc
from pathlib import Path

import pytest

from mobilezoo.artifacts import InputSpec
from mobilezoo.errors import ConfigError, DeviceError
from mobilezoo.latency_report import Protocol
from mobilezoo_latency import load_device
from mobilezoo_latency.browser import limits, messages
from mobilezoo_latency.browser import server as browser_server
from mobilezoo_latency.browser.certificate import self_signed
from mobilezoo_latency.browser.messages import BadMessageError, job_of, parse_message, result_bytes, usable
from mobilezoo_latency.browser.reach import access_note, lan_address, one_address
from mobilezoo_latency.browser.server import PageServer
from mobilezoo_latency.browser.site import in_url

CLIENT = "0123456789abcdef"
FACTS = {"cores": 2, "isolated": False, "simd": True, "relaxed_simd": False, "webgpu": False, "timer_step_ms": 0.1}
HELLO = {"client": CLIENT, "user_agent": "a test", "browser": "Testbrowser 1", "system": "Linux", **FACTS}
QUICK = Protocol(name="quick", warmup_runs=2, warmup_s=0.0, min_runs=4, min_s=0.0, max_repeats=1)
STATUSES = {200, 204, 400, 403, 404, 405, 408, 409, 410, 411, 413, 414, 415, 421, 431, 505}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(browser_server, "GOODBYE_S", 0.05)
    (tmp_path / "a.mjs").write_text("1")
    found = PageServer("127.0.0.1", ("localhost",), {"a.mjs": tmp_path / "a.mjs"}, None)
    yield found
    found.close()


def raw(server: PageServer, request: bytes) -> bytes:
    """What comes back for these bytes, all of it."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
        found = b""
        with contextlib.suppress(OSError):  # it may hang up on what it did not read
            link.sendall(request)
            link.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while piece := link.recv(65536):
                found += piece
        return found


def head(server: PageServer, method: str = "GET", name: str = "a.mjs", *more: str, host: str = "") -> bytes:
    lines = [f"{method} /{server.token}/{name} HTTP/1.1", f"Host: {host or f'127.0.0.1:{server.port}'}", *more]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def post(server: PageServer, name: str, body: bytes, *more: str) -> int:
    kind = "Content-Type: application/json"
    return status(raw(server, head(server, "POST", name, kind, f"Content-Length: {len(body)}", *more) + body))


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def result(job: int = 1, **changes: object) -> dict[str, object]:
    return {"client": CLIENT, "job": job, "slices": [], "samples_ms": [], **changes}


def encoded(data: object) -> bytes:
    return json.dumps(data).encode()


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW"])
def test_other_methods_are_refused_with_the_allowed_ones_and_no_page(server, method):
    answer = raw(server, head(server, method))
    assert status(answer) == 405
    assert b"Allow: GET, POST" in answer
    assert answer.endswith(b"\r\n\r\n")
    assert b"Access-Control" not in answer


def test_a_page_of_another_origin_cannot_post(server):
    own = f"http://127.0.0.1:{server.port}"
    assert post(server, "hello", encoded(HELLO), "Origin: http://evil.example") == 403
    assert post(server, "hello", encoded(HELLO), "Origin: null") == 403
    assert post(server, "hello", encoded(HELLO), f"Origin: https://127.0.0.1:{server.port}") == 403
    assert server.hello is None
    assert post(server, "hello", encoded(HELLO), f"Origin: {own}") == 204


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "[::1]:1", "localhost.evil.example", ""])
def test_another_host_name_gets_nothing(server, host):
    assert status(raw(server, head(server, host=host or " "))) == 421
    twice = head(server, "GET", "a.mjs", "Host: evil.example")
    assert status(raw(server, twice)) == 421
    assert status(raw(server, head(server, host=f"LOCALHOST:{server.port}"))) == 200


@pytest.mark.parametrize("length", ["many", "-1", "²", "9" * 5000, "", "1, 1", "+5", "0x10"])
def test_a_length_that_is_no_number_is_refused(server, length):
    request = head(server, "POST", "hello", "Content-Type: application/json", f"Content-Length: {length}")
    assert status(raw(server, request)) in {411, 413}


def test_chunks_and_bodies_where_none_belongs_end_the_connection(server):
    chunked = head(server, "POST", "hello", "Content-Type: application/json", "Transfer-Encoding: chunked")
    assert status(raw(server, chunked + b"2\r\n{}\r\n0\r\n\r\n")) == 411
    smuggled = raw(server, head(server, "GET", "a.mjs", "Content-Length: 500") + head(server))
    assert status(smuggled) == 400
    assert smuggled.count(b"HTTP/1.1") == 1
    assert post(server, "hello", encoded(HELLO)[:-5] + b" " * 3) == 400
    short = head(server, "POST", "hello", "Content-Type: application/json", "Content-Length: 900") + encoded(HELLO)
    assert status(raw(server, short)) == 400


@pytest.mark.parametrize(
    "more", [["A: " + "x" * 20_000], [f"A{i}: {'x' * 200}" for i in range(90)], [f"A{i}: 1" for i in range(5000)]]
)
def test_headers_have_a_bound(server, more):
    assert status(raw(server, head(server, "GET", "a.mjs", *more))) in {431, 0}  # hung up on while still sending
    assert status(raw(server, head(server))) == 200


def test_a_request_line_without_an_end_ends_the_connection(server):
    assert raw(server, b"GET /" + b"a" * 100_000) == b""
    assert status(raw(server, head(server))) == 200


def test_slow_senders_are_hung_up_on(server, monkeypatch):
    monkeypatch.setattr(limits, "HEAD_S", 0.2)
    monkeypatch.setattr(limits, "BODY_S", 0.2)
    whole = head(server, "POST", "hello", "Content-Type: application/json", "Content-Length: 50") + b"{"
    for sent in (b"", b"GET /", whole):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
            link.sendall(sent)
            assert link.recv(1000) == b""


def test_a_byte_now_and_then_does_not_keep_a_connection_open(server, monkeypatch):
    monkeypatch.setattr(limits, "HEAD_S", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as link, contextlib.suppress(OSError):
        for _ in range(200):
            link.sendall(b"A")
            time.sleep(0.05)
        raise AssertionError("still connected")


def test_one_address_holds_only_so_many_connections(server, monkeypatch):
    monkeypatch.setattr(limits, "MOST_FROM_ONE", 3)
    held = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(3)]
    for link in held:
        link.sendall(head(server))
        assert link.recv(10).startswith(b"HTTP/1.1 2")
    assert raw(server, b"") == b""
    assert raw(server, head(server)) == b""
    for link in held:
        link.close()
    for _ in range(200):
        if status(raw(server, head(server))) == 200:
            return
        time.sleep(0.02)
    raise AssertionError("connections that ended are still counted")


def test_a_result_may_be_as_long_as_its_job_lets_it(server):
    assert post(server, "result", encoded(result())) == 413  # no job
    post(server, "hello", encoded(HELLO))
    job = job_of(1, "onnx", "a", InputSpec(shape=(1,)), QUICK)
    server.give(job)
    assert post(server, "result", encoded(result(error="x" * result_bytes(job)))) == 413
    assert post(server, "result", encoded(result(samples_ms=[1.23456789012345e-5] * 4))) == 204
    assert server.take_result().samples_ms == (1.23456789012345e-5,) * 4


@pytest.mark.parametrize(
    "tier", [Protocol(), Protocol(min_s=1800.0, min_runs=64), Protocol(min_runs=400_000, min_s=0.0)]
)
def test_the_longest_result_of_a_job_fits_its_cap_and_the_parsers_bounds(tier):
    job = job_of(1, "onnx", "a", InputSpec(shape=(1,)), tier)
    most = sum(piece["most"] for piece in job["slices"])
    assert most <= messages.MAX_SAMPLES
    assert result_bytes(job) <= 30_000_000
    number = repr(0.12345678901234567)
    assert most * (len(number) + 1) < result_bytes(job)
    assert job["min_sample_ms"] >= messages.MIN_SAMPLE_MS


def test_a_protocol_of_more_than_can_be_reported_is_one_line():
    with pytest.raises(DeviceError, match="more than a browser can report"):
        job_of(1, "onnx", "a", InputSpec(shape=(1,)), Protocol(min_runs=10_000_000))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 2_000_000,
        b'{"samples_ms":' + b"[" * 3_000_000,
        b"{" * 2_000_000,
        b'{"a":' * 2_000_000,
        b"[" + b"0," * 3_000_000 + b"0]",
        b'{"job":' + b"9" * 3_000_000 + b"}",
        b'"' + b"\\u0000" * 500_000,
    ],
)
def test_a_body_that_is_no_message_costs_little_more_than_its_bytes(body):
    tracemalloc.start()
    with pytest.raises(BadMessageError):
        parse_message("result", body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * len(body) + 1_000_000


@pytest.mark.parametrize(
    "changes",
    [
        {"samples_ms": [float("nan")]},
        {"samples_ms": [float("inf")]},
        {"samples_ms": [-1.0]},
        {"samples_ms": ["1"]},
        {"load_ms": -1.0},
        {"warmup_runs": -1},
        {"runs_per_sample": -1},
        {"runs_per_sample": 10**30},
        {"output": [float("nan")]},
        {"slices": [{"start_s": -1.0, "samples": 1, "sentinel_ms": 1.0}]},
        {"more": 1},
        {"client": "0123456789ABCDEF"},
    ],
)
def test_a_result_with_a_value_that_cannot_be_is_refused(changes):
    parse_message("result", encoded(result()))
    with pytest.raises(BadMessageError):
        parse_message("result", encoded(result(**changes)))


def test_progress_is_one_of_three_stages():
    for text in ("loading", "warming up", "timing, 7%"):
        parse_message("progress", encoded({"client": CLIENT, "job": 1, "text": text}))
    for text in ("", "timing", "\x1b[2Jloading", "loading\n", "timing, 1000%"):
        with pytest.raises(BadMessageError):
            parse_message("progress", encoded({"client": CLIENT, "job": 1, "text": text}))


@pytest.mark.parametrize(
    ("samples", "slices", "good"),
    [
        ([1.0] * 4, [4], True),
        ([1.0] * 3, [3], False),
        ([1.0] * 8, [4, 4], False),
        ([0.0] * 4, [4], False),
        ([], [], False),
    ],
)
def test_a_result_holds_what_its_job_asked_for(samples, slices, good):
    pieces = [{"start_s": 0.0, "samples": count, "sentinel_ms": 1.0} for count in slices]
    found = parse_message("result", encoded(result(samples_ms=samples, slices=pieces)))
    assert usable(found, job_of(1, "onnx", "a", InputSpec(shape=(1,)), QUICK)) is good


METHODS = ["GET", "GET", "POST", "POST", "HEAD", "PUT", "OPTIONS", "", "G\x00T", "get"]
NAMES = ["", "a.mjs", "job", "hello", "result", "model", "../secret.txt", "..%2fsecret.txt", "//[", "%00", ".", "é"]
NAMES += ["a.mjs?x[]=1", "job?client=" + "a" * 99, "job?" + "a=1&" * 500, "a.mjs#x", "\\..\\secret.txt"]
VERSIONS = ["HTTP/1.1"] * 8 + ["HTTP/1.0", "HTTP/9.9", "HTTP/1.1 x", "", "HTTP/1.1\x00", "http/1.1"]
MORE = ["Expect: 100-continue", "Connection: upgrade", "Upgrade: websocket", "Content-Length: 5", ": x", "X", "\t"]
MORE += ["Content-Type: application/json", "Transfer-Encoding: chunked", "Origin: x", "X: \x00\xff", "Range: bytes=0-"]
BODIES = [b"", b"{}", encoded(HELLO), b"[" * 300, b"\x00" * 50, b"null", b"1e999", b'{"client":' * 40]


def odd_request(server: PageServer, rng: random.Random) -> tuple[str, bytes]:
    """(the token in it, the request): pieces of requests in any order."""
    token = rng.choice([server.token] * 4 + ["x", "", server.token[:-1], "é"])
    host = rng.choice([f"Host: 127.0.0.1:{server.port}"] * 5 + ["Host: x", "host:", ""])
    line = f"{rng.choice(METHODS)} /{token}/{rng.choice(NAMES)} {rng.choice(VERSIONS)}"
    text = "\r\n".join([line, host, *rng.sample(MORE, rng.randrange(4)), "", ""])
    return token, text.encode("latin-1") + rng.choice(BODIES)


def test_odd_requests_are_answered_or_hung_up_on_and_nothing_leaks(server, tmp_path):
    """Never a file that is not listed, never a status of an inner fault."""
    (tmp_path / "secret.txt").write_text("the secret of another file")
    rng = random.Random(0)
    for _ in range(400):
        token, request = odd_request(server, rng)
        answer = raw(server, request).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert b"the secret" not in answer
        if answer.startswith(b"HTTP/1"):
            assert status(answer) in STATUSES, (request, answer[:100])
            assert status(answer) != 200 or token == server.token
    assert status(raw(server, head(server))) == 200


# ---- where it listens and what is said of it


@pytest.mark.parametrize("text", ["0.0.0.0", "::", "224.0.0.1", "board.local", "fe80::1%eth0", "1.2.3", "127.0.0.1:80"])
def test_the_address_is_one_of_this_machine(text):
    with pytest.raises(ConfigError, match="address"):
        load_device("browser", (f"address={json.dumps(text)}",))
    assert one_address("192.168.1.20") == "192.168.1.20"
    assert in_url(one_address("2001:DB8::1")) == "[2001:db8::1]"


def test_an_address_of_another_machine_is_one_line():
    with pytest.raises(DeviceError, match=r"cannot listen on 192\.0\.2\.7"):
        PageServer("192.0.2.7", (), {}, None)


def test_an_address_needs_the_reach_it_belongs_to():
    with pytest.raises(ConfigError, match="reach=localhost"):
        load_device("browser", ("reach=localhost", "address=127.0.0.1"))


def test_the_network_gets_https_unless_plain_http_is_asked_for():
    assert load_device("browser").config.https  # type: ignore[attr-defined]
    assert not load_device("browser", ("scheme=http",)).config.https  # type: ignore[attr-defined]
    assert not load_device("browser", ("reach=localhost",)).config.https  # type: ignore[attr-defined]
    assert load_device("browser", ("reach=localhost", "scheme=https")).config.https  # type: ignore[attr-defined]


def test_only_one_address_is_listened_on(server):
    """Another loopback address of this machine reaches nothing."""
    with pytest.raises(OSError):  # noqa: PT011 - refused or unreachable, as the system has it
        socket.create_connection(("127.0.0.2", server.port), timeout=2)
    assert server.hosts == {f"127.0.0.1:{server.port}", f"localhost:{server.port}"}


def test_the_note_says_who_can_reach_the_link_and_what_protects_it():
    assert "this machine only" in access_note("localhost", "127.0.0.1", None)
    assert "NOT encrypted" in access_note("lan", "192.168.1.20", None)
    assert "every device that can reach 192.168.1.20" in access_note("lan", "192.168.1.20", None)
    assert "fingerprint AB:CD" in access_note("lan", "192.168.1.20", "AB:CD")


def test_the_certificate_is_for_the_address_and_has_the_fingerprint_that_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(browser_server, "GOODBYE_S", 0.05)
    try:
        certificate = self_signed(("127.0.0.1",))
    except DeviceError as error:
        pytest.skip(str(error))
    (tmp_path / "a.mjs").write_text("1")
    server = PageServer("127.0.0.1", (), {"a.mjs": tmp_path / "a.mjs"}, certificate.context)
    try:
        shown = ssl.get_server_certificate(("127.0.0.1", server.port), timeout=10)
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown)).digest()
        assert digest.hex(":").upper() == certificate.fingerprint
        trusted = ssl.create_default_context(cadata=shown)
        link = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=trusted)
        link.request("GET", f"/{server.token}/a.mjs")
        assert link.getresponse().read() == b"1"
        link.close()
        assert raw(server, head(server)) == b""  # plain http
    finally:
        server.close()


def test_without_a_network_the_other_reach_is_named(monkeypatch):
    def nowhere(self: socket.socket, address: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", nowhere)
    with pytest.raises(DeviceError, match="reach=localhost"):
        lan_address()
