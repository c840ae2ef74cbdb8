"""Messages of the measuring page: POST requests with bounds, and the job that it fetches."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qs

from mobilezoo_latency.browser.messages import KINDS, BadMessageError, parse_message
from mobilezoo_latency.browser.site import SiteHandler

if TYPE_CHECKING:
    from mobilezoo_latency.browser.server import PageServer

PAGE = Path(__file__).parent / "page"


class PageHandler(SiteHandler):
    """Answers for one `PageServer`."""

    site: ClassVar["PageServer"]

    def do_GET(self) -> None:  # noqa: N802 - the name http.server calls
        if (wanted := self.wanted()) is None:
            return
        name, query = wanted
        if name == "job":
            client = parse_qs(query).get("client", [""])[0]
            self.answer(200, json.dumps(self.site.job_for(client)).encode(), "application/json")
        else:
            self.serve(name)

    def do_POST(self) -> None:  # noqa: N802
        if (wanted := self.wanted()) is None:
            return
        name, _ = wanted
        length = self.headers.get("Content-Length", "")
        if name not in KINDS:
            self.refuse(404)
        elif self.headers.get("Origin", self._origin()) != self._origin():
            self.refuse(403)
        elif not (length.isascii() and length.isdecimal() and len(length) < 20) or "Transfer-Encoding" in self.headers:
            self.refuse(411)
        elif int(length) > self.site.cap_of(name):
            self.refuse(413)
        elif self.headers.get_content_type() != "application/json":
            self.refuse(415)
        else:
            self._take(name, int(length))

    def _take(self, name: str, length: int) -> None:
        body = self.body(length)
        try:
            status = self.site.take(parse_message(name, body)) if len(body) == length else 400
        except BadMessageError:
            status = 400
        self.answer(status, close=len(body) != length)

    def _origin(self) -> str:
        return f"{self.site.scheme}://{self.headers['Host'].lower()}"
