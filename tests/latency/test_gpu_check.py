"""LiteRT's GPU accelerator on a software Vulkan: what it computes, what it leaves out, and every way it is refused."""

from pathlib import Path

import numpy as np
import pytest

from mobilezoo.artifacts import Artifact, load_record_of
from mobilezoo.errors import DeviceError, MissingToolError
from mobilezoo.installed import STAMP
from mobilezoo.latency_report import Protocol
from mobilezoo.workflows.check_units import check_file
from mobilezoo_export.registry import start_runner
from mobilezoo_latency.contract import ArtifactFile, Device, load_artifact
from mobilezoo_latency.emulator.probe import IN_CHANNELS, SIDE
from mobilezoo_latency.gpu import layout, setup
from mobilezoo_latency.gpu.log import cause_of, left_of
from mobilezoo_latency.registry import load_device

IMAGES = np.random.default_rng(1).standard_normal((2, IN_CHANNELS, SIDE, SIDE), dtype=np.float32)
LOG = """INFO: [gpu_environment.h:155] Created LiteRT GpuEnvironment.
ERROR: Following operations are not supported by GPU delegate:
GATHER_ND: Operation is not supported.
RESHAPE: Tensor dimensions must be less than 5. a;16
RESHAPE: Tensor dimensions must be less than 5. a;17
{summary}
I0000 00:00:1795973361.939297   32727 delegate_kernel.cc:984] Initializing WebGPU-based API from graph.
"""


def gpu() -> Device:
    device = load_device("gpu_check")
    try:
        device.check()
    except (DeviceError, MissingToolError) as error:
        pytest.skip(str(error))
    return device


@pytest.fixture(scope="module")
def answers(tiny_tflite: Path) -> np.ndarray:
    """The layer's answers, of its weights in NumPy's hands: neither runtime is its own judge."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(tiny_tflite))
    weights = interpreter.get_tensor(1)
    made: np.ndarray = IMAGES.transpose(0, 2, 3, 1) @ weights.T
    return made


def test_the_gpu_computes_a_small_file_whole(tiny_tflite: Path, answers: np.ndarray) -> None:
    gpu()
    one = check_file(tiny_tflite, load_record_of(Artifact, tiny_tflite), "gpu", IMAGES, answers)
    assert (one.status, one.partitions, one.outside) == ("passed", 1, {}), one.reason
    assert one.parity is not None
    assert one.parity.relative < 1e-4
    assert "ms" not in one.parity.ran_in
    half = layout.find_gpu().driver.half
    assert any("overflow" in note for note in one.notes) is not half


@pytest.mark.parametrize("fault", ["weight", "axes"])
def test_planted_faults_are_caught(fault: str, tiny_tflite: Path, answers: np.ndarray, tmp_path: Path) -> None:
    gpu()
    path, images = tmp_path / "tiny.tflite", IMAGES
    data = bytearray(tiny_tflite.read_bytes())
    if fault == "weight":
        weight = start_runner(tiny_tflite, None).interpreter.get_tensor(1)[0, 0]  # type: ignore[attr-defined]
        at = data.index(np.float32(weight).tobytes())
        data[at : at + 4] = np.float32(weight + 0.05).tobytes()
    else:
        images = IMAGES.transpose(0, 1, 3, 2)
    path.write_bytes(data)
    record = load_record_of(Artifact, tiny_tflite)
    one = check_file(path, record, "gpu", images, answers)
    assert (one.status, one.reason[:20]) == ("failed", "differs from PyTorch")


def test_it_measures_nothing_and_takes_litert_only(tiny_tflite: Path, tiny_onnx: Path) -> None:
    device = load_device("gpu_check")
    with pytest.raises(DeviceError, match="measures nothing"):
        device.measure(load_artifact(tiny_tflite), Protocol())
    with pytest.raises(DeviceError, match=r"runs LiteRT files, and this is 'onnx': export with --to litert"):
        device.open_runner(load_artifact(tiny_onnx))


def test_a_damaged_file_is_one_line(tiny_tflite: Path, tmp_path: Path) -> None:
    device = gpu()
    path = tmp_path / "cut.tflite"
    path.write_bytes(tiny_tflite.read_bytes()[:200])
    with pytest.raises(DeviceError, match=r"^cut.tflite does not run on the GPU: [^\n]+$"):
        device.open_runner(ArtifactFile(path, load_record_of(Artifact, tiny_tflite)))


def test_without_a_set_up_the_line_that_makes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setenv(layout.ENVIRONMENT, str(tmp_path))
    with pytest.raises(DeviceError, match=r"no software GPU below .*mobilezoo device setup gpu"):
        load_device("gpu_check").check()
    (tmp_path / STAMP).write_text('{"icd": "/nowhere/icd.json", "loader": "", "half": false}')
    with pytest.raises(DeviceError, match=r"software Vulkan is gone \('/nowhere/icd.json'\).*device setup gpu"):
        load_device("gpu_check").check()
    (tmp_path / STAMP).write_text("{")
    with pytest.raises(DeviceError, match=r"is damaged .*device setup gpu"):
        load_device("gpu_check").check()


def test_the_set_up_keeps_nothing_of_a_driver_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert")
    icd = tmp_path / "icd.json"
    icd.write_text('{"file_format_version": "1.0.0", "ICD": {"library_path": "./none.so", "api_version": "1.0.5"}}')
    monkeypatch.setenv(layout.ENVIRONMENT, str(tmp_path / "gpu"))
    monkeypatch.setenv("VK_DRIVER_FILES", str(icd))
    with pytest.raises(DeviceError, match="no Vulkan driver answers"):
        setup.set_up(lambda _: None)
    monkeypatch.setenv("VK_DRIVER_FILES", str(tmp_path / "other.json"))
    with pytest.raises(DeviceError, match=r"other.json'.*unset it"):
        setup.set_up(lambda _: None)
    assert not (tmp_path / "gpu" / STAMP).exists()


def test_operators_that_fall_back_are_read_from_the_log() -> None:
    found = left_of(
        LOG.format(summary="8 operations will run on the GPU, and the remaining 5 operations will run on the CPU.")
    )
    assert found is not None
    assert (found.taken, found.left) == (8, 5)
    assert found.refused == {"GATHER_ND": 1, "RESHAPE": 2}
    assert found.reasons[0] == "GATHER_ND: Operation is not supported."
    none = left_of(LOG.format(summary="No operations will run on the GPU, and all 3 operations will run on the CPU."))
    assert none is not None
    assert (none.taken, none.left) == (0, 3)
    assert left_of("INFO: all is well") is None


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("ERROR: Encountered unresolved custom op: fake-op-double.", "operator 'fake-op-double' is a custom one"),
        ("ERROR: Didn't find op for builtin opcode 'STABLEHLO_SORT' version '1'.", "no kernel for operator STABLEHLO_"),
        ("ERROR: [model_load.cc:316] Variable tensors not yet supported.", "keeps a state"),
        ("ERROR: Something else.", "Something else."),
        ("INFO: nothing", "Failed to compile"),
    ],
)
def test_the_cause_names_the_operator(line: str, cause: str) -> None:
    assert cause in cause_of(f"INFO: begin\n{line}\n", RuntimeError("Failed to compile"))
