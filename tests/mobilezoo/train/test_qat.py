"""Fake quantisation trains the network itself and ends in int8 files; exports during training land in the metrics."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mobilezoo.artifacts import Artifact, load_record_of
from mobilezoo.cli.main import main
from mobilezoo.config import load_record
from mobilezoo.data import DataConfig
from mobilezoo.errors import ConfigError
from mobilezoo.train import progress, trainer
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.export_hooks import ExportHooks
from mobilezoo.workflows.evaluate import evaluate_file
from mobilezoo.workflows.train import export_hooks_for

MODEL = """family: mbconv
resolution: 32
stem: 16
head: 64
stages:
  - {block: ir, depth: 1, kernel: 3, stride: 2, expansion: 4, width: 24}
"""


def recipe_file(folder: Path) -> Path:
    (folder / "tiny.yaml").write_text(MODEL)
    path = folder / "recipe.yaml"
    path.write_text(
        f"model: {folder / 'tiny.yaml'}\n"
        "data: {source: digits, batch_size: 64, workers: 0, augment: {hflip: 0.0, scale: [0.7, 1.0]}}\n"
        "train: {epochs: 4, device: cpu, resolution: 24, optimizer: {lr: 5e-3}, schedule: {warmup_epochs: 0}}\n"
    )
    return path


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as done:
        main(list(arguments))
    assert not done.value.code


@pytest.mark.slow
def test_both_int8_files_are_written_and_agree_with_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("executorch", reason="needs the extra 'executorch'")
    recipe = str(recipe_file(tmp_path))
    run("train", recipe, "train.epochs=2", "-q", "--out", str(tmp_path / "float"))
    weights = tmp_path / "float" / "best.safetensors"
    run(
        "train",
        recipe,
        f"checkpoint={weights}",
        "train.qat=true",
        "train.epochs=1",
        "-q",
        "--out",
        str(tmp_path / "qat"),
    )
    failures = [line for line in capsys.readouterr().err.splitlines() if "int8 file for" in line]
    assert not failures
    for suffix in (".pte", ".onnx"):
        parity = load_record_of(Artifact, tmp_path / "qat" / "export" / f"tiny.int8-qat{suffix}").parity
        assert parity is not None
        assert parity.snr_db > 15  # 24 to 27 dB over two seeds of longer training


@pytest.mark.nightly
def test_int8_files_after_qat_are_as_good_as_after_training_and_a_stopped_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("executorch", reason="needs the extra 'executorch'")
    recipe, data = str(recipe_file(tmp_path)), DataConfig(source="digits")
    run("train", recipe, "train.epochs=10", "-q", "--out", str(tmp_path / "float"))
    weights = tmp_path / "float" / "best.safetensors"
    run("export", str(weights), "--to", "executorch", "--precision", "int8")
    after = evaluate_file(tmp_path / "float" / "export" / "tiny.int8.pte", data).top1
    qat = [f"checkpoint={weights}", "train.qat=true", "train.epochs=2", "train.optimizer.lr=3e-4"]
    run("train", recipe, *qat, "-q", "--out", str(tmp_path / "qat"))
    assert "int8 file for" not in (errors := capsys.readouterr().err), errors
    for suffix in (".pte", ".onnx"):
        file = tmp_path / "qat" / "export" / f"tiny.int8-qat{suffix}"
        record = load_record_of(Artifact, file)
        assert record.precision == "int8"
        assert record.parity is not None
        assert record.parity.top1_agreement > 0.9
        trained = evaluate_file(file, data).top1
        print(f"{suffix}: int8 after training {after:.2f}%, quantisation-aware {trained:.2f}%")
        assert trained >= after - 2.5  # nine of 360 images: ranges are the same, the weights went on learning
    float_size = (tmp_path / "float" / "best.safetensors").stat().st_size
    assert (tmp_path / "qat" / "export" / "tiny.int8-qat.onnx").stat().st_size < 3 * float_size

    config = load_record(TrainConfig, Path(recipe), qat)
    real, done = trainer.train_step, []

    def stop(*args: Any) -> float:
        done.append(1)
        if len(done) == 30:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(trainer, "train_step", stop)
    export_hooks = ExportHooks(fake_quantized=export_hooks_for(config).fake_quantized)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(config, tmp_path / "broken", show_progress=False, export_hooks=export_hooks)
    monkeypatch.setattr(trainer, "train_step", real)
    trainer.train(config, tmp_path / "broken", resume=True, show_progress=False, export_hooks=export_hooks)
    curves = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("qat", "broken")]
    for key in ("train_loss", "val_loss", "val_top1"):
        assert [row[key] for row in curves[0]] == [row[key] for row in curves[1]]


def test_what_fake_quantization_cannot_train_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("executorch", reason="needs the extra 'executorch'")
    path = recipe_file(tmp_path)
    with pytest.raises(ConfigError, match="qat without ema, amp"):
        load_record(TrainConfig, path, ["train.qat=true", "train.ema={}", "train.amp=bf16"])
    config = load_record(TrainConfig, path, ["train.qat=true"])
    with pytest.raises(ConfigError, match="start with `mobilezoo train`"):
        trainer.assemble(config)
    from mobilezoo.models import create_model
    from mobilezoo_export.quantize.qat import FakeQuantized

    network = create_model("shvit_s1", num_classes=10)
    with pytest.raises(ConfigError, match="which is 0: start from trained weights"):
        FakeQuantized(network, torch.zeros(2, 3, 64, 64))


@pytest.mark.nightly
@pytest.mark.parametrize("shown", [True, False])
def test_a_failing_export_is_said_and_training_goes_on(
    shown: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_WARNED", set())
    config = load_record(TrainConfig, recipe_file(tmp_path), ["train.export_every=2"])
    seen: list[Path] = []

    def export(weights: Path) -> tuple[dict[str, float], list[str], list[str]]:
        seen.append(weights)
        if len(seen) == 1:
            raise RuntimeError("converter crashed\nat great length")
        return {"export_litert_fp32_top1": 42.0}, ["tiny.fp32.tflite: top-1 42.00%"], ["no int8 file"]

    trainer.train(config, tmp_path / "run", show_progress=shown, export_hooks=ExportHooks(export=export))
    assert [weights.parent.name for weights in seen] == ["epoch-0002", "epoch-0004"]
    said = capsys.readouterr().err
    assert "export after epoch 2 failed: converter crashed\n" in said
    assert "no int8 file\n" in said
    assert ("tiny.fp32.tflite: top-1 42.00%" in said) is shown
    with (tmp_path / "run" / "metrics.csv").open() as handle:
        assert [row["export_litert_fp32_top1"] for row in csv.DictReader(handle)] == ["", "", "", "42.0"]


@pytest.mark.nightly
def test_exports_during_training_are_scored_as_eval_scores_them(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")
    wanted = ["train.epochs=2", "train.export_every=2", "train.export_to=[onnx]", "train.export_precision=[fp32, int8]"]
    run("train", str(recipe_file(tmp_path)), *wanted, "-q", "--out", str(tmp_path / "run"))
    rows = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "export_onnx_fp32_top1" not in rows[0]
    assert rows[1]["export_onnx_fp32_top1"] == pytest.approx(rows[1]["val_top1"], abs=0.3)
    assert rows[1]["export_onnx_int8_top1"] > rows[1]["val_top1"] - 5
    file = tmp_path / "run" / "export" / "epoch-0002" / "tiny.int8.onnx"
    assert evaluate_file(file, DataConfig(source="digits")).top1 == rows[1]["export_onnx_int8_top1"]
