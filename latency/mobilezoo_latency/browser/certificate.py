"""A self-signed certificate for one run: its key is on disk for a moment only, in a folder of its own."""

import hashlib
import ipaddress
import shutil
import ssl
import subprocess
from typing import NamedTuple

from mobilezoo.errors import DeviceError
from mobilezoo.scratch import temporary_folder

DAYS = 2


class Certificate(NamedTuple):
    """A certificate ready to serve with."""

    context: ssl.SSLContext
    fingerprint: str
    """SHA-256 as browsers print it: AB:CD:…"""


def require_openssl() -> None:
    """Raise DeviceError unless certificates can be made here."""
    if shutil.which("openssl") is None:
        raise DeviceError(
            "openssl not found: https needs it to make a certificate; install it, or use scheme=http, which everyone "
            "in the same network can read"
        )


def self_signed(hosts: tuple[str, ...]) -> Certificate:
    """A certificate for these names and addresses, made by `openssl`. Raises DeviceError without it."""
    require_openssl()
    names = ",".join(f"IP:{host}" if _is_address(host) else f"DNS:{host}" for host in hosts)
    with temporary_folder("tls") as folder:
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", str(key), "-out", str(certificate), "-days", str(DAYS)]
        command += ["-subj", "/CN=mobilezoo", "-addext", f"subjectAltName={names}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DeviceError(f"openssl could not make a certificate: {done.stderr.strip().splitlines()[-1]}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key)
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text(encoding="ascii")))
        return Certificate(context, digest.digest().hex(":").upper())


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
