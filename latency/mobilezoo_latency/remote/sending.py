"""Copies files to a device: each arrives under a temporary name and is renamed when complete."""

import hashlib
import shlex
from pathlib import Path

from mobilezoo.errors import DeviceError, printable
from mobilezoo.files import sha256_of
from mobilezoo_latency.remote.link import Link
from mobilezoo_latency.remote.runners import Runner


def send(link: Link, local: Path, name: str, folder: str) -> str:
    """Copies a file to `folder`/`name` unless one of its size is there.

    Folders are named by a hash of their contents, so equal size means equal file.

    Args:
        link: the connection.
        local: the file here.
        name: its name on the device.
        folder: folder on the device; created if missing.

    Returns:
        The path on the device.

    Raises:
        DeviceError: it did not arrive whole, or the connection is lost for good.
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


def send_runner(link: Link, runner: Runner, folder: str) -> str:
    """Copies the user's benchmark tool and its libraries.

    Args:
        link: the connection.
        runner: the tool.
        folder: folder on the device; the files go to one of their own below it.

    Returns:
        The tool's path on the device.

    Raises:
        DeviceError: a file did not arrive whole, or the connection is lost for good.
    """
    files = [Path(name).expanduser() for name in (runner.config.path, *runner.config.libraries)]
    place = f"{folder}/{runner.config.kind}-{_key_of(files)}"
    for library in files[1:]:
        send(link, library, library.name, place)  # the loader looks for it by this name
    binary = send(link, files[0], runner.config.kind, place)
    link.shell(f"chmod 755 {shlex.quote(binary)}")
    return binary


def _key_of(files: list[Path]) -> str:
    """Hash of the contents and names of files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{sha256_of(file)} {file.name}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
