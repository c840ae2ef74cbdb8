"""Tables show what they are given."""

from functools import partial

import pytest
from rich.console import Console

from mobilezoo.cli import tables
from mobilezoo.cli.tables import print_pairs, print_table


def test_brackets_are_text_and_numbers_stand_on_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("files", ("name", "MACs M"), [("pip install 'mobilezoo[onnx]'", 7), ("b", 1234)])
    lines = capsys.readouterr().out.splitlines()
    assert "mobilezoo[onnx]" in lines[2]
    assert lines[2].rstrip().endswith("    7")
    assert lines[3].rstrip().endswith("1234")


@pytest.fixture
def narrow(monkeypatch):
    """A terminal of 80 columns."""
    terminal = partial(Console, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(tables, "Console", terminal)


PATH = "runs/" + "a-long-name/" * 9 + "net.int8.tflite"
WORDS = "other processes used 72% of all cores"


def test_paths_are_whole_on_a_narrow_terminal_each_on_a_line_of_its_own(narrow, capsys):
    print_table("t", ("kind", "why", "file"), [("host", WORDS * 3, PATH), ("host", "", "b.tflite")], paths_last=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [f"1  {PATH}", "2  b.tflite"]
    assert all(len(line) <= 80 for line in lines[:-2])
    print_table("t", ("kind", "file"), [("host", PATH)], paths_last=True)
    assert capsys.readouterr().out.splitlines()[-1] == f"file  {PATH}"


def test_a_short_path_stands_in_the_row(narrow, capsys):
    print_table("t", ("kind", "file"), [("host", "a.tflite")], paths_last=True)
    assert capsys.readouterr().out.splitlines()[-1].split() == ["host", "a.tflite"]


def test_paths_are_whole_where_the_output_is_piped(capsys):
    print_table("t", ("kind", "file"), [("host", 3 * PATH)], paths_last=True)
    assert 3 * PATH in capsys.readouterr().out


def test_nothing_in_a_cell_steers_the_terminal(capsys):
    hostile = "\x1b[2Jname\nnext\r\x07\u202e"
    print_table(f"t{hostile}[red]", ("file", "why"), [(hostile, WORDS), ("[red]a", "")])
    print_pairs("t", [(hostile, hostile)])
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert out.count(r"\x1b[2Jname\nnext\r\x07\u202e") == 4
    assert "[red]a" in out


def test_exports_and_latencies_show_whole_paths_at_80_columns(narrow, capsys, monkeypatch):
    from mobilezoo.cli.export import print_exports
    from mobilezoo.cli.profile import print_reports
    from mobilezoo.latency_report import DeviceInfo, LatencyReport, Protocol
    from mobilezoo_export import ExportResult

    print_exports([ExportResult(target="litert", precision="int8", status="kept", path=PATH, reason=WORDS)])
    assert f"file  {PATH}" in capsys.readouterr().out.splitlines()
    report = LatencyReport(
        artifact_sha256="a" * 64,
        artifact=PATH,
        target="litert",
        precision="int8",
        model="net",
        device=DeviceInfo(name="host", kind="host", runtime="LiteRT 2.3.0 (XNNPACK)"),
        protocol=Protocol(),
        samples_ms=(1.0, 2.0),
        load_ms=3.0,
        first_run_ms=3.0,
        sentinel_before_ms=1.0,
        sentinel_after_ms=1.0,
        noisy=(WORDS,),
        measured_at="2024-01-01T00:00:00+00:00",
    )
    print_reports([report])
    assert f"file  {PATH}" in capsys.readouterr().out.splitlines()
