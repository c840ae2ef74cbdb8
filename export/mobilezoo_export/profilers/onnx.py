"""Per-node times of ONNX files, by ONNX Runtime's own profiler."""

import json
from pathlib import Path
from statistics import median
from typing import Any

from mobilezoo.scratch import temporary_folder
from mobilezoo_export.contract import Runner
from mobilezoo_export.feeding import noise_for
from mobilezoo_export.profilers.timing import RUNS, WARM_UP, Row, shape_text, shares, timed
from mobilezoo_export.records import OperatorProfile

CONTAINERS = ("If", "Loop", "Scan", "SequenceMap")
"""Operators whose time is that of the graphs inside, whose nodes have rows of their own."""


def profile_onnx(path: Path, runner: Runner, threads: int) -> OperatorProfile:
    """Time every node of an ONNX file.

    Args:
        path: the file.
        runner: the file, loaded without a profiler, for the time of the whole network.
        threads: intra-op threads of the profiled session.
    """
    import onnxruntime as ort

    values = noise_for(runner.inputs)
    runner.feed(values)
    whole = timed(runner.invoke)
    with temporary_folder("ops") as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/ops"
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        fed = {tensor.name: value for tensor, value in zip(runner.inputs, values, strict=True)}
        for _ in range(WARM_UP + RUNS):
            session.run(None, fed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return OperatorProfile(runner.runtime, whole, shares(_nodes(events)), "the runtime's own profiler")


def _nodes(events: list[dict[str, Any]]) -> list[Row]:
    """Sum each node's time within a run (a node in a loop runs several times); return the median over the warm runs."""
    facts: dict[str, tuple[str, str]] = {}
    runs: list[dict[str, float]] = [{}]
    for event in events:
        if event.get("cat") == "Session" and event["name"] == "model_run":
            runs.append({})
        elif event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name, args = event["name"].removesuffix("_kernel_time"), event["args"]
            shapes = args.get("output_type_shape") or [{}]
            facts[name] = (args["op_name"], shape_text(next(iter(shapes[0].values()), [])))
            runs[-1][name] = runs[-1].get(name, 0.0) + event["dur"] / 1e3
    warm = runs[WARM_UP : WARM_UP + RUNS]
    return [
        (name, *what, median([run.get(name, 0.0) for run in warm]))
        for name, what in facts.items()
        if what[0] not in CONTAINERS
    ]
