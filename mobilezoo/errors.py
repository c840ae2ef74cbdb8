"""Errors that a user can mend: one line that names the value, the reason and the remedy."""

import difflib
import signal
from collections.abc import Iterable
from pathlib import Path

FEW = 20
"""Longer lists of names are cut in a message."""
LONGEST = 120
"""Characters of a value that a message shows."""


def near_names(name: str, known: Iterable[str], most: int) -> list[str]:
    """Suggests known names: those that begin with the given one, then similar ones.

    Args:
        name: the misspelt name.
        known: names to choose from.
        most: upper limit of suggestions.
    """
    names = list(known)
    begun = [other for other in names if len(name) > 2 and other.lower().startswith(name.lower())]
    similar = difflib.get_close_matches(name[:LONGEST], names, n=most, cutoff=0.5)
    return list(dict.fromkeys([*begun, *similar]))[:most]


def shortened(text: str, most: int = LONGEST) -> str:
    """Cuts a text for a message of one line, and appends its full length.

    Args:
        text: any text.
        most: characters kept.
    """
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def printable(text: str) -> str:
    """Escapes control characters and line breaks of a text for a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def first_line(error: BaseException | str, limit: int = 300) -> str:
    """Return the first line of an error's text that is not empty, for a message of one line.

    Args:
        error: an exception, or the text of one.
        limit: characters kept.

    Returns:
        Printable text; for an error without one, the name of its type.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    nothing = "no reason given" if isinstance(error, str) else type(error).__name__
    return printable((lines[0] if lines else nothing)[:limit])


class MobilezooError(Exception):
    """A mistake in the input or the set-up. The CLI prints it as one line and exits with code 2."""


class ConfigError(MobilezooError):
    """A config file, key or value that cannot be used."""


class UnknownNameError(MobilezooError):
    """A name without an entry in a registry; similar names are suggested."""

    def __init__(self, kind: str, name: str, known: Iterable[str], note: str = "") -> None:
        names = sorted(known)
        near = near_names(name, names, 4)
        every = f"known: {', '.join(names[:FEW])}" + (", …" if len(names) > FEW else "")
        every = "see `mobilezoo list`" if kind == "model" and len(names) > FEW else every
        hint = f"did you mean {', '.join(near)}?" if near else every
        super().__init__(f"unknown {kind} {shortened(repr(name))}: {hint}" + (f"; {note}" if note else ""))


class CheckpointError(MobilezooError):
    """A checkpoint that cannot be read safely or does not fit the model."""


class InputSizeError(MobilezooError, ValueError):
    """An input whose height or width a network cannot take."""


class DataError(MobilezooError):
    """A dataset that is missing, empty or broken."""


class ExportError(MobilezooError):
    """A model that a target cannot represent, or an artifact that is wrong."""


class DeviceError(MobilezooError):
    """A device that is missing or cannot run an artifact."""


class RunStoppedError(MobilezooError):
    """A run that a signal stopped, its state saved; the exit code is 128 + the signal's number, as in shells."""

    label = "stopped"

    def __init__(self, text: str, number: int = signal.SIGTERM) -> None:
        super().__init__(text)
        self.exit_code = 128 + number


class MissingToolError(MobilezooError):
    """An optional toolchain that is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} is not installed: run `pip install 'mobilezoo[{extra}]'`")


def require(module: str, extra: str) -> None:
    """Raises MissingToolError unless a module is installed; does not import it.

    Args:
        module: dotted name.
        extra: extra of the package that installs it, for the message.
    """
    import importlib.util

    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise MissingToolError(module, extra)


def existing_path(path: str | Path, what: str) -> Path:
    """Expands `~` and checks that a file or folder is there.

    Args:
        path: file or folder.
        what: noun for the error message.

    Raises:
        MobilezooError: there is nothing at `path`, or a pipe, socket or device, reading which may never end.
    """
    found = Path(path).expanduser()
    if not found.exists():
        raise MobilezooError(f"{what} not found: {str(path)!r}")
    if not (found.is_file() or found.is_dir()):
        raise MobilezooError(f"{what} {str(path)!r} is a pipe, socket or device: name a file")
    return found


def wrong_kind(path: str | Path, what: str, *, folder: bool = False) -> str:
    """Describes why a path is no file, or no folder.

    Args:
        path: what was given.
        what: noun for the message.
        folder: a folder is wanted, not a file.

    Returns:
        A line with the remedy.
    """
    found = Path(path).expanduser()
    if not found.exists():
        return f"{what} not found: {str(path)!r}"
    given, wanted = ("file", "folder") if folder else ("folder", "file")
    return f"{what} {str(path)!r} is a {given}: name a {wanted}"


def existing_folder(path: str | Path, what: str) -> Path:
    """Expands `~` and checks that a folder is there.

    Args:
        path: folder.
        what: noun for the error message.

    Raises:
        MobilezooError: there is nothing at `path`, or something that is no folder.
    """
    found = existing_path(path, what)
    if not found.is_dir():
        raise MobilezooError(wrong_kind(path, what, folder=True))
    return found


def writable_place(path: Path, option: str, *, folder: bool = False) -> None:
    """Refuses a place that nothing can be written to before the work for it is done.

    Args:
        path: the file or folder to write, which need not be there.
        option: what named it, for the message.
        folder: a folder is written, not a file.

    Raises:
        MobilezooError: something of the other kind is at `path`, or a file where one of its folders belongs.
    """
    if path.exists() and path.is_dir() != folder:
        raise MobilezooError(wrong_kind(path, option, folder=folder))
    for parent in path.parents:
        if parent.exists() and not parent.is_dir():
            raise MobilezooError(f"{option} {str(path)!r}: {str(parent)!r} is a file: name another place")
