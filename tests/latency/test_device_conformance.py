"""Devices keep the contract of `mobilezoo.testing.DeviceConformance`; one that is not connected says why."""

import pytest

from mobilezoo.testing import DeviceConformance


class TestHost(DeviceConformance):
    device, target = "host", "onnx"


@pytest.mark.slow
class TestEmulatedCore(DeviceConformance):
    device = "cortex_a76"
