"""The small web server behind the page: it serves a fixed list of files to one browser and takes its results.

Who does not know the token in the path, or comes by another host name, gets nothing. Bodies have size caps, the page
may load and call nothing but this server, and the server ends with the measurement.
"""

import json
import secrets
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mobilezoo.config import Record
from mobilezoo.errors import MobilezooError
from mobilezoo_latency.browser.messages import Hello, Progress, Result

PAGE = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
}
CAPS = {"hello": 10_000, "progress": 5_000, "result": 60_000_000}
"""Largest accepted body of each message in bytes."""
SOCKET_LIMIT_S = 30.0
GOODBYE_S = 3.0
"""How long `close` waits for the page to hear that all is done."""
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' 'nonce-{nonce}'; style-src 'self'; connect-src 'self'; "
    "worker-src 'self' blob:; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _QuietServer(ThreadingHTTPServer):
    """Connections that break (a browser that doubts the certificate, a reload) are no news."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing."""


class PageServer:
    """Serves until `close`. What the browser said is read by `hello`, `progress` and `take_result`."""

    def __init__(
        self, address: str, hosts: tuple[str, ...], files: dict[str, Path], tls: ssl.SSLContext | None
    ) -> None:
        self.token = secrets.token_urlsafe(16)
        self.files = dict(files)
        self.blobs: dict[str, bytes] = {}
        """Served from memory: the model and its input."""
        self.lock = threading.Lock()
        self.closed = self._ended = False
        self._told = threading.Event()
        self.hello: Hello | None = None
        self.progress = ""
        self.last_heard = time.monotonic()
        self.served: list[str] = []
        """Names asked for since the last job, in order: which build a runtime chose shows here."""
        self._job: dict[str, Any] | None = None
        self._result: Result | None = None
        self._http = _QuietServer((address, 0), _handler_of(self))
        self.port = int(self._http.server_address[1])
        self.hosts = {f"{host}:{self.port}" for host in hosts}
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Tell the page that all is done, then stop listening and answering."""
        self._ended = True
        if self.hello is not None:
            self._told.wait(GOODBYE_S)
        self.closed = True
        self._http.shutdown()
        self._http.server_close()

    def give(self, job: dict[str, Any]) -> None:
        """The next thing the page is to do."""
        with self.lock:
            self._job, self._result, self.served = job, None, []
            self.last_heard = time.monotonic()

    def take_result(self) -> Result | None:
        """The result of the given job, once."""
        with self.lock:
            found, self._result = self._result, None
            if found is not None:
                self._job = None
            return found

    def job_for(self, client: str) -> dict[str, Any]:
        """What this browser is to do now; {"id": 0} for nothing, with "ended" when nothing will follow."""
        with self.lock:
            if self._ended:
                self._told.set()
                return {"id": 0, "ended": True}
            self.last_heard = time.monotonic()
            known = self.hello is not None and self.hello.client == client
            return self._job if known and self._job is not None and self._result is None else {"id": 0}

    def take(self, name: str, message: Record) -> int:
        """Take a message of the page; the HTTP status that answers it."""
        with self.lock:
            self.last_heard = time.monotonic()
            if isinstance(message, Hello):
                if self.hello is not None and self.hello.client != message.client:
                    return 409
                self.hello = message
                return 204
            assert isinstance(message, Progress | Result)
            if self.hello is None or self.hello.client != message.client:
                return 403
            if self._job is None or message.job != self._job["id"]:
                return 409
            if isinstance(message, Progress):
                self.progress = message.text
            else:
                self._result = message
            return 204


def _handler_of(owner: PageServer) -> type[BaseHTTPRequestHandler]:
    """A request handler bound to one server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = SOCKET_LIMIT_S
        server_version, sys_version = "mobilezoo", ""

        def do_GET(self) -> None:
            name, query = self._name()
            if name is None:
                return
            if name == "job":
                client = parse_qs(query).get("client", [""])[0]
                self._answer(200, json.dumps(owner.job_for(client)).encode(), "application/json")
            elif name in ("", "index.html"):
                self._page()
            elif name in owner.blobs:
                self._answer(200, owner.blobs[name], "application/octet-stream")
            elif name in owner.files:
                with owner.lock:
                    owner.served.append(name)
                self._answer(200, owner.files[name].read_bytes(), TYPES[owner.files[name].suffix])
            else:
                self._answer(404)

        def do_POST(self) -> None:
            name, _ = self._name()
            if name is None:
                return
            kinds: dict[str, type[Record]] = {"hello": Hello, "progress": Progress, "result": Result}
            if name not in kinds:
                self._answer(404, close=True)
                return
            length = self.headers.get("Content-Length", "")
            if not length.isdigit():
                self._answer(411, close=True)
            elif int(length) > CAPS[name]:
                self._answer(413, close=True)
            elif self.headers.get_content_type() != "application/json":
                self._answer(415, close=True)
            else:
                self._answer(self._take(name, kinds[name], self.rfile.read(int(length))))

        def _take(self, name: str, kind: type[Record], body: bytes) -> int:
            try:
                data = json.loads(body)
                return owner.take(name, kind.parse(data, name)) if isinstance(data, dict) else 400
            except (ValueError, RecursionError, MobilezooError):
                return 400

        def _name(self) -> tuple[str | None, str]:
            """What is asked for below the token's path; answers and gives None where nothing may be served."""
            if owner.closed:  # a connection that was kept alive
                self._answer(410, close=True)
                return None, ""
            if self.headers.get("Host", "") not in owner.hosts:
                self._answer(421, close=True)
                return None, ""
            parts = urlsplit(self.path)
            token, slash, name = parts.path.removeprefix("/").partition("/")
            if not slash or not secrets.compare_digest(token.encode(), owner.token.encode()):
                self._answer(404, close=True)
                return None, ""
            return name, parts.query

        def _page(self) -> None:
            nonce = secrets.token_urlsafe(16)
            text = (PAGE / "index.html").read_text(encoding="utf-8").replace("{{nonce}}", nonce)
            self._answer(200, text.encode(), TYPES[".html"], nonce=nonce)

        def _answer(self, status: int, body: bytes = b"", kind: str = "", nonce: str = "", close: bool = False) -> None:
            self.send_response(status)
            for key, value in HEADERS.items():
                self.send_header(key, value)
            self.send_header("Content-Security-Policy", POLICY.format(nonce=nonce or secrets.token_urlsafe(16)))
            if kind:
                self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if close:  # an unread body must not be taken for the next request
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: the token stands in every path."""

    return Handler
