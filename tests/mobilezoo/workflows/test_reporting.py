"""`mobilezoo report` finds every kind of record below a folder, and says so where there is none."""

from pathlib import Path

import pytest

from mobilezoo.errors import MobilezooError
from mobilezoo.scratch import scratch_folder
from mobilezoo.workflows import report as reporting


def test_an_empty_folder_has_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(MobilezooError, match="nothing to report"):
        reporting.write_report([tmp_path], tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_a_searchs_single_candidates_stay_out_of_the_page(tmp_path: Path) -> None:
    for name in ("train", "search/trials/0003/train"):
        folder = tmp_path / "trials" / name  # a folder named `trials` above the root does not count
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text("epoch\n1\n")
    root = tmp_path / "trials"
    assert reporting._found([root], "metrics.csv") == [root / "train" / "metrics.csv"]


def test_what_another_command_is_just_writing_stays_out_of_the_page(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, "x.tflite") as folder:
        (folder / "x.tflite").write_text("half")
        (tmp_path / "y.tflite").write_text("whole")
        assert reporting._found([tmp_path], "*.tflite") == [tmp_path / "y.tflite"]
