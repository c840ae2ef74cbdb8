"""Where the milliseconds go: the time of every operator of a file, in the runtime that the file is for.

- ONNX Runtime profiles itself; its per-node times are taken as they are.
- LiteRT hands whole graphs to XNNPACK, which tells nothing of its parts. Every operator is cut into a file of its own
  and timed there, warm; the parts' sum is printed beside the whole, since fusing and caches make the two differ.
- ExecuTorch's event trace (ETDump) is read by its own inspector; it looks into the XNNPACK delegate.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mobilezoo.errors import DeviceError
from mobilezoo_latency.contract import ArtifactFile, load_artifact
from mobilezoo_latency.stats import median

WARM_UP = 5
RUNS = 30
MIN_S = 0.02
"""Per operator, where operators are timed one by one."""


class OperatorTime(NamedTuple):
    """One operator's median time."""

    name: str
    """The node's name, or its number in the file."""
    type: str
    shape: str
    """Of its output."""
    ms: float
    share: float
    """Of the sum over all operators, 0..1."""


class Profile(NamedTuple):
    """A network's operators in the order they run."""

    runtime: str
    whole_ms: float
    """The network as one, measured in the same process."""
    operators: list[OperatorTime]
    how: str

    @property
    def sum_ms(self) -> float:
        return sum(op.ms for op in self.operators)


def profile_operators(path: str | Path, threads: int = 1) -> Profile:
    """Per-operator times of an exported file on this machine. Raises DeviceError where its runtime gives none."""
    file = load_artifact(path)
    ways = {"onnx": _onnx, "litert": _litert, "executorch": _executorch}
    if file.record.target not in ways:
        raise DeviceError(
            f"{file.path.name}: no per-operator times for {file.record.target!r} files on this machine: "
            f"export to {', '.join(ways)}"
        )
    return ways[file.record.target](file, threads)


def by_type(operators: Sequence[OperatorTime]) -> list[tuple[str, int, float, float]]:
    """(type, how many, ms, share), most expensive first."""
    found: dict[str, tuple[int, float, float]] = {}
    for op in operators:
        count, ms, share = found.get(op.type, (0, 0.0, 0.0))
        found[op.type] = (count + 1, ms + op.ms, share + op.share)
    return sorted(((name, *sums) for name, sums in found.items()), key=lambda row: -row[2])


def advice(operators: Sequence[OperatorTime]) -> list[str]:
    """What stands out, as sentences; rules of thumb, each with the figure it rests on."""
    shares = [(name.upper(), part) for name, _, _, part in by_type(operators)]

    def total(*words: str) -> float:
        return sum(part for name, part in shares if any(word in name for word in words))

    said = []
    if (moved := total("TRANSPOSE", "RESHAPE", "PAD", "CONCAT", "SLICE", "SPLIT", "GATHER", "REORDER")) > 0.1:
        said.append(f"{moved:.0%} goes into moving data: look for transposes and concatenations the export could avoid")
    if (activated := total("SWISH", "LOGISTIC", "SIGMOID", "GELU", "ERF", "SOFTMAX", "TANH")) > 0.15:
        said.append(f"{activated:.0%} goes into activations and softmax: a ReLU is fused into its convolution for free")
    first = max(operators, key=lambda op: op.share)
    if first.share > 0.2:
        said.append(f"one operator takes {first.share:.0%}: {first.type} {first.shape} ({first.name})")
    depthwise = total("DEPTHWISE", "DWCONV")
    if depthwise > 0.5:
        said.append(f"{depthwise:.0%} goes into depthwise convolutions: they are bound by memory, not by multiply-adds")
    return said


def _onnx(file: ArtifactFile, threads: int) -> Profile:
    from mobilezoo.errors import require

    require("onnxruntime", "onnx")
    import numpy as np
    import onnxruntime as ort

    with tempfile.TemporaryDirectory(prefix="mobilezoo-ops-") as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        plain = ort.InferenceSession(str(file.path), options, providers=["CPUExecutionProvider"])
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/ops"
        session = ort.InferenceSession(str(file.path), options, providers=["CPUExecutionProvider"])
        spec = session.get_inputs()[0]
        rng = np.random.default_rng(0)
        batch = rng.standard_normal([int(n) for n in spec.shape]).astype(_numpy_type(spec.type))
        whole = _timed(lambda: plain.run(None, {spec.name: batch}))
        for _ in range(WARM_UP + RUNS):
            session.run(None, {spec.name: batch})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    taken: dict[str, list[float]] = {}
    facts: dict[str, tuple[str, str]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            shapes = event["args"].get("output_type_shape") or [{}]
            facts[name] = (event["args"]["op_name"], _shape(next(iter(shapes[0].values()), [])))
            taken.setdefault(name, []).append(event["dur"] / 1e3)
    rows = [(name, *facts[name], median(times[WARM_UP:])) for name, times in taken.items()]
    return Profile(f"ONNX Runtime {ort.__version__}", whole, _shares(rows), "the runtime's own profiler")


def _litert(file: ArtifactFile, threads: int) -> Profile:
    from mobilezoo.errors import require
    from mobilezoo.files import versions

    require("ai_edge_litert", "litert")
    from ai_edge_litert import schema_py_generated as schema

    data = file.path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    graph = model.subgraphs[0]
    rows = []
    for number, operator in enumerate(graph.operators):
        single = _single(schema, model, graph, operator)
        if single is not None:
            shape = _shape(graph.tensors[operator.outputs[0]].shape)
            rows.append((f"#{number}", _type_name(schema, model, operator), shape, _timed_litert(single, threads)))
    whole = _timed_litert(data, threads)
    runtime = f"LiteRT {versions(['ai-edge-litert']).get('ai-edge-litert', '')} (XNNPACK)"
    return Profile(runtime, whole, _shares(rows), "each operator alone in a file of its own")


def _executorch(file: ArtifactFile, threads: int) -> Profile:
    from mobilezoo.errors import require
    from mobilezoo_export import load_runner
    from mobilezoo_export.quiet import quiet

    require("executorch", "executorch")
    if threads != 1:
        raise DeviceError("per-operator times of ExecuTorch are taken on one thread: leave --threads out")
    import numpy as np

    runner = load_runner(file.path)
    n, *rest = runner.input.shape
    batch = np.random.default_rng(0).standard_normal((n, *rest), dtype=np.float32)
    runner.prepare(batch)
    whole = _timed(runner.invoke)
    with quiet(), tempfile.TemporaryDirectory(prefix="mobilezoo-ops-") as folder:
        import torch
        from executorch.devtools import Inspector
        from executorch.extension.pybindings import portable_lib

        module = portable_lib._load_for_executorch(str(file.path), enable_etdump=True)
        for _ in range(RUNS):
            module.forward((torch.from_numpy(batch),))
        dump = f"{folder}/trace.etdp"
        module.write_etdump_result_to_file(dump)
        blocks = Inspector(etdump_path=dump).event_blocks
    events = [event for block in blocks if block.name == "Execute" for event in block.events]
    parts = [e for e in events if e.perf_data and e.name not in ("DELEGATE_CALL", "Method::execute", "OPERATOR_CALL")]
    rows = [(e.name, e.name.partition(" #")[0], "", float(e.perf_data.p50)) for e in parts]
    return Profile(runner.runtime, whole, _shares(rows), "the runtime's event trace")


def _single(schema: Any, model: Any, graph: Any, operator: Any) -> bytes | None:
    """A file that holds one operator with its constants; None where it computes from constants alone."""
    import flatbuffers
    import numpy as np

    keep = [index for index in (*operator.inputs, *operator.outputs) if index >= 0]
    place = {index: number for number, index in enumerate(dict.fromkeys(keep))}
    buffers, tensors, inputs = [schema.BufferT()], [], []
    for index in place:
        old = graph.tensors[index]
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = f"t{place[index]}", old.shape, old.type
        tensor.quantization, tensor.shapeSignature = old.quantization, None
        stored = model.buffers[old.buffer].data
        if stored is not None and len(stored):
            buffer = schema.BufferT()
            buffer.data = np.asarray(stored, dtype=np.uint8)
            tensor.buffer = len(buffers)
            buffers.append(buffer)
        else:
            tensor.buffer = 0
            if index in operator.inputs:
                inputs.append(place[index])
        tensors.append(tensor)
    if not inputs:
        return None
    alone = schema.OperatorT()
    alone.__dict__.update(operator.__dict__)
    alone.opcodeIndex = 0
    alone.inputs = [place[index] if index >= 0 else -1 for index in operator.inputs]
    alone.outputs = [place[index] for index in operator.outputs]
    part = schema.SubGraphT()
    part.tensors, part.operators = tensors, [alone]
    part.inputs, part.outputs = inputs, alone.outputs
    whole = schema.ModelT()
    whole.version, whole.operatorCodes = 3, [model.operatorCodes[operator.opcodeIndex]]
    whole.subgraphs, whole.buffers = [part], buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(whole.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _timed_litert(data: bytes, threads: int) -> float:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    from mobilezoo_export.quiet import quiet

    with quiet():
        interpreter = Interpreter(model_content=data, num_threads=threads)
        interpreter.allocate_tensors()
        rng = np.random.default_rng(0)
        for detail in interpreter.get_input_details():
            dtype = np.dtype(detail["dtype"])
            noise = rng.standard_normal(detail["shape"])
            interpreter.set_tensor(
                detail["index"], noise.astype(dtype) if dtype.kind == "f" else (noise * 8).astype(dtype)
            )
        return _timed(interpreter.invoke)


def _timed(run: Any) -> float:
    """Median ms of warm runs."""
    for _ in range(WARM_UP):
        run()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < RUNS or time.perf_counter() - begin < MIN_S:
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return median(times)


def _shares(rows: Sequence[tuple[str, str, str, float]]) -> list[OperatorTime]:
    total = sum(row[3] for row in rows) or 1.0
    return [OperatorTime(name, kind, shape, ms, ms / total) for name, kind, shape, ms in rows]


def _shape(sizes: Any) -> str:
    return "×".join(str(int(size)) for size in sizes)


def _type_name(schema: Any, model: Any, operator: Any) -> str:
    code = model.operatorCodes[operator.opcodeIndex]
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    return str(names.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM"))


def _numpy_type(name: str) -> str:
    return {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}.get(name, "int8")
