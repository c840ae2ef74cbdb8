"""Whether what arrived is what was meant: no web page, no pointer to a file, and of the pinned hash."""

import hashlib
from pathlib import Path

from mobilezoo.errors import printable
from mobilezoo.files import sha256_of
from mobilezoo.models.published.cache import lock_file, pin_of
from mobilezoo.models.published.choose import Published, WeightsError

POINTER = b"version https://git-lfs.github.com/spec/"
MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<script")
BEGINNINGS = (b"PK\x03\x04", b"\x80", b"\x1f\x8b")
"""zip and pickle, in both of which torch.save writes, and gzip; a safetensors begins with a length and a brace."""


def check_content(path: Path, one: Published) -> None:
    """Refuse what begins otherwise than a file of weights.

    Args:
        path: the file that arrived.
        one: the published weights it should be.

    Raises:
        WeightsError: it is a web page, a pointer of Git LFS, empty, or of another kind.
    """
    with path.open("rb") as file:
        first = file.read(256)
    text = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not first:
        raise WeightsError(f"{one.name}: {one.file.address} gave an empty file: try again later")
    if text.startswith(MARKUP):
        raise WeightsError(
            f"{one.name}: {one.file.address} gave a web page instead of the file: open it in a browser, save the file "
            f"and run `mobilezoo weights fetch {one.name} --from FILE`"
        )
    if first.startswith(POINTER):
        raise WeightsError(
            f"{one.name}: {one.file.address} gave a Git LFS pointer instead of the file: fetch it with `git lfs`, then "
            f"run `mobilezoo weights fetch {one.name} --from FILE`"
        )
    if not first.startswith(BEGINNINGS) and first[8:9] != b"{":
        shown = printable(first[:24].decode("latin-1"))
        raise WeightsError(f"{one.name}: {one.file.address} gave no file of weights: it begins with {shown!r}")


def checked_hash(path: Path, one: Published, whose: str = "what arrived") -> str:
    """Hash a file and compare it with its record and its pin.

    Args:
        path: the file.
        one: the published weights it should be.
        whose: the file in words, for the message.

    Returns:
        Its SHA-256.

    Raises:
        WeightsError: the record in the model's YAML or the pin in the lock file is another.
    """
    found = sha256_of(path)
    if one.file.sha256 and not found.startswith(one.file.sha256):
        raise _refused(one, whose, f"sha256 {found[:12]}…", f"its record has {one.file.sha256[:12]}…")
    pin = pin_of(one)
    if pin is not None and pin.sha256 != found:
        raise _refused(
            one,
            whose,
            f"sha256 {found[:12]}…",
            f"{pin.sha256[:12]}… was pinned on {pin.pinned_at[:10]} in {str(lock_file())!r}",
        )
    if pin is None and one.file.git_sha1 and (blob := git_sha1(path)) != one.file.git_sha1:
        raise _refused(one, whose, f"git hash {blob[:12]}…", f"its record has {one.file.git_sha1[:12]}…")
    return found


def git_sha1(path: Path) -> str:
    """What `git hash-object` prints for a file."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _refused(one: Published, whose: str, found: str, known: str) -> WeightsError:
    return WeightsError(
        f"{one.name}: {whose} is another file than was published ({found}, {known}): it is damaged or was replaced; "
        f"fetch it again with `mobilezoo weights fetch {one.name} --force`, or ask its authors"
    )
