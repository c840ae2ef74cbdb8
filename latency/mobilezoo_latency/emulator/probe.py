"""A network of one layer, written without a converter: small enough to verify an emulator in a second."""

from pathlib import Path
from typing import Any

from mobilezoo.errors import DeviceError, require
from mobilezoo.scratch import temporary_folder
from mobilezoo_latency.emulator.cores import EmulatedConfig
from mobilezoo_latency.emulator.layout import Emulator

SIDE, IN_CHANNELS, OUT_CHANNELS = 16, 4, 8
MACS = SIDE * SIDE * IN_CHANNELS * OUT_CHANNELS


def write_probe(path: Path, side: int = SIDE, in_channels: int = IN_CHANNELS, out_channels: int = OUT_CHANNELS) -> Path:
    """Writes a .tflite file of one fully connected layer over `side` × `side` pixels, with seeded weights.

    Args:
        path: the file to write.
        side: height and width of the input.
        in_channels: channels of the input.
        out_channels: channels of the output.

    Returns:
        `path`.

    Raises:
        MissingToolError: LiteRT is not installed.
    """
    require("ai_edge_litert", "litert")
    import flatbuffers
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    rng = np.random.default_rng(0)
    weights = rng.standard_normal((out_channels, in_channels), dtype=np.float32)
    graph = schema.SubGraphT()
    graph.tensors = [
        _tensor(schema, "pixels", [1, side, side, in_channels], 0),
        _tensor(schema, "weights", [out_channels, in_channels], 1),
        _tensor(schema, "bias", [out_channels], 2),
        _tensor(schema, "result", [1, side, side, out_channels], 0),
    ]
    graph.inputs, graph.outputs, graph.operators = [0], [3], [_fully_connected(schema)]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [_buffer(schema, data) for data in (None, weights, np.zeros(out_channels, np.float32))]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def probe_core() -> EmulatedConfig:
    """The Cortex-A76, on which a new emulator is tried."""
    from mobilezoo_latency.emulator.device import EmulatedDevice
    from mobilezoo_latency.registry import load_device

    device = load_device("cortex_a76")
    assert isinstance(device, EmulatedDevice)
    return device.config


def verify(emulator: Emulator) -> None:
    """Counts the probe twice on a Cortex-A76. Raises DeviceError unless counts agree and reach its multiply-adds."""
    from mobilezoo_latency.emulator.counting import count_blocks
    from mobilezoo_latency.emulator.pricing import cycles_of, floating_or_integer_macs

    core = probe_core()
    with temporary_folder("probe") as folder:
        model = write_probe(folder / "probe.tflite")
        first, second = (count_blocks(emulator, core, model) for _ in range(2))
    if (first.instructions, first.misses) != (second.instructions, second.misses):
        raise DeviceError(f"the emulator counts {first.instructions} and {second.instructions} for the same run")
    macs = floating_or_integer_macs(emulator, core, first.blocks)
    if macs < MACS or cycles_of(emulator, core, first.blocks) <= 0:
        raise DeviceError(f"the emulator counts {macs} multiply-adds where {MACS} were due")


def _tensor(schema: Any, name: str, shape: list[int], buffer: int) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer, tensor.type = name, shape, buffer, schema.TensorType.FLOAT32
    return tensor


def _buffer(schema: Any, data: Any) -> Any:
    import numpy as np

    buffer = schema.BufferT()
    buffer.data = None if data is None else np.frombuffer(data.tobytes(), dtype=np.uint8)
    return buffer


def _fully_connected(schema: Any) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], [3]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    operator.builtinOptions.keepNumDims = True
    return operator
