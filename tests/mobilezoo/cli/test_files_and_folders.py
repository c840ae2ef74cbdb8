"""A file where a folder belongs, and the reverse: one line, exit code 2, nothing written, whatever the command."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mobilezoo.cli.main import main

FILE_FOR_FOLDER = [
    "report a.tflite",
    "report folder a.tflite",
    "report folder --out a.tflite/page.html",
    "data check a.tflite",
    "data check folder:a.tflite",
    "data check tar:a.tflite",
    "eval mnasnet_a1_035 --data folder:a.tflite",
    "pull a.tflite",
    "train a.tflite --resume",
    "train digits --out a.tflite",
    "train digits --out a.tflite/run",
    "search status a.tflite",
    "search front a.tflite",
    "search report a.tflite",
    "search finetune a.tflite 0",
    "search run digits --out a.tflite",
    "search run digits --out a.tflite/run",
    "export mnasnet_a1_035 --to onnx --out a.tflite",
    "export mnasnet_a1_035 --to onnx --out a.tflite/files",
    "export mnasnet_a1_035 --to onnx --matrix --out a.tflite",
]
FOLDER_FOR_FILE = [
    "report folder --out folder",
    "eval folder",
    "eval folder.safetensors --data digits",
    "eval mnasnet_a1_035 --checkpoint folder --data digits",
    "predict mnasnet_a1_035 folder.png",
    "profile folder",
    "profile folder.yaml",
    "export folder.safetensors",
    "export mnasnet_a1_035 --matrix --table folder",
    "convert folder.pth --model mnasnet_a1_035",
    "push folder.safetensors --local shared",
    "latency import folder.jsonl",
    "latency export folder.jsonl",
    "latency import-table folder.csv --on phone --out new.json",
    "latency table digits --out folder",
    "latency fit digits --out folder",
    "train folder.yaml",
    "train digits model=folder.yaml",
    "train digits checkpoint=folder.pth",
    "search run folder.yaml",
]
ENDINGS = ("", ".safetensors", ".png", ".yaml", ".pth", ".jsonl", ".csv")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """A working folder of one file and of empty folders, as it was after the command too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOBILEZOO_CACHE", str(tmp_path.parent / "cache"))
    (tmp_path / "a.tflite").write_bytes(b"no folder")
    for ending in ENDINGS:
        (tmp_path / f"folder{ending}").mkdir()
    before = sorted(tmp_path.rglob("*"))
    yield before
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("line", FILE_FOR_FOLDER + FOLDER_FOR_FILE)
def test_the_other_kind_is_one_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(line.split())
    err = capsys.readouterr().err
    assert done.value.code == 2
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert "folder" in err or "a.tflite" in err


@pytest.mark.parametrize("line", ["pull a.tflite", "report a.tflite", "data check a.tflite", "search status a.tflite"])
def test_a_file_is_called_one(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(line.split())
    assert "'a.tflite' is a file: name a folder" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["convert folder.pth --model mnasnet_a1_035", "push folder.safetensors --local new"])
def test_a_folder_is_called_one(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(line.split())
    assert f"{line.split()[1]!r} is a folder: name a file" in capsys.readouterr().err
