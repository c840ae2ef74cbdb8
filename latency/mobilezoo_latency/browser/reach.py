"""Where the page's server listens, and how that is described: exactly one address, never all of a machine's."""

import importlib
import io
import ipaddress
import socket
from typing import Any, Literal, NamedTuple

from mobilezoo.errors import DeviceError
from mobilezoo_latency.browser.certificate import Certificate, self_signed

LOCAL_NAMES = ("localhost",)
Reach = Literal["lan", "localhost"]


def one_address(text: str) -> str:
    """Returns an address in its usual form. Raises ValueError for a name, and for what stands for many addresses."""
    if not text:
        return ""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError("an IP address of this machine, for example 192.168.1.20") from None
    if found.is_unspecified or found.is_multicast or getattr(found, "scope_id", None):
        raise ValueError("one address of this machine that a URL can hold, not one for all of them or with a %zone")
    return str(found)


def lan_address() -> str:
    """This machine's address on the interface that routes out; nothing is sent. Raises DeviceError without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address: only a route is looked up
        except OSError:
            raise DeviceError("no local network: join one, or use reach=localhost") from None
        return str(probe.getsockname()[0])


class Way(NamedTuple):
    """How a page is reached."""

    address: str
    names: tuple[str, ...]
    """Host names besides the address."""
    certificate: Certificate | None
    note: str
    """Who can open the link, and what protects it."""


def way_of(reach: Reach, address: str, https: bool) -> Way:
    """Chooses the address to listen on, and makes a certificate for it where one is needed.

    Args:
        reach: who can open the page: this machine, or its network.
        address: of this machine, for `lan`; empty takes that of the default route.
        https: whether to encrypt.

    Raises:
        DeviceError: there is no network, or no `openssl` to make the certificate.
    """
    lan = reach == "lan"
    listen, names = ((address or lan_address()), ()) if lan else ("127.0.0.1", LOCAL_NAMES)
    made = self_signed((listen, *names)) if https else None
    return Way(listen, names, made, access_note(reach, listen, made and made.fingerprint))


def qr_code(url: str) -> str:
    """Returns a link as a picture of text. Needs the extra `devices`."""
    segno: Any = importlib.import_module("segno")  # optional
    picture = io.StringIO()
    segno.make(url, error="l").terminal(picture, compact=True)
    return picture.getvalue()


def access_note(reach: str, address: str, fingerprint: str | None) -> str:
    """Describes who can open the link and what protects it.

    Args:
        reach: `lan` or `localhost`.
        address: where the server listens.
        fingerprint: SHA-256 of the certificate; None for plain http.
    """
    if reach == "localhost":
        who = "reachable from this machine only, by who has this link"
        return f"{who}; plain http stays inside it" if fingerprint is None else f"{who}; {_certificate(fingerprint)}"
    who = f"reachable by every device that can reach {address} and has this link (a random token is in it)"
    if fingerprint is not None:
        return f"{who}; {_certificate(fingerprint)}"
    return f"{who}; NOT encrypted (scheme=http): whoever listens on the network reads link, model and results"


def _certificate(fingerprint: str) -> str:
    return (
        "encrypted with a certificate made for this run: the browser warns once (Advanced, then proceed); the "
        f"right one has the SHA-256 fingerprint {fingerprint}"
    )
