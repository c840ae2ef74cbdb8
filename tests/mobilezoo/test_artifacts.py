"""Records beside files."""

from pathlib import Path

import pytest

from mobilezoo.artifacts import (
    Checkpoint,
    Preprocessing,
    load_record_of,
    read_record_of,
    save_record,
    write_with_record,
)
from mobilezoo.errors import MobilezooError
from mobilezoo.files import sha256_of, write_text


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
