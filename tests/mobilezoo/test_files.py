"""Files and folders are whole or absent, whatever ends their writer, and nothing else is left."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mobilezoo.artifacts import Described, write_with_record
from mobilezoo.errors import MobilezooError
from mobilezoo.files import _tidy_once, atomic_write, sha256_of, tidy, write_text, write_together
from mobilezoo.scratch import SUFFIX, scratch_folder

TIDY = "import sys, pathlib; from mobilezoo.files import tidy; tidy(pathlib.Path(sys.argv[1]))"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = write_text(tmp_path / "x.txt", "old")

    def full_disk(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(MobilezooError, match=r"x\.txt.*No space left on device"):
        atomic_write(target, full_disk)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    def write(text: str) -> None:
        def fill(temporary: Path) -> None:
            temporary.mkdir()
            (temporary / text).write_text(text)

        atomic_write(tmp_path / "folder", fill)

    write("first")
    before = sha256_of(tmp_path / "folder")
    write("second")
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["second"]
    assert sha256_of(tmp_path / "folder") != before


@pytest.mark.parametrize(("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)])
def test_what_was_made_in_temporary_places_gets_ordinary_modes(
    tmp_path: Path, mask: int, file: int, folder: int
) -> None:
    def fill(temporary: Path) -> None:
        temporary.mkdir(mode=0o700)
        for name, mode in (("data", 0o600), ("program", 0o700)):
            (temporary / name).write_text("x")
            (temporary / name).chmod(mode)

    before = os.umask(mask)
    try:
        made = atomic_write(tmp_path / "package", fill)
        weights = atomic_write(tmp_path / "w.safetensors", lambda place: save_file({"a": torch.zeros(1)}, place))
    finally:
        os.umask(before)
    found = [made, made / "data", made / "program", weights]
    assert [path.stat().st_mode & 0o777 for path in found] == [folder, file, folder, file]


def next_command() -> None:
    """What a folder was cleaned of is remembered as long as a process lives."""
    _tidy_once.cache_clear()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_pair(path: Path, text: str) -> Described:
    def write(temporary: Path) -> None:
        if path.suffix == ".mlpackage":
            temporary.mkdir()
        (temporary / "manifest" if path.suffix == ".mlpackage" else temporary).write_text(text)

    return write_with_record(path, write, lambda written: Described(path=path.name, sha256=sha256_of(written)))


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "check",
    [
        "pair",
        "has_record",
        pytest.param("single", marks=SLOW),
        pytest.param("temporary", marks=SLOW),
        pytest.param("together", marks=SLOW),
        pytest.param("folder", marks=SLOW),
        pytest.param("first", marks=SLOW),
    ],
)
def test_whole_and_alone_wherever_the_writer_is_killed(tmp_path: Path, check: str) -> None:
    script = Path(__file__).with_name("killed_writers.py")
    done = subprocess.run([sys.executable, script, check, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_work_of_a_living_writer_is_not_touched(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, "x") as folder:
        (folder / "half").write_text("half")
        tidy(tmp_path)
        assert (folder / "half").exists()
        subprocess.run([sys.executable, "-c", TIDY, tmp_path], check=True)
        assert (folder / "half").exists(), "another process sees that it is held"
    assert names(tmp_path) == []


def test_scratch_of_another_machine_stays_for_a_day(tmp_path: Path) -> None:
    other = tmp_path / f".x.another-host.abcdefgh{SUFFIX}"
    (other / "content").mkdir(parents=True)
    tidy(tmp_path)
    assert other.exists(), "its lock may not be seen here"
    for path in (other / "content", other):
        os.utime(path, (0, 0))
    next_command()
    tidy(tmp_path)
    assert not other.exists()


def test_parts_that_belong_together_appear_together(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        for name in ("w.safetensors", "w.yaml"):
            (folder / name).write_text(name)
            assert names(tmp_path) == [folder.parent.parent.name]

    write_together(tmp_path / "w.safetensors", fill)
    assert names(tmp_path) == ["w.safetensors", "w.yaml"]


def test_a_folder_is_not_replaced_by_a_file_nor_a_file_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.tflite").mkdir()
    (tmp_path / "x.tflite" / "mine").write_text("mine")
    with pytest.raises(MobilezooError, match=r"x\.tflite': a folder of that name is there: move it away"):
        write_pair(tmp_path / "x.tflite", "new")
    write_text(tmp_path / "x.mlpackage", "mine")
    with pytest.raises(MobilezooError, match=r"x\.mlpackage': a file of that name"):
        write_pair(tmp_path / "x.mlpackage", "new")
    assert names(tmp_path) == ["x.mlpackage", "x.tflite"]


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No file can be made there any more."""
    made = os.mkdir

    def mkdir(path: str, *args: object, **more: object) -> None:
        if str(tmp_path) in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        made(path, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "mkdir", mkdir)
    return tmp_path


def test_a_full_disk_is_one_line_with_its_remedy(full_disk: Path) -> None:
    expected = (
        r"cannot write '.*x\.txt': No space left on device: free some space and run the same command again; nothing"
    )
    with pytest.raises(MobilezooError, match=expected):
        write_text(full_disk / "x.txt", "new")
    assert names(full_disk) == []


def test_a_library_that_has_its_own_error_for_a_full_disk_is_understood(tmp_path: Path) -> None:
    class SafetensorError(Exception):
        pass

    def write(_: Path) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(MobilezooError, match="No space left on device: free some space"):
        atomic_write(tmp_path / "x.safetensors", write)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_copied_for_want_of_room_is_one_line(tmp_path: Path) -> None:
    def copy(temporary: Path) -> None:
        raise shutil.Error([("a", "b", f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}: 'a' -> 'b'")])

    with pytest.raises(MobilezooError, match=r"x\.mlpackage': No space left on device: free some space") as raised:
        atomic_write(tmp_path / "x.mlpackage", copy)
    assert len(str(raised.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
