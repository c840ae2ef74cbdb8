"""The small web server behind the page: it serves a fixed list of files to one browser and takes its results.

Requests without the token in the path, by another host name or from another page get nothing. The page may
load and call nothing but this server, everything that comes in has bounds, and the server ends with the measurement.
"""

import ipaddress
import secrets
import ssl
import threading
import time
from pathlib import Path
from typing import Any

from mobilezoo.errors import DeviceError
from mobilezoo_latency.browser.handler import PageHandler
from mobilezoo_latency.browser.limits import BoundedServer
from mobilezoo_latency.browser.messages import CAPS, Hello, Message, Progress, result_bytes

POLL_S = 0.1
"""Interval at which the listening thread checks whether it is to end."""
GOODBYE_S = 3.0
"""How long `close` waits until the page has fetched the end of the measurement."""


class PageServer:
    """Serves until `close`. Messages of the browser are read by `hello`, `progress` and `take_result`."""

    def __init__(
        self, address: str, names: tuple[str, ...], files: dict[str, Path], tls: ssl.SSLContext | None
    ) -> None:
        self.token = secrets.token_urlsafe(16)
        self.files = dict(files)
        self.blobs: dict[str, bytes] = {}
        """Served from memory: the model and its input."""
        self.lock = threading.Lock()
        self.closed = self._ended = False
        self._end_sent = threading.Event()
        self.hello: Hello | None = None
        self.progress = ""
        self.last_heard = time.monotonic()
        self.served: list[str] = []
        """Names requested since the last job, in order; they show which build a runtime chose."""
        self._job: dict[str, Any] | None = None
        self._result: Any = None
        try:
            self._http = BoundedServer(address, type("Handler", (PageHandler,), {"owner": self}))
        except OSError as error:
            raise DeviceError(f"cannot listen on {address}: {error.strerror or error}") from None
        self.port = int(self._http.server_address[1])
        self.scheme = "https" if tls is not None else "http"
        self.hosts = {f"{in_url(name)}:{self.port}" for name in (address, *names)}
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._http.serve_forever, args=(POLL_S,), daemon=True).start()

    def close(self) -> None:
        """Lets the page fetch the end of the measurement, then stops listening and answering."""
        self._ended = True
        if self.hello is not None:
            self._end_sent.wait(GOODBYE_S)
        self.closed = True
        self._http.shutdown()
        self._http.server_close()

    def give(self, job: dict[str, Any]) -> None:
        """Sets the job that the page fetches next."""
        with self.lock:
            self._job, self._result, self.served = job, None, []
            self.last_heard = time.monotonic()

    def take_result(self) -> Any:
        """Returns the `Result` of the given job, once; None before."""
        with self.lock:
            found, self._result = self._result, None
            if found is not None:
                self._job = None
            return found

    def job_for(self, client: str) -> dict[str, Any]:
        """Returns the job of this browser; {"id": 0} for none, with "ended" if none will follow."""
        with self.lock:
            if self._ended:
                self._end_sent.set()
                return {"id": 0, "ended": True}
            if self.hello is None or self.hello.client != client:
                return {"id": 0}
            self.last_heard = time.monotonic()
            return self._job if self._job is not None and self._result is None else {"id": 0}

    def cap_of(self, name: str) -> int:
        """Largest accepted body of a message, in bytes; for a result, it depends on the running job."""
        with self.lock:
            return CAPS[name] if name in CAPS else result_bytes(self._job)

    def note(self, name: str) -> None:
        """Records the request of a file; one browser fetches a few dozen."""
        with self.lock:
            self.served = [*self.served[-999:], name]

    def take(self, message: Message) -> int:
        """Takes a message of the page and returns the HTTP status of the answer."""
        with self.lock:
            known = self.hello is None or self.hello.client == message.client
            if isinstance(message, Hello):
                self.hello = message if known else self.hello
                status = 204 if known else 409
            elif self.hello is None or not known:
                status = 403
            elif self._job is None or message.job != self._job["id"]:
                status = 409
            elif isinstance(message, Progress):
                self.progress, status = message.text, 204
            else:
                self._result, status = message, 204
            if status == 204:
                self.last_heard = time.monotonic()
            return status


def in_url(host: str) -> str:
    """Returns a name or address as it is written in a URL."""
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host
