"""A server on this machine that behaves as the hosts of weights do, well and badly."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mobilezoo
from mobilezoo.models import load_model_config
from mobilezoo.models.published.choose import Published
from mobilezoo.models.randomize import randomize_norms
from mobilezoo.models.weight_file import WeightFile

MODEL = "mnasnet_a1_035"


@dataclass
class Answer:
    """What the server says to the next request of a path."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """None: the path's file."""
    cut_after: int | None = None
    """Bytes of the body after which the connection is closed."""


class Host:
    """Paths with files, what was asked for, and answers that come before the ordinary ones."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etags = True
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.answers: dict[str, list[Answer]] = {}
        self.address = ""

    def etag(self, path: str) -> str:
        return f'"{hashlib.sha256(self.files[path]).hexdigest()[:16]}"'

    def answer(self, path: str, headers: dict[str, str]) -> Answer:
        """An ordinary one: ranges as RFC 9110 has them."""
        if waiting := self.answers.get(path):
            return waiting.pop(0)
        if path not in self.files:
            return Answer(404, {"Content-Type": "text/html"}, b"<html>not found</html>")
        body = self.files[path]
        marks = {"ETag": self.etag(path)} if self.etags else {}
        same = headers.get("if-range") in (None, self.etag(path))
        if "range" in headers and same:
            start = int(headers["range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                return Answer(416, {"Content-Range": f"bytes */{len(body)}"}, b"")
            return Answer(206, {**marks, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}, body[start:])
        return Answer(200, {**marks, "Accept-Ranges": "bytes"}, body)


@pytest.fixture
def host() -> Iterator[Host]:
    there = Host()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = {key.lower(): value for key, value in self.headers.items()}
            there.requests.append((self.path, asked))
            answer = there.answer(self.path, asked)
            body = there.files.get(self.path, b"") if answer.body is None else answer.body
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # who has seen enough hangs up
                self.wfile.write(body if answer.cut_after is None else body[: answer.cut_after])
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    there.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield there
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MOBILEZOO_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited between attempts; nobody waits."""
    seconds: list[float] = []
    monkeypatch.setattr("mobilezoo.models.published.https.time.sleep", seconds.append)
    return seconds


def trained(seed: int = 0) -> nn.Module:
    """A network whose weights are not what a fresh one has."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return randomize_norms(mobilezoo.create_model(MODEL), torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file as authors publish it: the weights under `model`, others under `model_ema`."""
    path = tmp_path_factory.mktemp("weights") / "official.pth"
    torch.save({"model": trained(0).state_dict(), "model_ema": trained(1).state_dict(), "epoch": 300}, path)
    return path.read_bytes()


def published(host: Host, path: str = "/files/official.pth", **said: Any) -> Published:
    """A record of weights at the stand-in; its address is not https, which no YAML may have."""
    file = WeightFile(url="https://example.org/x.pth", license="MIT", source="a test", key=("model",), **said)
    config = load_model_config(MODEL)
    file = file.model_copy(update={"url": host.address + path})
    return Published(config.model_copy(update={"weights": {"in1k": file}}), "in1k", file)
