"""The process in which the emulated HTP computes one ONNX file, or compiles it: `python -I -S worker.py PACKAGES`.

It runs on the packages of the emulation's own folder, which hold no mobilezoo: this file imports nothing of it. It
answers JSON lines as `mobilezoo.workers.serve` does.
"""

import json
import os
import re
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TYPES = {"float": "float32", "double": "float64"}
"""ONNX Runtime's names of types that are not NumPy's."""
QNN = "QNN"
REFUSED = re.compile(r"failed for node `([^`]+)` of type `([^`]+)` with error code (\d+)")
STARTED = re.compile(r"(?:QNN SetupBackend failed|Failed to create device)[^\n]*")
BORDERS = ("QuantizeLinear", "DequantizeLinear")
"""Operators between the float inputs and outputs of an integer file and the NPU."""
RECORD = "session.record_ep_graph_assignment_info"


class Loaded:
    """One file, with the operators that QNN takes compiled for the HTP and the rest on the CPU."""

    def __init__(self, path: str, options: dict[str, str]) -> None:
        import onnxruntime

        session, version = _session(options)
        with _logged() as log:
            self._session = onnxruntime.InferenceSession(path, session)
            self._log = _text(log)
        self._half = options["enable_htp_fp16_precision"] == "1"
        self._runtime = f"ONNX Runtime {onnxruntime.__version__}, QNN {version}"
        self._arch = options["htp_arch"]

    def opened(self) -> dict[str, Any]:
        """Answer to `open`."""
        inputs = [_described(one) for one in self._session.get_inputs()]
        outputs = [_described(one) for one in self._session.get_outputs()]
        parts = self._session.get_provider_graph_assignment_info()
        ops = Counter(node.op_type for part in parts for node in part.get_nodes())
        left = [node for part in parts if part.ep_name != QNN for node in part.get_nodes()]
        taken = sum(part.ep_name == QNN for part in parts)
        if not taken:
            started = STARTED.search(self._log)
            why = (
                f"its backend does not start ({started[0]}): is soc_model right?" if started else "it takes no operator"
            )
            raise ValueError(why)
        notes = self._reasons({node.name: node.op_type for node in left})
        if taken == 1 and left and all(node.op_type in BORDERS for node in left) and len(left) <= len(inputs + outputs):
            notes.append(f"{_listed(left)} between float inputs and outputs and the NPU's integers, on the CPU")
            left = []
        return {
            "runtime": f"{self._runtime} (emulated HTP v{self._arch})",
            "arithmetic": "half" if self._half else "float32",
            "inputs": inputs,
            "outputs": outputs,
            "ops": ops,
            "partitions": taken,
            "outside": Counter(node.op_type for node in left),
            "notes": notes,
        }

    def invoke(self, folder: str, inputs: int, output: int) -> dict[str, Any]:
        """Answer to `invoke`: compute saved values, and save one output beside them.

        Args:
            folder: holds `in0.npy` and so on; `out.npy` is written.
            inputs: number of inputs.
            output: index of the output.
        """
        import numpy as np

        names = [one.name for one in self._session.get_inputs()]
        values = {names[index]: np.load(f"{folder}/in{index}.npy") for index in range(inputs)}
        np.save(f"{folder}/out.npy", self._session.run(None, values)[output])
        return {}

    def _reasons(self, left: dict[str, str]) -> list[str]:
        """A line for each operator that QNN refused, with its error; equal ones once."""
        found = {node: (kind, code) for node, kind, code in REFUSED.findall(self._log)}
        lines = []
        for node, operator in left.items():
            if node in found:
                kind, code = found[node]
                lines.append(f"{operator}: the HTP refuses it as {kind} (QNN error {code})")
        return list(dict.fromkeys(lines))


def compiled(path: str, out: str, options: dict[str, str]) -> dict[str, Any]:
    """Answer to `compile`: write the file with what QNN takes as context binaries (EPContext).

    Args:
        path: an ONNX file of fixed shapes.
        out: file to write.
        options: of the provider.
    """
    import onnxruntime

    session, _ = _session(options)
    with _logged() as log:
        onnxruntime.ModelCompiler(session, path, embed_compiled_data_into_model=True).compile_to_file(out)
        text = _text(log)
    if started := STARTED.search(text):
        raise ValueError(f"its backend does not start ({started[0]}): is soc_model right?")
    refused = dict.fromkeys((kind, code) for _, kind, code in REFUSED.findall(text))
    return {"reasons": [f"the HTP refuses {kind}: QNN error {code}" for kind, code in refused]}


def _session(options: dict[str, str]) -> tuple[Any, str]:
    """Options of a session on QNN, and the version of QNN's package."""
    import onnxruntime
    import onnxruntime_qnn  # type: ignore[import-not-found]  # in a folder of its own

    onnxruntime.register_execution_provider_library(QNN, onnxruntime_qnn.get_library_path())
    session = onnxruntime.SessionOptions()
    session.log_severity_level = 2
    session.add_session_config_entry(RECORD, "1")
    devices = [one for one in onnxruntime.get_ep_devices() if one.ep_name == QNN]
    session.add_provider_for_devices(devices[:1], {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), **options})
    return session, onnxruntime_qnn.__version__


def _described(tensor: Any) -> dict[str, Any]:
    """Name, shape and type of an input or output. Raises ValueError for a size that is left open."""
    if any(not isinstance(size, int) for size in tensor.shape):
        raise ValueError(
            f"{tensor.name!r} has no fixed shape ({tensor.shape}), and the HTP takes none: export it fixed"
        )
    kind = tensor.type.removeprefix("tensor(").removesuffix(")")
    return {"name": tensor.name, "shape": tensor.shape, "dtype": TYPES.get(kind, kind)}


@contextmanager
def _logged() -> Any:
    """Standard error of the block, in a file that it can read: QNN reports refusals in its log only."""
    saved = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield log
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _listed(nodes: list[Any]) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(node.op_type for node in nodes).items())


def _text(log: Any) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")


def main() -> None:
    """Answers requests until the end of input (the parent died)."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    loaded = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["op"] == "open":
                loaded = Loaded(request["path"], request["provider"])
                result = loaded.opened()
            elif request["op"] == "compile":
                result = compiled(request["path"], request["out"], request["provider"])
            else:
                assert loaded is not None
                result = loaded.invoke(request["folder"], request["inputs"], request["output"])
        except Exception as error:  # the runtime may raise anything: the parent turns it into one line
            text = " ".join(str(error).split())[:300]
            result = {"error": text or type(error).__name__}
        answers.write(json.dumps(result) + "\n")
        answers.flush()
        if "error" in result:
            break
    os._exit(0)  # all answers are written, and QNN's libraries may crash while Python unloads them


if __name__ == "__main__":
    sys.path[:0] = [str(Path(sys.argv[1]).resolve())]
    main()
