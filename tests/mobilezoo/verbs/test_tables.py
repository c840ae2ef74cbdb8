"""Tables show what they are given."""

import pytest

from mobilezoo.verbs.tables import print_table


def test_brackets_are_text_and_numbers_stand_on_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("files", ("name", "MACs M"), [("pip install 'mobilezoo[onnx]'", 7), ("b", 1234)])
    lines = capsys.readouterr().out.splitlines()
    assert "mobilezoo[onnx]" in lines[2]
    assert lines[2].rstrip().endswith("    7")
    assert lines[3].rstrip().endswith("1234")
