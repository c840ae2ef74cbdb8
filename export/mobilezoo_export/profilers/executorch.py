"""Per-operator times of ExecuTorch files, by its event trace (ETDump), which covers the XNNPACK delegate."""

from pathlib import Path

import numpy as np

from mobilezoo.scratch import temporary_folder
from mobilezoo_export.contract import Runner
from mobilezoo_export.feeding import noise_for
from mobilezoo_export.profilers.timing import RUNS, Row, shares, timed
from mobilezoo_export.quiet import quiet
from mobilezoo_export.records import OperatorProfile

CONTAINERS = ("DELEGATE_CALL", "Method::execute", "OPERATOR_CALL")
"""Events that enclose others."""


def profile_executorch(path: Path, runner: Runner) -> OperatorProfile:
    """Time every operator of an ExecuTorch file, on one thread.

    Args:
        path: the file.
        runner: the file, loaded without tracing, for the time of the whole network.
    """
    values = noise_for(runner.inputs)
    runner.feed(values)
    whole = timed(runner.invoke)
    rows = _traced(path, values)
    return OperatorProfile(runner.runtime, whole, shares(rows), "the runtime's event trace")


def _traced(path: Path, values: list[np.ndarray]) -> list[Row]:
    """A row for each event of an executed file that encloses no other."""
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
    parts = [event for event in events if event.perf_data and event.name not in CONTAINERS]
    return [(e.name, e.name.partition(" #")[0], "", float(e.perf_data.p50)) for e in parts]
