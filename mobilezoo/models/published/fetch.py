"""Published weights in the cache: fetched once, compared with their pinned hash, under their name only when whole."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from mobilezoo.errors import MissingToolError, existing_path, require
from mobilezoo.files import atomic_write, sha256_of, with_remedy
from mobilezoo.hub_client import hub_errors
from mobilezoo.hub_config import HubError
from mobilezoo.locks import locked
from mobilezoo.models.published import reports
from mobilezoo.models.published.cache import Pin, converted_place, mark_of, note_mark, pin_of, place_of, write_pin
from mobilezoo.models.published.choose import Published, WeightsError
from mobilezoo.models.published.content import check_content, checked_hash


@dataclass(frozen=True)
class Local:
    """Published weights that lie on this machine."""

    published: Published
    path: Path
    """What a reader of checkpoints takes: the file, or what was made of a TensorFlow checkpoint."""
    sha256: str
    """Of the published file."""
    key: str | None
    """Where in `path` the weights are; None for the file itself."""


def fetch(one: Published, *, given: Path | None = None, force: bool = False) -> Local:
    """Find the file on this machine, or fetch it; its license is printed once, when it comes.

    Args:
        one: what to fetch.
        given: a file that somebody fetched by hand, taken in place of the address; it stays where it is.
        force: fetch again what is there.

    Raises:
        WeightsError: where it cannot be fetched, is no file of weights, or not the one that was pinned.
        MissingToolError: for a TensorFlow checkpoint without TensorFlow.
    """
    place = place_of(one)
    if place.is_file() and given is None and not force:
        return local(one)
    if one.file.names == "tensorflow":
        require("tensorflow", "tensorflow")  # before anything is fetched that nobody could read
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with locked(place.with_name(".lock"), wait=True):
            if place.is_file() and given is None and not force:  # another process was faster
                return local(one)
            return _fetched(one, place, given)
    except OSError as error:
        reason = with_remedy(error)
        raise WeightsError(f"{one.name}: cannot write to the cache {str(place.parent)!r}: {reason}") from None


def local(one: Published, *, anew: bool = False) -> Local:
    """The file of the cache, compared with its pinned hash.

    Args:
        one: which file.
        anew: read and hash it even where the system shows that nobody changed it since it was.

    Raises:
        WeightsError: it is not there, or changed.
    """
    place = place_of(one)
    if not place.is_file():
        raise WeightsError(f"{one.name} is not fetched yet: run `mobilezoo weights fetch {one.name}`")
    pin = _compared(one, place, anew)
    sha256 = pin.sha256
    if one.file.names != "tensorflow":
        return Local(one, place, sha256, pin.key)
    made = converted_place(one)
    if not made.is_file() or sha256_of(made) != pin.converted_sha256:
        _pinned(one, place, sha256)
    return Local(one, made, sha256, None)


def _compared(one: Published, place: Path, anew: bool) -> Pin:
    """The pin of the file of the cache, which is hashed unless nobody touched it since it was. Raises WeightsError."""
    pin, mark = pin_of(one), mark_of(place)
    settled = pin is not None and mark is not None and pin.unchanged == mark
    if pin is not None and settled and not anew and pin.sha256.startswith(one.file.sha256 or ""):
        return pin
    sha256 = checked_hash(place, one, f"the file {str(place)!r}")
    pin = pin_of(one) or _pinned(one, place, sha256)
    if mark is not None and mark == mark_of(place):
        note_mark(one, pin, mark)
    return pin


def _fetched(one: Published, place: Path, given: Path | None) -> Local:
    part = place.with_name(f".{place.name}.part")
    arrived = part
    if given is not None:
        shutil.copyfile(existing_path(given, "file"), part)
    elif one.file.access == "hub":
        arrived = _from_hub(one, place.with_name(".hub"))
    elif one.file.access == "https":
        from mobilezoo.models.published.https import download

        assert one.file.url is not None
        download(one.file.url, part, one.name)
    elif one.file.access == "drive":
        _from_drive(one, part)
    else:
        raise WeightsError(_by_hand(one))
    _settle(one, arrived, place)
    part.with_name(part.name + ".json").unlink(missing_ok=True)
    shutil.rmtree(place.with_name(".hub"), ignore_errors=True)
    license = one.file.license
    reports.message(f"{one.name}: license of the weights: {license} ({one.file.address})")
    return local(one)


def _settle(one: Published, arrived: Path, place: Path) -> None:
    """What arrived gets its name and its pin, or is removed. Raises WeightsError, CheckpointError."""
    try:
        check_content(arrived, one)
        sha256 = checked_hash(arrived, one)
        if pin_of(one) is None:
            _pinned(one, arrived, sha256)
    except BaseException:
        arrived.unlink(missing_ok=True)
        raise
    arrived.replace(place)


def _pinned(one: Published, path: Path, sha256: str) -> Pin:
    """The pin of a file that is understood whole: where in it its weights are, and what is made of it."""
    if one.file.names == "tensorflow":
        from mobilezoo.models.published.tensorflow import convert

        made = converted_place(one)
        atomic_write(made, lambda temporary: convert(one, path, temporary))
        return write_pin(one, sha256, path.stat().st_size, None, sha256_of(made))
    from mobilezoo.models.published.keys import key_of

    return write_pin(one, sha256, path.stat().st_size, key_of(one, path))


def _from_hub(one: Published, folder: Path) -> Path:
    from huggingface_hub import hf_hub_download

    assert one.file.hub is not None
    assert one.file.file is not None
    what = f"{one.name}: cannot fetch {one.file.file!r} of {one.file.hub!r}"
    try:
        with reports.hub_is_quiet(), hub_errors(what):
            bar = reports.hub_bar(one.name)
            return Path(hf_hub_download(one.file.hub, one.file.file, local_dir=folder, tqdm_class=bar))
    except HubError as error:
        raise WeightsError(f"{error}; with the file from elsewhere: `{_from_file(one)}`") from None


def _from_drive(one: Published, part: Path) -> None:
    try:
        require("gdown", "drive")
    except MissingToolError:
        install = "run `pip install 'mobilezoo[drive]'` and the same command again, or "
        raise WeightsError(_by_hand(one, install)) from None
    import gdown

    try:
        done = gdown.download(id=one.file.drive_id, output=str(part), quiet=True, resume=True)
    except Exception as error:  # it raises its own, requests' and the system's
        raise WeightsError(f"{_by_hand(one)} ({type(error).__name__} from Google Drive)") from None
    if done is None:
        raise WeightsError(f"{_by_hand(one)} (Google Drive gave nothing)")


def _by_hand(one: Published, otherwise: str = "") -> str:
    which = f" {one.file.file!r}" if one.file.file else ""
    return (
        f"{one.name} is on {one.file.page}: {otherwise}open {one.file.address} in a browser, download the file{which} "
        f"and run `{_from_file(one)}`"
    )


def _from_file(one: Published) -> str:
    return f"mobilezoo weights fetch {one.name} --from FILE"
