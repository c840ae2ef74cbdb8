"""The verbs joined: train → export → profile → search → report, as `mobilezoo demo` does, on a network for tests."""

from pathlib import Path

import pytest

from mobilezoo.artifacts import Checkpoint, load_record_of
from mobilezoo.cli import demo
from mobilezoo.search.records import RESULT_NAME
from mobilezoo.workflows import train as training


@pytest.mark.nightly  # CI runs the demo itself
def test_the_demo_leaves_weights_files_latencies_a_search_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shorter than a user's demo in training only; every other step is the real one."""
    real = training.train

    def shorter(config: str, overrides: tuple[str, ...] = (), *rest: object, **more: object) -> Checkpoint:
        return real(config, (*overrides, "train.epochs=2"), *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "train", shorter)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    out = tmp_path / "demo"
    demo.run_demo(out, show_progress=False)
    assert load_record_of(Checkpoint, out / "train" / "best.safetensors").num_classes == 10
    names = {p.name for p in out.rglob("*")}
    stem = "mobilenetv2_ca_100.fp32"
    assert {f"{stem}.onnx", f"{stem}.tflite", f"{stem}.mlpackage", RESULT_NAME, "report.html"} <= names
    assert {f"{stem}.onnx.latency.json", f"{stem}.tflite.latency.json"} <= names
    assert "max difference from PyTorch" in capsys.readouterr().out
