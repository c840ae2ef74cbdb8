"""Targets are listed without importing anything heavy."""

import subprocess
import sys
from pathlib import Path

import pytest

from mobilezoo.cli.main import main
from mobilezoo.errors import ExportError, MobilezooError, UnknownNameError
from mobilezoo_export import list_targets, load_exporter, load_runner

HEAVY = (
    "torch",
    "onnx",
    "onnxruntime",
    "litert_torch",
    "ai_edge_litert",
    "coremltools",
    "executorch",
    "coreai",
    "coreai_torch",
)


def test_listing_targets_imports_neither_torch_nor_a_toolchain() -> None:
    code = f"import sys, mobilezoo_export as e; e.list_targets(); print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_target_has_an_exporter_of_its_name() -> None:
    for target in list_targets():
        exporter = load_exporter(target)
        assert exporter.target == target
        assert exporter.modules
        assert exporter.precisions


def test_a_misspelt_target_offers_near_names() -> None:
    with pytest.raises(UnknownNameError, match="litert"):
        load_exporter("litret")


def test_a_missing_artifact_and_a_foreign_suffix_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(MobilezooError, match="artifact not found"):
        load_runner(tmp_path / "none.onnx")
    (tmp_path / "model.txt").write_text("x")
    with pytest.raises(ExportError, match="suffix must be one of"):
        load_runner(tmp_path / "model.txt")


@pytest.mark.parametrize("suffix", [".onnx", ".tflite", ".pte", ".ncnn"])
def test_a_damaged_artifact_is_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"not a model at all" * 10)
    with pytest.raises(ExportError, match="cannot be read as"):
        load_runner(path)


@pytest.mark.parametrize("target", ["nope", "litret", "no_such_package.module:Thing", "json:dumps", "json:dump_all"])
def test_an_unknown_target_is_the_same_line_in_python_and_on_the_command_line(
    target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MobilezooError) as caught:
        load_exporter(target)
    with pytest.raises(SystemExit) as done:
        main(["export", "shvit_s1", "--to", target])
    assert done.value.code == 2
    line = capsys.readouterr().err
    assert len(line.splitlines()) == 1
    assert str(caught.value) in line
