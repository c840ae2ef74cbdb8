"""The check of a folder finds what was put into it, and reads nothing twice."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from mobilezoo.cli.main import main
from mobilezoo.data.check import INDEX_NAME, check_data
from mobilezoo.errors import DataError


def picture(path: Path, shade: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 9), (shade, 255 - shade, 7 * shade % 256)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(12):
        picture(tmp_path / "train" / "cat" / f"{i}.png", i)
    picture(tmp_path / "train" / "dog" / "0.jpg", 100)
    picture(tmp_path / "validation" / "cat" / "0.png", 200)
    picture(tmp_path / "validation" / "dog" / "0.png", 201)
    return tmp_path


def test_a_good_folder_is_clean_and_the_index_saves_the_second_reading(photos: Path) -> None:
    report = check_data(str(photos))
    assert report.clean
    assert (report.read, report.splits["train"].images, report.splits["train"].imbalance) == (15, 13, 12)
    assert report.uneven == ("train",)
    assert check_data(str(photos)).read == 0
    picture(photos / "train" / "cat" / "3.png", 77)
    assert check_data(str(photos)).read == 1
    (photos / INDEX_NAME).write_text("{torn")
    assert check_data(str(photos)).read == 15


def test_broken_files_leaks_repeats_and_missing_classes_are_found(photos: Path) -> None:
    torn = photos / "train" / "cat" / "5.png"
    torn.write_bytes(torn.read_bytes()[:40])
    shutil.copy(photos / "train" / "cat" / "1.png", photos / "validation" / "cat" / "copy.png")
    shutil.copy(photos / "train" / "cat" / "2.png", photos / "train" / "dog" / "copy.png")
    (photos / "train" / "dog" / "notes.txt").write_text("no image")
    shutil.rmtree(photos / "validation" / "dog")
    report = check_data(str(photos))
    assert not report.clean
    assert list(report.broken) == ["train/cat/5.png"]
    assert report.leaks == (("train/cat/1.png", "validation/cat/copy.png"),)
    assert report.repeats == (("train/cat/2.png", "train/dog/copy.png"),)
    assert report.splits["train"].left_out == {".txt": 1}
    assert report.missing_classes == {"validation": ("dog",)}


def test_the_verb_prints_findings_and_ends_with_one(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", str(photos), "-q"])
    assert ended.value.code == 0
    (photos / "train" / "dog" / "0.jpg").write_text("no jpeg")
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", str(photos), "-q", "--json"])
    assert ended.value.code == 1
    out = capsys.readouterr().out
    assert "train/dog/0.jpg" in json.loads(out[out.index("{") :])["broken"]


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_that_is_none_is_one_line(tmp_path: Path, make: bool) -> None:
    if make:
        (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="no files as SPLIT/CLASS" if make else "not found"):
        check_data(str(tmp_path / "data"))
