"""ONNX Runtime and ExecuTorch on an emulated core. What counts skips where they were never set up."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from mobilezoo.errors import DeviceError
from mobilezoo_export.registry import load_runner
from mobilezoo_latency import Store, load_artifact, load_device, profile
from mobilezoo_latency.contract import ArtifactFile
from mobilezoo_latency.emulator import packages, setup
from mobilezoo_latency.emulator.counting import BlockCounts, count_blocks
from mobilezoo_latency.emulator.device import EmulatedDevice
from mobilezoo_latency.emulator.layout import Emulator, Installed, find_emulator, home
from mobilezoo_latency.emulator.pricing import cycles_of, floating_or_integer_macs
from mobilezoo_latency.emulator.probe import IN_CHANNELS, SIDE, probe_core
from mobilezoo_latency.emulator.runtimes import RUNTIMES, find_runtime, installed_runtime

CONV_MACS = (3 * SIDE - 2) ** 2 * IN_CHANNELS**2
"""Of a padded 3x3 convolution, products with padding left out."""
OPTIONAL = ("onnx", "executorch")


def emulator_with(target: str) -> Emulator:
    if not (home() / "installed.json").is_file() or installed_runtime(find_emulator(), target) is None:
        pytest.skip(f"no emulator with {target}: run `mobilezoo device setup emulator`")
    return find_emulator()


def old_emulator(root: Path) -> Emulator:
    """What an older version prepared: LiteRT only."""
    versions = Installed(qemu="7.2", llvm="19.1.7", llvm_suffix="19", litert="2.3.0", sources_sha256="0" * 64)
    (root / "installed.json").write_text(versions.model_dump_json())
    return find_emulator(root)


@pytest.mark.parametrize("target", OPTIONAL)
def test_an_emulator_without_the_runtime_names_the_remedy(target, tmp_path):
    old = old_emulator(tmp_path)
    assert find_runtime(old, "litert").name == "LiteRT 2.3.0 (XNNPACK)"
    with pytest.raises(DeviceError, match=rf"has no {RUNTIMES[target].title}: run `mobilezoo device setup emulator`"):
        find_runtime(old, target)


def test_an_older_emulator_still_counts_litert_and_refuses_onnx_in_one_line(tiny_onnx, tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILEZOO_EMULATOR", str(tmp_path))
    old_emulator(tmp_path)
    load_device("cortex_a76").check()
    with pytest.raises(DeviceError, match="has no ONNX Runtime") as error:
        profile(tiny_onnx, "cortex_a76", store=Store(tmp_path / "latency.db"))
    assert "\n" not in str(error.value)


def test_files_that_no_emulated_runtime_runs_are_refused(tiny_onnx):
    known = load_artifact(tiny_onnx)
    foreign = ArtifactFile(known.path, known.record.model_copy(update={"target": "coreml"}))
    with pytest.raises(DeviceError, match="run litert, onnx, executorch files, and this is 'coreml'"):
        load_device("cortex_a76").for_artifact(foreign)


def test_a_runtime_that_cannot_be_had_costs_a_line(tmp_path, monkeypatch):
    """The others are prepared, and nothing of the missing one is left behind."""

    def download(folder: Path, runtime: object, on_message: object) -> str:
        if runtime is RUNTIMES["executorch"]:
            raise DeviceError("no arm64 wheel")
        (folder / "lib").mkdir()
        return "1.2.3"

    monkeypatch.setattr(setup, "download_runtime", download)
    monkeypatch.setattr(setup, "add_cpp_compiler", lambda root, say: None)
    monkeypatch.setattr(setup, "compile_runner", lambda root, runtime, folder, program: program.write_text("x"))
    monkeypatch.setattr(setup, "_check_start", lambda emulator, runtime, folder: None)
    said: list[str] = []
    old = old_emulator(tmp_path)
    setup.add_runtimes(old, said.append)
    assert said == ["emulator: ONNX Runtime 1.2.3 is ready", "emulator: without ExecuTorch: no arm64 wheel"]
    assert find_runtime(old, "onnx").version == "1.2.3"
    assert [path.name for path in (tmp_path / "runtimes").iterdir()] == ["onnx"]


def test_libraries_get_the_names_they_are_linked_by(tmp_path):
    wheel = tmp_path / "onnxruntime-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("onnxruntime/capi/libonnxruntime.so.1.2.3", "library")
        archive.writestr("onnxruntime/capi/libonnxruntime_providers_shared.so", "not wanted")
    packages._take_out(wheel, RUNTIMES["onnx"], tmp_path)
    assert [path.name for path in (tmp_path / "lib").iterdir()] == ["libonnxruntime.so.1"]
    with pytest.raises(DeviceError, match="this version is not supported"):
        packages._take_out(wheel, RUNTIMES["executorch"], tmp_path)


def counts_of(emulator: Emulator, path: Path) -> BlockCounts:
    """Counts of a file, the same in two processes."""
    target = load_artifact(path).record.target
    first, second = (count_blocks(emulator, probe_core(), path, target=target) for _ in range(2))
    assert first.instructions == second.instructions
    assert first.misses == second.misses
    return first


@pytest.mark.slow
def test_onnx_runtime_counts_the_same_twice_and_computes_every_multiply_add(tiny_onnx):
    emulator = emulator_with("onnx")
    counted = counts_of(emulator, tiny_onnx)
    assert floating_or_integer_macs(emulator, probe_core(), counted.blocks) >= CONV_MACS
    assert cycles_of(emulator, probe_core(), counted.blocks) > 0


@pytest.mark.slow
def test_an_onnx_file_is_profiled_under_its_own_runtime(tiny_onnx, tmp_path):
    emulator_with("onnx")
    report = profile(tiny_onnx, "cortex_a76", store=Store(tmp_path / "latency.db"))
    assert report.device.runtime.startswith("ONNX Runtime ")
    assert report.counts is not None
    assert report.counts.instructions > 0
    # the core's calibration rests on another runtime
    assert report.estimate is None


def test_answers_of_onnx_runtime_come_back(tiny_onnx):
    emulator_with("onnx")
    images = np.random.default_rng(0).standard_normal((3, IN_CHANNELS, SIDE, SIDE), dtype=np.float32)
    runner = load_device("cortex_a76").open_runner(load_artifact(tiny_onnx))
    assert runner.run(images) == pytest.approx(load_runner(tiny_onnx).run(images), rel=1e-4, abs=1e-4)
    assert runner.runtime.startswith("ONNX Runtime")


@pytest.mark.parametrize(
    ("target", "said"), [("onnx", "ONNX Runtime: "), ("executorch", "ExecuTorch: the program does not load")]
)
def test_a_damaged_file_is_one_line(target, said, tmp_path):
    emulator = emulator_with(target)
    path = tmp_path / "broken.bin"
    path.write_bytes(b"not a network" * 20)
    with pytest.raises(DeviceError, match=f"broken.bin did not run on the emulated cortex_a76: {said}") as error:
        count_blocks(emulator, probe_core(), path, target=target)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_executorch_counts_the_same_twice_and_its_answers_come_back(tmp_path, record_beside):
    emulator = emulator_with("executorch")
    pytest.importorskip("executorch")
    path = write_pte(tmp_path / "tiny.fp32.pte")
    record_beside(path, "executorch", (1, IN_CHANNELS, SIDE, SIDE))
    counted = counts_of(emulator, path)
    assert floating_or_integer_macs(emulator, probe_core(), counted.blocks) >= CONV_MACS
    images = np.random.default_rng(0).standard_normal((3, IN_CHANNELS, SIDE, SIDE), dtype=np.float32)
    device = load_device("cortex_a76")
    assert isinstance(device, EmulatedDevice)
    runner = device.open_runner(load_artifact(path))
    assert runner.run(images) == pytest.approx(load_runner(path).run(images), rel=1e-4, abs=1e-4)


def write_pte(path: Path) -> Path:
    """One padded 3x3 convolution, delegated to XNNPACK."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    network = torch.nn.Conv2d(IN_CHANNELS, IN_CHANNELS, 3, padding=1).eval()
    program = torch.export.export(network, (torch.zeros(1, IN_CHANNELS, SIDE, SIDE),))
    path.write_bytes(to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch().buffer)
    return path
