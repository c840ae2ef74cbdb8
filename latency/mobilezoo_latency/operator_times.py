"""The worker's side of per-operator times: each runtime's own way of telling them."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo.errors import DeviceError, require
from mobilezoo.scratch import temporary_folder
from mobilezoo_latency.operators import OperatorTime, Profile
from mobilezoo_latency.stats import median

WARM_UP = 5
RUNS = 30
MIN_S = 0.02
"""Per operator, where operators are timed one by one."""
CONTAINERS = ("If", "Loop", "Scan", "SequenceMap")
"""ONNX operators whose time is that of the graphs inside, which are told by themselves."""
Row = tuple[str, str, str, float]
"""Name, type, shape of the output, ms."""


def time_operators(path: Path, threads: int = 1) -> Profile:
    """Times of a file's operators, in this process. Raises DeviceError, ExportError."""
    return {".onnx": _onnx, ".tflite": _litert, ".pte": _executorch}[path.suffix](path, threads)


def _onnx(path: Path, threads: int) -> Profile:
    require("onnxruntime", "onnx")
    import onnxruntime as ort

    from mobilezoo_export import load_runner
    from mobilezoo_export.feeding import noise_for

    plain = load_runner(path, threads)
    values = noise_for(plain.inputs)
    plain.feed(values)
    whole = timed(plain.invoke)
    with temporary_folder("ops") as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/ops"
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        fed = {tensor.name: value for tensor, value in zip(plain.inputs, values, strict=True)}
        for _ in range(WARM_UP + RUNS):
            session.run(None, fed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return Profile(plain.runtime, whole, shares(_nodes(events)), "the runtime's own profiler")


def _nodes(events: list[dict[str, Any]]) -> list[Row]:
    """Each node's median over the warm runs; in a run, a node inside a loop counts as often as it ran."""
    facts: dict[str, tuple[str, str]] = {}
    runs: list[dict[str, float]] = [{}]
    for event in events:
        if event.get("cat") == "Session" and event["name"] == "model_run":
            runs.append({})
        elif event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name, told = event["name"].removesuffix("_kernel_time"), event["args"]
            shapes = told.get("output_type_shape") or [{}]
            facts[name] = (told["op_name"], shape_text(next(iter(shapes[0].values()), [])))
            runs[-1][name] = runs[-1].get(name, 0.0) + event["dur"] / 1e3
    warm = runs[WARM_UP : WARM_UP + RUNS]
    return [
        (name, *what, median([run.get(name, 0.0) for run in warm]))
        for name, what in facts.items()
        if what[0] not in CONTAINERS
    ]


def _litert(path: Path, threads: int) -> Profile:
    require("ai_edge_litert", "litert")
    from mobilezoo_export import load_runner
    from mobilezoo_export.feeding import noise_for
    from mobilezoo_latency.litert_parts import time_parts

    runner = load_runner(path, threads)
    values = noise_for(runner.inputs)
    rows, left_out = time_parts(path.read_bytes(), values, threads)
    runner.feed(values)
    how = "each operator alone in a file of its own"
    return Profile(runner.runtime, timed(runner.invoke), shares(rows), how, tuple(left_out))


def _executorch(path: Path, threads: int) -> Profile:
    from mobilezoo_export import load_runner
    from mobilezoo_export.feeding import noise_for
    from mobilezoo_export.quiet import quiet

    require("executorch", "executorch")
    if threads != 1:
        raise DeviceError("per-operator times of ExecuTorch are taken on one thread: leave --threads out")
    runner = load_runner(path)
    values = noise_for(runner.inputs)
    runner.feed(values)
    whole = timed(runner.invoke)
    with quiet(), temporary_folder("ops") as folder:
        import torch
        from executorch.devtools import Inspector
        from executorch.extension.pybindings import portable_lib

        module = portable_lib._load_for_executorch(str(path), enable_etdump=True)
        for _ in range(RUNS):
            module.forward(tuple(torch.from_numpy(np.ascontiguousarray(value)) for value in values))
        dump = f"{folder}/trace.etdp"
        module.write_etdump_result_to_file(dump)
        blocks = Inspector(etdump_path=dump).event_blocks
    events = [event for block in blocks if block.name == "Execute" for event in block.events]
    parts = [e for e in events if e.perf_data and e.name not in ("DELEGATE_CALL", "Method::execute", "OPERATOR_CALL")]
    rows = [(e.name, e.name.partition(" #")[0], "", float(e.perf_data.p50)) for e in parts]
    return Profile(runner.runtime, whole, shares(rows), "the runtime's event trace")


def timed(run: Callable[[], object]) -> float:
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


def shares(rows: Sequence[Row]) -> list[OperatorTime]:
    """Rows with their share of the sum."""
    total = sum(row[3] for row in rows) or 1.0
    return [OperatorTime(name, kind, shape, ms, ms / total) for name, kind, shape, ms in rows]


def shape_text(sizes: Any) -> str:
    """`1×16×16×8`."""
    return "×".join(str(int(size)) for size in sizes)
