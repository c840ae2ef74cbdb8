"""Atomic writes and records beside files."""

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mobilezoo.artifacts import (
    Checkpoint,
    Preprocessing,
    atomic_write,
    load_record_of,
    save_record,
    sha256_of,
    write_text,
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


def checkpoint(path: str) -> Checkpoint:
    prep = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    return Checkpoint(path=path, sha256="0" * 64, model="m", num_classes=10, resolution=48, preprocessing=prep)


def test_a_record_survives_the_round_trip(tmp_path: Path) -> None:
    file = write_text(tmp_path / "best.safetensors", "x")
    save_record(file, checkpoint(file.name))
    assert load_record_of(Checkpoint, file) == checkpoint(file.name)


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
