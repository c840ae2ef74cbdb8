"""Put a file on a device: it arrives whole under a name of our own, and only then gets the one it is looked for by."""

import shlex
from pathlib import Path

from mobilezoo.errors import DeviceError, printable
from mobilezoo.files import sha256_of
from mobilezoo_latency.remote.link import Link


def send(link: Link, local: Path, name: str, folder: str) -> str:
    """Copy a file to `folder`/`name` unless one of its size is there; returns its path on the device.

    Folders are named by a hash of what they hold, so equal size means equal file. Raises DeviceError.
    """
    remote, size = f"{folder}/{name}", str(local.stat().st_size)
    if link.shell(f"mkdir -p {shlex.quote(folder)}; wc -c < {shlex.quote(remote)} 2>/dev/null").text.strip() == size:
        return remote
    arriving = f"{folder}/put-{sha256_of(local)[:16]}"
    link.push(local, arriving)
    arrived = link.shell(f"wc -c < {shlex.quote(arriving)}").text.strip()
    if arrived != size:
        link.shell(f"rm -f {shlex.quote(arriving)}")
        got = arrived if arrived.isdecimal() else "0"
        raise DeviceError(f"{link.name}: {printable(name)} arrived with {got} of {size} bytes: is the storage full?")
    moved = link.shell(f"mv -f {shlex.quote(arriving)} {shlex.quote(remote)}")
    if moved.status != 0:
        raise DeviceError(f"{link.name}: cannot name {printable(name)!r}: {printable(moved.text.strip())}")
    return remote
