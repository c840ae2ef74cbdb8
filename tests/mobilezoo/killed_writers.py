"""Writers that are killed before each of their file operations in turn: `python killed_writers.py CHECK FOLDER`.

In a process of its own, because forks of one that holds PyTorch are slow.
"""

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from mobilezoo.artifacts import Described, has_record, load_record_of, write_with_record
from mobilezoo.files import _tidy_once, finish, sha256_of, tidy, write_text
from mobilezoo.scratch import temporary_folder

ON_DISK = ("open", "os.", "shutil.", "fcntl.")
"""Audit events of whatever touches a file."""


def start(work: Callable[[], object], step: int | None = None) -> int:
    """Do `work` in another process, which is killed before its file operation number `step`."""
    child = os.fork()
    if child:
        return child
    left = [step]

    def count(event: str, _: object) -> None:
        if left[0] is not None and event.startswith(ON_DISK):
            left[0] -= 1
            if left[0] < 0:
                left[0] = None  # the kill is such an operation too
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        next_command()
        sys.addaudithook(count)
        work()
        os._exit(0)
    except BaseException:
        left[0] = None
        traceback.print_exc()
    os._exit(1)


def killed(child: int) -> bool:
    """Wait for a process; whether it was killed."""
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"status {status}"
    return os.WIFSIGNALED(status)


def kills(work: Callable[[], object], before: Callable[[], object]) -> Iterator[bool]:
    """Kill `work` one file operation later each time; whether it was. Ends with the one that was not."""
    for step in range(1000):
        before()
        was_killed = killed(start(work, step))
        yield was_killed
        if not was_killed:
            assert step > 15, "the kills reached the middle of the work"
            return


def next_command() -> None:
    """What a folder was cleaned of is remembered as long as a process lives."""
    _tidy_once.cache_clear()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_pair(path: Path, text: str) -> Described:
    def write(temporary: Path) -> None:
        if path.suffix == ".mlpackage":
            temporary.mkdir()
            (temporary / f"{text}.bin").write_text(text)
            (temporary / "manifest").write_text(text)
        else:
            temporary.write_text(text)

    return write_with_record(path, write, lambda written: Described(path=path.name, sha256=sha256_of(written)))


def check_pair(folder: Path, name: str = "x[1].tflite") -> None:
    path, seen = folder / name, set()
    old, new = write_pair(path, "old"), write_pair(folder / "elsewhere" / name, "new")
    for was_killed in kills(lambda: write_pair(path, "new"), lambda: write_pair(path, "old")):
        found = load_record_of(Described, path)
        assert found in (old, new)
        assert was_killed or found == new
        seen.add(found.sha256)
        next_command()
        finish(path)
        assert load_record_of(Described, path) == found
        assert names(folder) == ["elsewhere", name, f"{name}.json"], names(folder)
    assert seen == {old.sha256, new.sha256}


def check_folder(folder: Path) -> None:
    check_pair(folder, "x.mlpackage")


def check_has_record(folder: Path) -> None:
    """A committed pair counts as there, even where no part of it is in its place yet."""
    path, missing = folder / "x.tflite", 0

    def remove() -> None:
        for file in folder.iterdir():
            file.unlink()

    for _ in kills(lambda: write_pair(path, "new"), remove):
        missing += not path.exists()
        assert has_record(path) == path.exists()
        missing -= not path.exists()
        next_command()
        tidy(folder)
    assert missing > 0, "one kill came after the commit and before the first move"


def check_first(folder: Path) -> None:
    def remove() -> None:
        for file in folder.iterdir():
            file.unlink()

    for _ in kills(lambda: write_pair(folder / "x.tflite", "new"), remove):
        next_command()
        tidy(folder)
        assert names(folder) in ([], ["x.tflite", "x.tflite.json"]), names(folder)


def check_single(folder: Path) -> None:
    path = folder / "metrics.csv"
    for _ in kills(lambda: write_text(path, "new"), lambda: write_text(path, "old")):
        assert path.read_text() in ("old", "new")
        next_command()
        tidy(folder)
        assert names(folder) == ["metrics.csv"]


def check_temporary(folder: Path) -> None:
    tempfile.tempdir = str(folder)

    def work() -> None:
        with temporary_folder("export") as place:
            for number in range(5):
                (place / f"{number}.npy").write_text("weights")

    for _ in kills(work, lambda: None):
        with temporary_folder("run") as place:
            assert names(folder) == [place.parent.name]
        assert names(folder) == []


def check_together(folder: Path) -> None:
    """Two writers of one pair never mix, and whoever reads meanwhile sees a pair."""
    path = folder / "x.tflite"
    write_pair(path, "third")
    children = [start(lambda text=text: [write_pair(path, text) for _ in range(20)]) for text in ("first", "second")]
    for _ in range(40):
        load_record_of(Described, path)
    assert not any(map(killed, children))
    load_record_of(Described, path)
    assert names(folder) == ["x.tflite", "x.tflite.json"]


if __name__ == "__main__":
    globals()[f"check_{sys.argv[1]}"](Path(sys.argv[2]))
