"""Answers to requests: a fixed list of files to the holder of the token; messages of the page go to its server."""

import json
import secrets
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qs

from mobilezoo_latency.browser.limits import SEND_S, BoundedHandler
from mobilezoo_latency.browser.messages import KINDS, BadMessageError, parse_message

if TYPE_CHECKING:
    from mobilezoo_latency.browser.server import PageServer

PAGE = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
}
PIECE_BYTES = 1 << 18
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


class PageHandler(BoundedHandler):
    """Answers for one `PageServer`, its `owner`."""

    owner: ClassVar["PageServer"]

    def do_GET(self) -> None:  # noqa: N802 - the name http.server calls
        if (wanted := self._wanted()) is None:
            return
        name, query = wanted
        if name == "job":
            client = parse_qs(query).get("client", [""])[0]
            self._answer(200, json.dumps(self.owner.job_for(client)).encode(), "application/json")
        elif name in ("", "index.html"):
            self._page()
        elif name in self.owner.blobs:
            self._answer(200, self.owner.blobs[name], "application/octet-stream")
        elif name in self.owner.files:
            self.owner.note(name)
            self._answer(200, self.owner.files[name].read_bytes(), TYPES[self.owner.files[name].suffix])
        else:
            self._answer(404)

    def do_POST(self) -> None:  # noqa: N802
        if (wanted := self._wanted()) is None:
            return
        name, _ = wanted
        length = self.headers.get("Content-Length", "")
        if name not in KINDS:
            self._refuse(404)
        elif self.headers.get("Origin", self._origin()) != self._origin():
            self._refuse(403)
        elif not (length.isascii() and length.isdecimal() and len(length) < 20) or "Transfer-Encoding" in self.headers:
            self._refuse(411)
        elif int(length) > self.owner.cap_of(name):
            self._refuse(413)
        elif self.headers.get_content_type() != "application/json":
            self._refuse(415)
        else:
            self._take(name, int(length))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answers a faulty request with a status and no body.

        Args:
            code: HTTP status of the base class; 501 becomes 405, as GET and POST are the only methods.
            message: not sent.
            explain: not sent.
        """
        self._refuse(405 if code == HTTPStatus.NOT_IMPLEMENTED else code)

    def _take(self, name: str, length: int) -> None:
        body = self.body(length)
        try:
            status = self.owner.take(parse_message(name, body)) if len(body) == length else 400
        except BadMessageError:
            status = 400
        self._answer(status, close=len(body) != length)

    def _wanted(self) -> tuple[str, str] | None:
        """Returns (name, query) below the token's path; None, after a refusal, if nothing may be served."""
        hosts = self.headers.get_all("Host", [])
        path, _, query = self.path.partition("?")
        token, slash, name = path.removeprefix("/").partition("/")
        if self.owner.closed:  # a connection that was kept alive
            self._refuse(410)
        elif len(hosts) != 1 or hosts[0].lower() not in self.owner.hosts:
            self._refuse(421)
        elif not slash or not secrets.compare_digest(token.encode(), self.owner.token.encode()):
            self._refuse(404)
        elif self.command != "POST" and self.headers.get("Content-Length", "0") != "0":
            self._refuse(400)
        else:
            return name, query
        return None

    def _origin(self) -> str:
        return f"{self.owner.scheme}://{self.headers['Host'].lower()}"

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        text = (PAGE / "index.html").read_text(encoding="utf-8").replace("{{nonce}}", nonce)
        self._answer(200, text.encode(), TYPES[".html"], nonce=nonce)

    def _refuse(self, status: int) -> None:
        """Answers and ends the connection: an unread body must not be taken for the next request."""
        self._answer(status, close=True)

    def _answer(self, status: int, body: bytes = b"", kind: str = "", nonce: str = "", close: bool = False) -> None:
        self.send_response(status)
        for key, value in HEADERS.items():
            self.send_header(key, value)
        self.send_header("Content-Security-Policy", POLICY.format(nonce=nonce or secrets.token_urlsafe(16)))
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, POST")
        if kind:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if close:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.connection.settimeout(SEND_S)
        self.end_headers()
        for start in range(0, len(body), PIECE_BYTES):
            self.wfile.write(body[start : start + PIECE_BYTES])
