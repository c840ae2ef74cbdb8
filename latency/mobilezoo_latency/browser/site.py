"""A small web server for one page: it serves a fixed list of files to the holder of a link, until it is closed.

Requests without the token in the path, by another host name or with a body get nothing. The page may load and call
nothing but this server.
"""

import gzip
import ipaddress
import secrets
import ssl
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import ClassVar

from mobilezoo.errors import DeviceError
from mobilezoo_latency.browser.limits import SEND_S, BoundedHandler, BoundedServer

POLL_S = 0.1
"""Interval at which the listening thread checks whether it is to end."""
BYTES = "application/octet-stream"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
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


class SiteHandler(BoundedHandler):
    """Answers GET requests for one `Site`, its `site`."""

    site: ClassVar["Site"]

    def do_GET(self) -> None:  # noqa: N802 - the name http.server calls
        if (wanted := self.wanted()) is not None:
            self.serve(wanted[0])

    def serve(self, name: str) -> None:
        """Answers with the page, a blob or a file of this name; 404 for any other."""
        if name in ("", "index.html"):
            self._page()
        elif name in self.site.blobs:
            self.answer(200, self.site.blobs[name], TYPES.get(Path(name).suffix, BYTES))
        elif name in self.site.files:
            self.site.note(name)
            path = self.site.files[name]
            kind = TYPES.get(path.suffix, BYTES)
            if name in self.site.packed and self._takes_gzip():
                self.answer(200, self.site.packed[name], kind, encoding="gzip")
            else:
                self.answer(200, path.read_bytes(), kind)
        else:
            self.answer(404)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answers a faulty request with a status and no body.

        Args:
            code: HTTP status of the base class; 501 becomes 405, as GET and POST are the only methods.
            message: not sent.
            explain: not sent.
        """
        self.refuse(405 if code == HTTPStatus.NOT_IMPLEMENTED else code)

    def wanted(self) -> tuple[str, str] | None:
        """Returns (name, query) below the token's path; None, after a refusal, if nothing may be served."""
        hosts = self.headers.get_all("Host", [])
        path, _, query = self.path.partition("?")
        token, slash, name = path.removeprefix("/").partition("/")
        if self.site.closed:  # a connection that was kept alive
            self.refuse(410)
        elif len(hosts) != 1 or hosts[0].lower() not in self.site.hosts:
            self.refuse(421)
        elif not slash or not secrets.compare_digest(token.encode(), self.site.token.encode()):
            self.refuse(404)
        elif self.command != "POST" and self.headers.get("Content-Length", "0") != "0":
            self.refuse(400)
        else:
            self.site.last_request = time.monotonic()
            return name, query
        return None

    def refuse(self, status: int) -> None:
        """Answers and ends the connection: an unread body must not be taken for the next request."""
        self.answer(status, close=True)

    def answer(
        self, status: int, body: bytes = b"", kind: str = "", nonce: str = "", close: bool = False, encoding: str = ""
    ) -> None:
        """Sends a whole answer with the headers of all answers.

        Args:
            status: HTTP status.
            body: content.
            kind: its media type.
            nonce: of the page's one inline script.
            close: whether the connection ends.
            encoding: how `body` is compressed, as HTTP names it; empty: not at all.
        """
        self.send_response(status)
        for key, value in HEADERS.items():
            self.send_header(key, value)
        self.send_header("Content-Security-Policy", POLICY.format(nonce=nonce or secrets.token_urlsafe(16)))
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, POST")
        if kind:
            self.send_header("Content-Type", kind)
        if encoding:
            self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", str(len(body)))
        if close:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.connection.settimeout(SEND_S)
        self.end_headers()
        for start in range(0, len(body), PIECE_BYTES):
            self.wfile.write(body[start : start + PIECE_BYTES])

    def _takes_gzip(self) -> bool:
        for one in self.headers.get("Accept-Encoding", "").split(","):
            name, _, weight = one.replace(" ", "").lower().partition(";q=")
            if name == "gzip":
                return not weight or weight.strip("0.") != ""
        return False

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        text = self.site.page.read_text(encoding="utf-8").replace("{{nonce}}", nonce)
        self.answer(200, text.encode(), TYPES[".html"], nonce=nonce)


class Site:
    """Serves a page and its files until `close`."""

    handler: ClassVar[type[SiteHandler]] = SiteHandler

    def __init__(
        self, address: str, names: tuple[str, ...], page: Path, files: dict[str, Path], tls: ssl.SSLContext | None
    ) -> None:
        """Starts to listen on a free port.

        Args:
            address: where to listen.
            names: host names that a request may use besides the address.
            page: the HTML file; `{{nonce}}` in it stands for the nonce of its inline script.
            files: name in the link → file.
            tls: makes it https; None: http.
        """
        self.token = secrets.token_urlsafe(16)
        self.page = page
        self.files = dict(files)
        self.blobs: dict[str, bytes] = {}
        """Served from memory."""
        self.packed: dict[str, bytes] = {}
        """Files as gzip compressed them, for browsers that take it."""
        self.lock = threading.Lock()
        self.closed = False
        self.last_request: float | None = None
        """Monotonic time of the last request that was let in; None before the first."""
        self.served: list[str] = []
        """Names of files requested, in order."""
        try:
            self._http = BoundedServer(address, type("Handler", (self.handler,), {"site": self}))
        except OSError as error:
            raise DeviceError(f"cannot listen on {address}: {error.strerror or error}") from None
        self.port = int(self._http.server_address[1])
        self.scheme = "https" if tls is not None else "http"
        self.hosts = {f"{in_url(name)}:{self.port}" for name in (address, *names)}
        self.url = f"{self.scheme}://{in_url(names[0] if names else address)}:{self.port}/{self.token}/"
        """The link: whoever has it and reaches the address can open the page."""
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._http.serve_forever, args=(POLL_S,), daemon=True).start()

    def close(self) -> None:
        """Stops listening and answering."""
        self.closed = True
        self._http.shutdown()
        self._http.server_close()

    def pack(self, names: list[str]) -> None:
        """Compresses files one after the other, in a thread; those that are requested before are sent as they are.

        Args:
            names: of `files`.
        """

        def work() -> None:
            for name in names:
                if self.closed:
                    return
                self.packed[name] = gzip.compress(self.files[name].read_bytes(), 6, mtime=0)

        threading.Thread(target=work, daemon=True).start()

    def note(self, name: str) -> None:
        """Records the request of a file; one browser fetches a few dozen."""
        with self.lock:
            self.served = [*self.served[-999:], name]


def in_url(host: str) -> str:
    """Returns a name or address as it is written in a URL."""
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host
