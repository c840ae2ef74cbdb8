"""The Core ML device against a stand-in with coremltools' own signatures: here is no Mac to run it on."""

import asyncio
import inspect
import platform
from types import SimpleNamespace
from typing import Any

import pytest

from mobilezoo.errors import DeviceError
from mobilezoo.latency_report import Protocol
from mobilezoo_latency import Store, load_artifact, load_device, profile
from mobilezoo_latency.apple import device as apple
from mobilezoo_latency.apple.device import AppleDevice
from mobilezoo_latency.apple.toolkit import Toolkit

pytest.importorskip("coremltools")
QUICK = Protocol(name="quick", warmup_runs=2, warmup_s=0.0, min_runs=5, min_s=0.0, restarts=2, max_repeats=1)


class MLNeuralEngineComputeDevice:
    """Of the name that coremltools' class has."""


class MLCPUComputeDevice:
    """Likewise."""


class Benchmarker:
    """MLModelBenchmarker's methods, with made-up times."""

    placed: Any = MLNeuralEngineComputeDevice
    seen: list[Any] = []

    def __init__(self, model: Any, device: Any = None) -> None:
        self.model, self.device = model, device
        self.seen.append(self)

    async def benchmark_load(self, iterations: int = 1) -> Any:
        return SimpleNamespace(samples=[30.0] * iterations)

    async def benchmark_predict(self, inputs: Any = None, iterations: int = 1, warmup: bool = False) -> Any:
        if self.model.broken:
            raise ValueError("unsupported operation\nand more")
        assert set(inputs) == {"image"}
        await asyncio.sleep(0)
        return SimpleNamespace(samples=[1.5] * iterations)

    async def benchmark_operation_execution(
        self, inputs: Any = None, iterations: int = 1, warmup: bool = False
    ) -> list[Any]:
        usage = SimpleNamespace(preferred_compute_device=self.placed())
        timed = SimpleNamespace(statistics=SimpleNamespace(median=1.0))
        none = SimpleNamespace(statistics=None)
        return [
            SimpleNamespace(spec=SimpleNamespace(type="conv"), compute_device_usage=usage, measurement=timed),
            SimpleNamespace(spec=SimpleNamespace(type="const"), compute_device_usage=None, measurement=none),
        ]


def phone(name: str = "my phone", developer_mode_state: str = "enabled") -> Any:
    async def prepare_for_model_debugging(
        credentials: Any = None, working_directory: Any = None, clean: bool = False
    ) -> str:
        return f"prepared {name} for {credentials.development_team}"

    return SimpleNamespace(
        name=name,
        os_version="18.1",
        developer_mode_state=developer_mode_state,
        type=SimpleNamespace(value="iphone"),
        prepare_for_model_debugging=prepare_for_model_debugging,
    )


@pytest.fixture
def mac(monkeypatch, tmp_path, record_beside):
    """This machine as a Mac with coremltools' stand-in; `mac.phones` are what is connected."""
    found = SimpleNamespace(phones=[], broken=False)

    def load(path: str, units: str) -> Any:
        array = SimpleNamespace(shape=[1, 4, 16, 16])
        described = SimpleNamespace(name="image", type=SimpleNamespace(multiArrayType=array))
        spec = SimpleNamespace(description=SimpleNamespace(input=[described]))
        return SimpleNamespace(get_spec=lambda: spec, broken=found.broken and "sentinel" not in path, units=units)

    def get_connected_devices(device_type: Any) -> list[Any]:
        return list(found.phones)

    devices = SimpleNamespace(
        Device=SimpleNamespace(get_connected_devices=get_connected_devices),
        DeviceType=lambda name: name,
        AppSigningCredentials=lambda **given: SimpleNamespace(**given),
    )
    Benchmarker.placed, Benchmarker.seen = MLNeuralEngineComputeDevice, []
    monkeypatch.setattr(apple, "load_toolkit", lambda: Toolkit(load, Benchmarker, devices))
    monkeypatch.setattr(apple, "write_sentinel", lambda path: path)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    package = tmp_path / "tiny.fp32.mlpackage"
    package.mkdir()
    (package / "Manifest.json").write_text("{}")
    found.file = record_beside(package, "coreml", (1, 4, 16, 16))
    return found


def test_a_mac_measures_with_raw_samples_and_the_plan(mac, tmp_path):
    report = profile(mac.file, "mac", QUICK, store=Store(tmp_path / "latency.db"))
    assert (report.device.kind, len(report.samples_ms), len(report.processes)) == ("host", 6, 2)
    assert set(report.samples_ms) == {1.5}
    assert (report.load_ms, report.first_run_ms) == (30.0, 1.5)
    assert report.obtained["planned"] == "Neural Engine 1"
    assert not report.noisy


def test_a_processor_that_was_not_asked_for_fails(mac):
    found = load_device("mac", ("compute_units=cpu_only",))
    with pytest.raises(DeviceError, match="requested cpu_only, and Core ML plans for Neural Engine"):
        found.measure(load_artifact(mac.file), QUICK)
    Benchmarker.placed = MLCPUComputeDevice
    assert found.measure(load_artifact(mac.file), QUICK).obtained["planned"] == "CPU 1"
    assert {bench.model.units for bench in Benchmarker.seen} == {"CPU_ONLY"}


def test_an_iphone_is_prepared_once_with_the_users_team(mac):
    mac.phones = [phone()]
    found = load_device("iphone", ("team=ABCDE",))
    report = found.measure(load_artifact(mac.file), QUICK)
    assert (report.device.name, report.device.kind, report.device.os) == ("my phone", "phone", "iOS 18.1")
    assert {bench.device for bench in Benchmarker.seen} == {"prepared my phone for ABCDE"}


@pytest.mark.parametrize(
    ("phones", "overrides", "expected"),
    [
        ([], (), "no iphone is connected"),
        ([phone("a"), phone("b")], (), r"2 devices are connected \(a, b\)"),
        ([phone("a")], ("device_name=b",), r"no iphone named 'b' \(connected: a\)"),
        ([phone("a", "disabled")], (), "developer mode is disabled"),
    ],
)
def test_a_phone_that_cannot_be_used_is_one_line(mac, phones, overrides, expected):
    mac.phones = phones
    with pytest.raises(DeviceError, match=expected):
        load_device("iphone", overrides).describe()


def test_a_model_that_core_ml_refuses_is_one_line(mac):
    mac.broken = True
    with pytest.raises(DeviceError, match=r"cannot be timed: unsupported operation$"):
        load_device("mac").measure(load_artifact(mac.file), QUICK)


def test_other_files_threads_and_old_systems_are_refused(mac, tiny_onnx, monkeypatch):
    with pytest.raises(DeviceError, match="runs Core ML files"):
        profile(tiny_onnx, "mac", QUICK)
    with pytest.raises(DeviceError, match="chooses its own threads"):
        profile(mac.file, "mac", QUICK, threads=2)
    monkeypatch.setattr(platform, "mac_ver", lambda: ("13.6", ("", "", ""), "arm64"))
    with pytest.raises(DeviceError, match=r"macOS 14\.4 or newer, and this is 13\.6"):
        load_device("mac").check()


def test_off_macos_the_device_says_what_can_be_done_instead():
    if platform.system() == "Darwin":
        pytest.skip("this is macOS")
    with pytest.raises(DeviceError, match="needs macOS, and this is"):
        load_device("iphone").check()


def test_the_stand_in_has_coremltools_own_signatures():
    real = apple.load_toolkit()
    for name in ("__init__", "benchmark_load", "benchmark_predict", "benchmark_operation_execution"):
        theirs = inspect.signature(getattr(real.benchmarker, name)).parameters
        ours = inspect.signature(getattr(Benchmarker, name)).parameters
        assert [(p.name, p.default) for p in theirs.values()] == [(p.name, p.default) for p in ours.values()]
    prepare = inspect.signature(real.devices.Device.prepare_for_model_debugging)
    assert list(prepare.parameters)[1:] == ["credentials", "working_directory", "clean"]
    assert {"name", "type", "os_version", "developer_mode_state"} <= set(real.devices.Device.__dataclass_fields__)
    fields = real.devices.AppSigningCredentials.__dataclass_fields__
    assert {"development_team", "bundle_identifier", "provisioning_profile_uuid"} == set(fields)
    assert real.devices.DeviceType("iphone").value == "iphone"
    assert real.devices.DeviceType("ipad").value == "ipad"
    assert isinstance(load_device("mac"), AppleDevice)


def test_the_sentinel_is_a_real_core_ml_package(tmp_path):
    import numpy as np

    from mobilezoo_export.mil.program import load_program
    from mobilezoo_latency.apple.sentinel import SENTINEL_SHAPE, write_sentinel

    program = load_program(write_sentinel(tmp_path / "sentinel.mlpackage"))
    result = program.run(np.ones(SENTINEL_SHAPE, np.float32))
    assert np.asarray(result).shape == SENTINEL_SHAPE
    assert np.isfinite(np.asarray(result)).all()
