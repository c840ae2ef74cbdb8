"""`mobilezoo eval` scores files beside the weights they were made of; the export matrix goes on where it stopped."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mobilezoo.artifacts import Checkpoint, save_record
from mobilezoo.cli.evaluate import print_scores
from mobilezoo.errors import UnknownNameError
from mobilezoo.files import sha256_of
from mobilezoo.models import create_model, load_model_config
from mobilezoo.models.randomize import randomize_norms
from mobilezoo.workflows.evaluate import Loading, evaluate
from mobilezoo.workflows.export import export_network
from mobilezoo.workflows.export_matrix import chosen, read_records, run_matrix
from mobilezoo.workflows.load_model import load_model
from mobilezoo.workflows.matrix_table import write_matrix
from mobilezoo.workflows.model_options import ModelOptions
from mobilezoo_export import ExportConfig, ExportResult

MODEL = "mnasnet_small"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = randomize_norms(create_model(MODEL, num_classes=10))
    path = tmp_path / "run" / "best.safetensors"
    path.parent.mkdir()
    save_file(network.state_dict(), path)
    record = Checkpoint(
        path=path.name,
        sha256=sha256_of(path),
        model=MODEL,
        num_classes=10,
        resolution=32,
        preprocessing=load_model_config(MODEL).preprocessing(),
        data={"source": "digits"},
    )
    save_record(path, record)
    return path


@pytest.mark.slow
def test_a_file_is_scored_beside_the_weights_its_record_names(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = checkpoint.parent / "export"
    (exported,) = export_network(
        load_model(str(checkpoint)),
        ExportConfig(targets=("onnx",), precisions=("fp32",), overwrite=True, parity_images=8),
        out,
        isolate=False,
    )
    assert exported.path is not None, exported.reason
    result = evaluate(exported.path, "digits", ModelOptions(), loading=Loading(64, 0))
    assert result.pytorch is not None
    assert result.images == result.pytorch.images == 360
    assert result.top1_drop == pytest.approx(0, abs=0.3)
    assert result.pytorch.loss == pytest.approx(result.loss, rel=1e-3)
    print_scores(result)
    lines = capsys.readouterr().out.splitlines()
    assert "PyTorch" in lines[0]
    assert "ONNX Runtime" in lines[1]
    assert "drop" in lines[1]
    checkpoint.unlink()
    assert evaluate(exported.path, "digits", ModelOptions(), loading=Loading(64, 0)).pytorch is None


@pytest.mark.slow
def test_the_matrix_keeps_what_is_done_and_tells_what_is_not(tmp_path: Path) -> None:
    first = run_matrix([MODEL], ["onnx"], ["fp32"], tmp_path)
    (record,) = (tmp_path / "records").glob("*/*.json")
    written = record.stat().st_mtime_ns
    both = run_matrix([MODEL], ["onnx"], ["fp32", "nonsense"], tmp_path)
    assert record.stat().st_mtime_ns == written
    assert [r.status for _, r in both] == ["exported", "refused"]
    assert both[0][1] == first[0][1]
    assert not (tmp_path / "files").exists()
    table = write_matrix(read_records(tmp_path), tmp_path / "table.md").read_text()
    assert f"| {MODEL} | onnx |" in table
    assert "cas_vit_m," in table.partition("Not run yet: ")[2]


def test_a_matrix_table_keeps_the_cells_that_nothing_replaces(tmp_path: Path) -> None:
    def failed(target: str, precision: str, reason: str) -> ExportResult:
        return ExportResult(target=target, precision=precision, status="failed", reason=reason)

    table = tmp_path / "table.md"
    write_matrix([(MODEL, failed("onnx", p, f"first {p}")) for p in ("fp32", "int8")], table)
    again = [(MODEL, failed("onnx", "int8", "second\nline")), (MODEL, failed("litert", "fp16", "a | b"))]
    rows = [line for line in write_matrix(again, table).read_text().splitlines() if line.startswith(f"| {MODEL}")]
    assert rows == [
        f"| {MODEL} | onnx | **failed**: first fp32 | not run | **failed**: second line |  |  |  |  |",
        f"| {MODEL} | litert | not run | **failed**: a / b | not run |  |  |  |  |",
    ]


def test_further_precisions_stand_below_and_are_kept_too(tmp_path: Path) -> None:
    def failed(target: str, precision: str, reason: str) -> tuple[str, ExportResult]:
        return MODEL, ExportResult(target=target, precision=precision, status="failed", reason=reason)

    table = tmp_path / "table.md"
    write_matrix([failed("onnx", "fp32", "a"), failed("onnx", "w8a16", "b"), failed("coreai", "fp32", "c")], table)
    text = write_matrix([failed("qnn", "w8a16", "d")], table).read_text()
    above, below = text.split("## Further precisions")
    assert f"| {MODEL} | onnx | **failed**: a |" in above
    assert f"| {MODEL} | qnn | – |" in above
    rows = [line for line in below.splitlines() if line.startswith("| ")]
    assert rows == [
        "| model | target | w8a16 |", f"| {MODEL} | onnx | **failed**: b |", f"| {MODEL} | qnn | **failed**: d |"
    ]  # fmt: skip


def test_matrix_models_are_names_patterns_and_timm_models() -> None:
    assert chosen(["shvit_s?", "timm:resnet18", "shvit_s1"]) == [
        "shvit_s1",
        "shvit_s2",
        "shvit_s3",
        "shvit_s4",
        "timm:resnet18",
    ]
    assert len(chosen([])) > 50
    with pytest.raises(UnknownNameError, match="did you mean shvit_s"):
        chosen(["shvit_s9"])
