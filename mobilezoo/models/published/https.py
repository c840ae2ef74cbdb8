"""One file over HTTPS, into a part that another attempt goes on with.

The libraries at hand fetch whole files (torch.hub, pooch) or go on without asking whether the file is still the same
(huggingface_hub.http_get). Here `If-Range` lets the server decide: it sends the rest of the same file, or the new one.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mobilezoo.errors import first_line
from mobilezoo.files import ROOM, with_remedy
from mobilezoo.models.published.choose import WeightsError
from mobilezoo.models.published.reports import message, progress
from mobilezoo.reading import read_json

if TYPE_CHECKING:
    from httpx2 import Response

ATTEMPTS = 4
"""In a row, without a byte more."""
LONGEST_WAIT_S = 60.0
"""What a host may ask to wait; where it asks for more, the user decides."""
TIMEOUT_S = 30.0
BUSY = (408, 425, 429, 500, 502, 503, 504)
MEANINGS = {
    401: "it wants a login",
    403: "it is closed to us",
    404: "it is not there any more",
    409: "it is closed to us",
    410: "it is not there any more",
}


class _AgainError(Exception):
    """Worth another attempt, after some seconds."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


@dataclass
class _Part:
    """What has arrived so far, and which version of the file it is of."""

    path: Path
    url: str

    @property
    def note(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def headers(self) -> dict[str, str]:
        """Of a request for what is missing; without a mark of the version everything is."""
        with suppress(Exception):
            known = read_json(self.note)
            if known["url"] == self.url and known["version"] and self.path.stat().st_size:
                return {"Range": f"bytes={self.path.stat().st_size}-", "If-Range": known["version"]}
        return {}

    def begin(self, response: "Response") -> int:
        """Bytes that are kept: those before the ones that come. Raises _AgainError."""
        if response.status_code == 206:
            size = self.path.stat().st_size
            if re.match(rf"bytes {size}-", response.headers.get("content-range", "")):
                return size
            self.forget()
            raise _AgainError("it sent another part than was asked for", 0)
        version = response.headers.get("etag") or response.headers.get("last-modified") or ""
        version = "" if version.startswith("W/") else version  # weak marks do not promise equal bytes
        self.path.write_bytes(b"")
        self.note.write_text(json.dumps({"url": self.url, "version": version}), encoding="utf-8")
        return 0

    def forget(self) -> None:
        for path in (self.path, self.note):
            path.unlink(missing_ok=True)


def download(url: str, path: Path, name: str) -> None:
    """Fetch a file, or the rest of it where `path` holds a part already. Raises WeightsError.

    Args:
        url: its address; redirects are followed, but never from https to http.
        path: what has arrived so far; whole when this returns.
        name: of the weights, for messages.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part, failures, had = _Part(path, url), 0, -1
    while True:
        try:
            _attempt(part, name)
            return
        except _AgainError as error:
            now = path.stat().st_size if path.is_file() else 0
            failures = 1 if now > had else failures + 1
            had = max(now, had)
            wait = 2.0 ** (failures - 1) / 2 if error.wait_s is None else error.wait_s
            if failures >= ATTEMPTS or wait > LONGEST_WAIT_S:
                raise WeightsError(_given_up(url, name, str(error), now, error.wait_s)) from None
            if wait >= 1:
                message(f"{name}: {error}: again in {wait:.0f} s")
            time.sleep(wait)


def _attempt(part: _Part, name: str) -> None:
    """One request and what it brings. Raises _AgainError, WeightsError."""
    with _one_line(part.url, name), _request(part.url, part.headers()) as response:
        _check(response, part, name)
        done = part.begin(response)
        length = response.headers.get("content-length")
        total = done + int(length) if length and "content-encoding" not in response.headers else 0
        _check_room(part.path, total - done, name)
        with part.path.open("ab") as file, progress(name, done, total) as tell:
            _take(response, file.write, done, lambda now: tell(now, total))
            file.flush()
            os.fsync(file.fileno())
        if total and part.path.stat().st_size != total:
            raise _AgainError("the connection ended early")


def _take(response: "Response", write: Callable[[bytes], object], done: int, tell: Callable[[int], None]) -> None:
    for block in response.iter_bytes():
        write(block)
        done += len(block)
        tell(done)


@contextmanager
def _request(url: str, headers: dict[str, str]) -> "Iterator[Response]":
    import httpx2

    headers = {"Accept-Encoding": "identity", "User-Agent": "mobilezoo", **headers}
    with (
        httpx2.Client(follow_redirects=True, timeout=TIMEOUT_S) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        yield response


def _check(response: "Response", part: _Part, name: str) -> None:
    """Raise _AgainError where another attempt may bring the file, WeightsError where none will."""
    status, host = response.status_code, response.url.host
    if part.url.startswith("https:") and response.url.scheme != "https":
        raise WeightsError(f"{name}: {part.url} leads to {response.url}, which is not encrypted: it is not followed")
    if status in BUSY:
        raise _AgainError(f"{host} answered {status}", _wait_s(response.headers.get("retry-after")))
    if status == 416:  # all of it is there, or more than it ever had
        part.forget()
        raise _AgainError(f"{host} has no such part of the file", 0)
    if status not in (200, 206):
        meaning = MEANINGS.get(status, "no file came")
        raise WeightsError(
            f"{name}: {host} answered {status} for {part.url}: {meaning}; with the file from elsewhere: "
            f"`mobilezoo weights fetch {name} --from FILE`"
        )
    if response.headers.get("content-type", "").startswith("text/html"):
        raise WeightsError(
            f"{name}: {part.url} gave a web page instead of the file: open it in a browser, save the file and run "
            f"`mobilezoo weights fetch {name} --from FILE`"
        )


def _wait_s(given: str | None) -> float | None:
    """Seconds of a Retry-After, which is a number or a date."""
    if not given:
        return None
    if given.strip().isdigit():
        return float(given)
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    return None


def _check_room(path: Path, needed: int, name: str) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise WeightsError(
            f"{name}: {needed / 1e6:,.0f} MB are to come and {str(path.parent)!r} has {free / 1e6:,.0f} MB left: free "
            "some space, or name another folder with MOBILEZOO_CACHE"
        )


@contextmanager
def _one_line(url: str, name: str) -> Iterator[None]:
    """What the network and the disk raise, in our words. Raises _AgainError, WeightsError."""
    import httpx2

    try:
        yield
    except httpx2.TooManyRedirects:
        raise WeightsError(f"{name}: {url} leads in circles") from None
    except httpx2.TransportError as error:
        raise _AgainError(first_line(error, 120)) from None
    except (httpx2.InvalidURL, httpx2.HTTPError) as error:
        raise WeightsError(f"{name}: {url}: {first_line(error, 120)}") from None
    except OSError as error:
        kept = "; what arrived is kept" if error.errno in ROOM else ""
        raise WeightsError(f"{name}: cannot write to the cache: {with_remedy(error)}{kept}") from error


def _given_up(url: str, name: str, why: str, now: int, asked_s: float | None) -> str:
    kept = f"; {now / 1e6:,.1f} MB are kept, the same command goes on from there" if now else ""
    if asked_s is not None and asked_s > LONGEST_WAIT_S:
        return f"{name}: {why} and asks to wait {asked_s:,.0f} s: run the same command then{kept}"
    return f"{name}: {url} cannot be reached ({why}): look after the network and run the same command again{kept}"
