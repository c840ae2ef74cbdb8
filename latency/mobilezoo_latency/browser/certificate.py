"""A self-signed certificate for one run: key and certificate live in a scratch folder and go with it."""

import contextlib
import ipaddress
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mobilezoo.errors import DeviceError

DAYS = 2


@contextlib.contextmanager
def self_signed(hosts: tuple[str, ...]) -> Iterator[ssl.SSLContext]:
    """A server context for these names and addresses, made by `openssl`. Raises DeviceError without it."""
    if shutil.which("openssl") is None:
        raise DeviceError("openssl not found: https needs it to make a certificate; install it, or leave https=false")
    names = ",".join(f"IP:{host}" if _is_address(host) else f"DNS:{host}" for host in hosts)
    with tempfile.TemporaryDirectory(prefix="mobilezoo-tls-") as folder:
        key, certificate = Path(folder) / "key.pem", Path(folder) / "certificate.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", str(key), "-out", str(certificate), "-days", str(DAYS)]
        command += ["-subj", "/CN=mobilezoo", "-addext", f"subjectAltName={names}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DeviceError(f"openssl could not make a certificate: {done.stderr.strip().splitlines()[-1]}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key)
        yield context


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
