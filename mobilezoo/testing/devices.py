"""Conformance suite of devices."""

import math
from pathlib import Path
from typing import ClassVar

import pytest

from mobilezoo.errors import DeviceError, MissingToolError
from mobilezoo.latency_report import Protocol
from mobilezoo.testing.targets import export_small
from mobilezoo_latency.contract import ArtifactFile, Device, load_artifact
from mobilezoo_latency.registry import load_device

QUICK = Protocol(name="quick", warmup_runs=3, warmup_s=0.01, min_runs=8, min_s=0.01, max_repeats=1)


class DeviceConformance:
    """Subclass it as `class TestMine(DeviceConformance)` and name a device; skipped where it is not connected."""

    device: ClassVar[str | Path]
    """Name or YAML."""
    target: ClassVar[str] = "litert"
    """Format of the file that is measured."""

    @pytest.fixture(scope="class")
    def artifact(self, tmp_path_factory: pytest.TempPathFactory) -> ArtifactFile:
        """A small file with its record."""
        path = export_small(self.target, tmp_path_factory.mktemp("device")).path
        assert path is not None
        return load_artifact(path)

    def ready(self) -> Device:
        """Returns the device under test; skips the test where it is not connected."""
        device = load_device(self.device)
        try:
            device.check()  # nothing else may be raised
        except (DeviceError, MissingToolError) as error:
            pytest.skip(str(error))
        return device

    def test_it_is_described_twice_the_same(self) -> None:
        device = self.ready()
        assert device.describe() == device.describe()
        assert "\n" not in device.hint()

    def test_samples_are_finite_positive_and_of_the_file(self, artifact: ArtifactFile) -> None:
        device = self.ready().for_artifact(artifact)
        protocol = device.protocol_for(QUICK)
        try:
            report = device.measure(artifact, protocol)
        finally:
            device.close()
        assert report.samples_ms or report.counts
        assert all(math.isfinite(ms) and ms > 0 for ms in report.samples_ms)
        assert report.artifact_sha256 == artifact.record.sha256
        assert report.device.name == device.describe().name
