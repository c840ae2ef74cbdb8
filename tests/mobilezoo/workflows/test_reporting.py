"""`mobilezoo report` finds every kind of record below a folder, and says so where there is none."""

import json
import re
from pathlib import Path

import pytest

from mobilezoo.artifacts import Artifact, InputSpec, Parity, Preprocessing, record_path, save_record
from mobilezoo.errors import MobilezooError
from mobilezoo.files import sha256_of
from mobilezoo.scratch import scratch_folder
from mobilezoo.workflows import report as reporting


def test_an_empty_folder_has_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(MobilezooError, match="nothing to report"):
        reporting.write_report([tmp_path], tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


METRICS = "epoch,val_top1\n1,50.0\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_single_candidates_hidden_folders_and_links_stay_out_of_the_page(tmp_path: Path) -> None:
    root = tmp_path / "trials"  # a folder of this name above the root does not count
    for name in ("train", "search/trials/0003/train", ".cache/run", ".half.tmp"):
        write(root / name / "metrics.csv", METRICS)
    (root / "train" / "again").symlink_to(root)
    assert reporting._Found([root, root / "train"]).named("metrics.csv") == [root / "train" / "metrics.csv"]


def exported(path: Path, text: str = "a file") -> Path:
    """A file with its record, which says that it passed."""
    write(path, text)
    parity = Parity(
        inputs="images", images=8, max_abs=1e-6, relative=1e-6, snr_db=99.0, top1_agreement=1.0, tolerance=1e-4,
        ran_in="a runtime",
    )  # fmt: skip
    record = Artifact(
        path=path.name, target="onnx", precision="fp32", model="net", input=InputSpec(shape=(1, 3, 8, 8)),
        preprocessing=Preprocessing(mean=(0.5,), std=(0.5,)), sha256=sha256_of(path), size_bytes=6, parity=parity,
        tools={},
    )  # fmt: skip
    save_record(path, record)
    return path


def test_missing_changed_and_half_files_are_shown_as_such(tmp_path: Path) -> None:
    exported(tmp_path / "good.onnx")
    exported(tmp_path / "gone.onnx").unlink()
    write(exported(tmp_path / "changed.onnx"), "another file")
    half = record_path(exported(tmp_path / "half.onnx"))
    half.write_text(half.read_text()[:99])
    write(tmp_path / "stray.onnx", "of somebody")
    write(tmp_path / "a.latency.json", '{"samples_ms": [1.0')
    write(tmp_path / "search" / "search.json", "{}")
    write(tmp_path / "run" / "metrics.csv", METRICS)
    page = reporting.write_report([tmp_path], tmp_path / "page.html").read_text()
    body = page[page.index("<body>") : page.index("<noscript>")]
    shown, unread = body.split('id="unread"')
    assert len(re.findall('class="mark passed"', shown)) == 1
    assert "the file is missing" in shown
    assert "changed since its record was written" in shown
    assert len(re.findall('class="mark not-run"', shown)) == 2
    for name in ("half", "stray", "a.latency.json", "search.json", "best.safetensors"):
        assert name.replace(".", ".<wbr>") in unread


def test_where_nothing_can_be_read_the_reason_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a.latency.json", "half of")
    with pytest.raises(MobilezooError, match=r"nothing to report .*a\.latency\.json"):
        reporting.write_report([tmp_path], tmp_path / "page.html")


def test_a_finished_network_is_on_its_searchs_page_with_links(tmp_path: Path) -> None:
    folder = tmp_path / "search" / "finetune" / "0003"
    result = {
        "name": "toy", "engine": "random", "seed": 0, "space_sha256": "", "space_count": None, "trials": [],
        "objective": {"target_ms": 1.0}, "front": [], "best": None,
    }  # fmt: skip
    write(tmp_path / "search" / "search.json", json.dumps(result))
    exported(folder / "toy.fp32.onnx")
    estimate = {"ms": 0.5, "source": "measured"}
    done = {
        "number": 3, "checkpoint": "elsewhere/best.safetensors", "file": "elsewhere/toy.fp32.onnx", "search_top1": 90.0,
        "top1": 95.0, "file_top1": 94.5, "search_latency": estimate, "latency": {"host": estimate},
    }  # fmt: skip
    write(folder / "finetune.json", json.dumps(done))
    page = reporting.write_report([tmp_path / "search"], tmp_path / "page.html").read_text()
    assert "Trial 3, trained in full" in page
    assert "95.00 (file 94.50)" in page
    assert 'href="search/finetune/0003/toy.fp32.onnx"' in page
    assert re.search(r'best\.<wbr>safetensors</code> <span class="mark failed">missing', page)


def test_what_another_command_is_just_writing_stays_out_of_the_page(tmp_path: Path) -> None:
    with scratch_folder(tmp_path, "x.tflite") as folder:
        (folder / "x.tflite").write_text("half")
        (tmp_path / "y.tflite").write_text("whole")
        assert reporting._Found([tmp_path]).exported() == [tmp_path / "y.tflite"]
