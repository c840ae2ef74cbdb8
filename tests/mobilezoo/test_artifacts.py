"""Atomic writes and records beside files."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mobilezoo.artifacts import (
    Checkpoint,
    Preprocessing,
    atomic_write,
    load_record_of,
    read_record_of,
    save_record,
    sha256_of,
    write_text,
    write_with_record,
)
from mobilezoo.errors import MobilezooError


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


def test_what_a_killed_writer_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    target = tmp_path / "x[1].txt"
    program = (
        "import os, signal, sys, pathlib; from mobilezoo.artifacts import atomic_write\n"
        "atomic_write(pathlib.Path(sys.argv[1]), lambda place: os.kill(os.getpid(), signal.SIGKILL))"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    other = tmp_path / ".x[1].txt.another-host-1.abc"
    other.mkdir()
    write_text(target, "new")
    assert not left.exists()
    assert sorted(tmp_path.iterdir()) == sorted([other, target]), "another machine may still be writing"


def checkpoint(file: Path) -> Checkpoint:
    prep = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    sha = sha256_of(file)
    return Checkpoint(path=file.name, sha256=sha, model="m", num_classes=10, resolution=48, preprocessing=prep)


def test_a_record_survives_the_round_trip(tmp_path: Path) -> None:
    file = write_text(tmp_path / "best.safetensors", "x")
    save_record(file, checkpoint(file))
    assert load_record_of(Checkpoint, file) == checkpoint(file)


def test_a_file_that_changed_since_its_record_is_refused_by_every_reader(tmp_path: Path) -> None:
    file = write_text(tmp_path / "best.safetensors", "x" * 100)
    save_record(file, checkpoint(file))
    file.write_text("x" * 50 + "\x00" * 50)
    with pytest.raises(MobilezooError, match=r"best\.safetensors' changed since its record was written .* restore it"):
        load_record_of(Checkpoint, file)
    assert read_record_of(Checkpoint, file).model == "m", "a report may still say what it was"


def test_a_file_and_its_record_are_whole_when_they_appear(tmp_path: Path) -> None:
    file = tmp_path / "best.safetensors"
    record = write_with_record(file, lambda temporary: temporary.write_text("first"), checkpoint)
    assert load_record_of(Checkpoint, file) == record

    def fails(written: Path) -> Checkpoint:
        raise MobilezooError("not like PyTorch")

    with pytest.raises(MobilezooError, match="not like PyTorch"):
        write_with_record(file, lambda temporary: temporary.write_text("second"), fails)
    assert load_record_of(Checkpoint, file) == record
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.safetensors", "best.safetensors.json"]


def test_a_crash_between_record_and_file_is_told_by_the_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "best.safetensors"
    write_with_record(file, lambda temporary: temporary.write_text("first"), checkpoint)
    renamed = Path.replace

    def crash_on_the_second(source: Path, target: Path) -> Path:
        if Path(target).suffix == ".safetensors":
            raise KeyboardInterrupt
        return renamed(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash_on_the_second)
        with pytest.raises(KeyboardInterrupt):
            write_with_record(file, lambda temporary: temporary.write_text("second"), checkpoint)
    assert file.read_text() == "first"
    with pytest.raises(MobilezooError, match="changed since its record"):
        load_record_of(Checkpoint, file)


@pytest.mark.parametrize("text", ["{", "\x00", "[1]", '{"path": 3}'])
def test_a_damaged_record_is_one_line(tmp_path: Path, text: str) -> None:
    file = write_text(tmp_path / "best.safetensors", "x")
    (tmp_path / "best.safetensors.json").write_text(text)
    with pytest.raises(MobilezooError, match=r"best\.safetensors\.json"):
        load_record_of(Checkpoint, file)


def test_a_file_without_a_record_says_so(tmp_path: Path) -> None:
    file = write_text(tmp_path / "best.safetensors", "x")
    with pytest.raises(MobilezooError, match="no record"):
        load_record_of(Checkpoint, file)
