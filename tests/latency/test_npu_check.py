"""The emulated Hexagon NPU: what it computes, what it refuses, and every way it is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest

from mobilezoo.errors import ConfigError, DeviceError
from mobilezoo.installed import STAMP
from mobilezoo.latency_report import Protocol
from mobilezoo.workflows.check_units import check_file
from mobilezoo_export.htp import layout
from mobilezoo_latency.contract import ArtifactFile, Device, load_artifact
from mobilezoo_latency.npu import setup
from mobilezoo_latency.npu.probe import SHAPE, record_of, write_probe
from mobilezoo_latency.registry import load_device

IMAGES = np.random.default_rng(1).standard_normal((2, *SHAPE[1:]), dtype=np.float32)


def npu(*changes: str) -> Device:
    device = load_device("npu_check", changes)
    try:
        device.check()
    except DeviceError as error:
        pytest.skip(str(error))
    return device


def answers(weights: np.ndarray) -> np.ndarray:
    made: np.ndarray = np.einsum("oc,nchw->nohw", weights, IMAGES)
    return made


def test_the_npu_computes_a_small_file_whole(tmp_path: Path) -> None:
    npu()
    path = tmp_path / "probe.onnx"
    weights = write_probe(path)
    one = check_file(path, record_of(path), "npu", IMAGES, answers(weights))
    assert (one.status, one.partitions, one.outside) == ("passed", 1, {}), one.reason
    assert one.parity is not None
    assert 0 < one.parity.relative < 1e-2, "half precision shows"
    assert "emulated HTP v75" in one.parity.ran_in


@pytest.mark.parametrize("fault", ["weight", "axes"])
def test_planted_faults_are_caught(fault: str, tmp_path: Path) -> None:
    npu()
    path, images = tmp_path / "probe.onnx", IMAGES
    weights = write_probe(path)
    record = record_of(path)
    if fault == "weight":
        data = bytearray(path.read_bytes())
        at = data.index(weights[0, 0].tobytes())
        data[at : at + 4] = np.float32(weights[0, 0] + 4).tobytes()
        path.write_bytes(data)
    else:
        images = IMAGES.transpose(0, 1, 3, 2)
    one = check_file(path, record, "npu", images, answers(weights))
    assert one.status == "failed", one
    assert "differs from PyTorch" in one.reason or "signal to error" in one.reason


def test_a_wrong_chip_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "probe.onnx"
    device = npu("soc_model=9999")
    write_probe(path)
    with pytest.raises(DeviceError, match=r"soc_model 9999\): its backend does not start .*is soc_model right\?"):
        device.open_runner(ArtifactFile(path, record_of(path)))
    with pytest.raises(ConfigError, match="htp_arch"):
        load_device("npu_check", ("htp_arch=12",))


def test_it_measures_nothing_and_takes_onnx_only(tiny_tflite: Path, tiny_onnx: Path) -> None:
    device = load_device("npu_check")
    with pytest.raises(DeviceError, match="measures nothing"):
        device.measure(load_artifact(tiny_onnx), Protocol())
    with pytest.raises(DeviceError, match=r"runs ONNX files, and this is 'litert': export with --to onnx"):
        device.open_runner(load_artifact(tiny_tflite))


def test_a_damaged_file_and_one_without_a_shape_are_one_line(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    device = npu()
    path = tmp_path / "probe.onnx"
    write_probe(path)
    record = record_of(path)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, path)
    with pytest.raises(DeviceError, match=r"^probe.onnx does not run .* 'image' has no fixed shape .*export it fixed$"):
        device.open_runner(ArtifactFile(path, record))
    path.write_bytes(b"no model")
    with pytest.raises(DeviceError, match=r"^probe.onnx does not run on the emulated NPU[^\n]*$"):
        device.open_runner(ArtifactFile(path, record))


def test_without_a_set_up_the_line_that_makes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(layout.ENVIRONMENT, str(tmp_path))
    with pytest.raises(DeviceError, match=r"no emulated NPU below .*mobilezoo device setup npu"):
        load_device("npu_check").check()
    (tmp_path / STAMP).write_text('{"onnxruntime": "1", "qnn": "2", "python": "3.1"}')
    with pytest.raises(DeviceError, match=r"for Python 3.1, .*device setup npu --force"):
        load_device("npu_check").check()
    (tmp_path / STAMP).write_text("{")
    with pytest.raises(DeviceError, match=r"is damaged .*device setup npu"):
        load_device("npu_check").check()


@pytest.mark.skipif(sys.platform != "linux", reason="the set-up is for Linux")
def test_nothing_is_installed_without_the_users_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(layout.ENVIRONMENT, str(tmp_path / "npu"))
    monkeypatch.setattr(setup, "_install", lambda packages: pytest.fail(f"installed into {packages}"))
    with pytest.raises(DeviceError, match=r"Qualcomm's own license.*--accept-license"):
        setup.set_up(lambda _: None)
    assert not list(tmp_path.iterdir())
