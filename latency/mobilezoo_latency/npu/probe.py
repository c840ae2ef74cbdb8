"""A network of one layer in ONNX, small enough to verify the emulation in seconds."""

from pathlib import Path

import numpy as np

from mobilezoo.artifacts import Artifact, InputSpec, Preprocessing
from mobilezoo.errors import DeviceError, require
from mobilezoo.files import sha256_of, size_of
from mobilezoo.scratch import temporary_folder
from mobilezoo_export.htp.layout import Emulation
from mobilezoo_latency.contract import ArtifactFile
from mobilezoo_latency.npu.device import NpuCheckConfig, open_on

SHAPE = (1, 4, 8, 8)
WRONG = 1e-2
"""Difference from NumPy, of the deviation of the answers, that half precision does not explain."""


def write_probe(path: Path) -> np.ndarray:
    """Writes a .onnx file of one 1×1 convolution from 4 to 8 channels, with seeded weights.

    Args:
        path: the file to write.

    Returns:
        The weights, (8, 4).

    Raises:
        MissingToolError: onnx is not installed.
    """
    require("onnx", "onnx")
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).standard_normal((8, SHAPE[1]), dtype=np.float32)
    node = helper.make_node("Conv", ["image", "weights"], ["answers"], kernel_shape=[1, 1])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, *SHAPE[2:]])
        for name, channels in (("image", SHAPE[1]), ("answers", 8))
    ]
    held = [numpy_helper.from_array(weights[:, :, None, None], "weights")]
    graph = helper.make_graph([node], "probe", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return weights


def record_of(path: Path) -> Artifact:
    """Describes the probe.

    Args:
        path: the file that `write_probe` wrote.
    """
    return Artifact(
        path=path.name,
        target="onnx",
        precision="fp32",
        model="probe",
        input=InputSpec(shape=SHAPE),
        preprocessing=Preprocessing(mean=(0.0,) * SHAPE[1], std=(1.0,) * SHAPE[1]),
        sha256=sha256_of(path),
        size_bytes=size_of(path),
        parity=None,
        tools={},
    )


def verify(emulation: Emulation) -> None:
    """Runs the probe on the emulated NPU. Raises DeviceError unless its answers are NumPy's.

    Args:
        emulation: the installed emulation.
    """
    config = NpuCheckConfig(name="npu_check")
    image = np.random.default_rng(1).standard_normal(SHAPE, dtype=np.float32)
    with temporary_folder("probe") as folder:
        weights = write_probe(folder / "probe.onnx")
        artifact = ArtifactFile(folder / "probe.onnx", record_of(folder / "probe.onnx"))
        runner = open_on(emulation, config, artifact)
        try:
            found = runner.run(image)
        finally:
            runner.close()
    expected = np.einsum("oc,nchw->nohw", weights, image)
    difference = float(np.abs(found - expected).max() / expected.std())
    if not difference < WRONG:
        raise DeviceError(f"the emulated NPU computes one layer wrongly, by {difference:.2g} of its deviation")
