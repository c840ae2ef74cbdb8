"""The last lines of a test run say what was skipped and how to run it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPING = """
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_a_device(n):
    pytest.skip("no emulator: run `mobilezoo device setup emulator`")

def test_an_extra():
    pytest.importorskip("no_such_module_at_all")

def test_something():
    pass
"""


@pytest.mark.slow
def test_skipped_tests_are_counted_by_reason_below_which_only_the_closing_line_stands(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    *_, title, first, second, closing = done.stdout.strip().splitlines()
    assert "skipped, and how to run them" in title
    assert first == "    2  no emulator: run `mobilezoo device setup emulator`"
    assert second.startswith("    1  could not import 'no_such_module_at_all'")
    assert second.endswith("run `make setup`")
    assert "1 passed, 3 skipped" in closing
