"""The server behind the measuring page: it gives jobs to one browser and takes its results.

Everything that comes in has bounds, requests from other pages get nothing, and the server ends with the measurement.
"""

import ssl
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

from mobilezoo_latency.browser.handler import PAGE, PageHandler
from mobilezoo_latency.browser.messages import CAPS, Hello, Message, Progress, result_bytes
from mobilezoo_latency.browser.site import Site, SiteHandler

GOODBYE_S = 3.0
"""How long `close` waits until the page has fetched the end of the measurement."""


class PageServer(Site):
    """Serves until `close`. Messages of the browser are read by `hello`, `progress` and `take_result`."""

    handler: ClassVar[type[SiteHandler]] = PageHandler

    def __init__(
        self, address: str, names: tuple[str, ...], files: dict[str, Path], tls: ssl.SSLContext | None
    ) -> None:
        """Starts to listen.

        Args:
            address: where to listen.
            names: host names that a request may use besides the address.
            files: name in the link → file.
            tls: makes it https; None: http.
        """
        self._ended = False
        self._end_sent = threading.Event()
        self.hello: Hello | None = None
        self.progress = ""
        self.last_heard = time.monotonic()
        self._job: dict[str, Any] | None = None
        self._result: Any = None
        super().__init__(address, names, PAGE / "index.html", files, tls)

    def close(self) -> None:
        """Lets the page fetch the end of the measurement, then stops listening and answering."""
        self._ended = True
        if self.hello is not None:
            self._end_sent.wait(GOODBYE_S)
        super().close()

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
