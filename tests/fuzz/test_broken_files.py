"""Files that broke something once, each through the command that opens it: one line, exit code 2, nothing run."""

from pathlib import Path

import pytest

from mobilezoo.cli.main import main

COMMANDS = {
    "c02_intkey.pth": "convert FILE --model mnasnet_small",
    "c04_stack.pth": "convert FILE --model mnasnet_small",
    "l01_nan.jsonl": "latency import FILE",
    "l02_negative.jsonl": "latency import FILE",
    "r01_wds_pipe.yaml": "train FILE",
    "y01_date.yaml": "show FILE",
    "y02_selfref.yaml": "show FILE",
    "y06_set.yaml": "show FILE",
    "y09_devtype.yaml": "device check FILE",
    "y10_expansion_inf.yaml": "show FILE",
}


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOBILEZOO_LATENCY_DB", str(tmp_path / "latency.db"))


@pytest.mark.usefixtures("_elsewhere")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_that_broke_something_ends_in_one_line(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = shared / "cases" / "broken-files" / name
    with pytest.raises(SystemExit) as ended:
        main([str(file) if word == "FILE" else word for word in COMMANDS[name].split()])
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert len(said.splitlines()) == 1, said
    assert said.startswith("error: ")
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.usefixtures("_elsewhere")
def test_a_line_separator_inside_a_name_is_no_end_of_line(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["latency", "import", str(shared / "cases" / "broken-files" / "l04_u2028.jsonl")])
    assert ended.value.code == 0, capsys.readouterr().err
