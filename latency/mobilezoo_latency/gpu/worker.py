"""The process in which LiteRT's GPU accelerator computes one file: `python -m mobilezoo_latency.gpu.worker`."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from mobilezoo import workers
from mobilezoo.artifacts import Artifact
from mobilezoo.errors import DeviceError
from mobilezoo.files import size_of, versions
from mobilezoo.memory import limit_memory_for
from mobilezoo_latency.gpu.log import cause_of, left_of

UNSEEN = "computed in float32: this Vulkan has no half precision, so its overflow on a phone's GPU is not seen"


class Loaded:
    """One file, compiled for the GPU with the CPU as its fallback."""

    def __init__(self, path: Path, record: Artifact, half: bool) -> None:
        from mobilezoo_export.registry import start_runner

        limit_memory_for(size_of(path))
        described = start_runner(path, record)
        self.inputs, self.outputs = described.inputs, described.outputs
        self._half = half
        with _logged() as log:
            try:
                self._model = _compile(path)
            except RuntimeError as error:
                raise DeviceError(cause_of(_text(log), error)) from None
            self._fully = bool(self._model.is_fully_accelerated())
            self._left = left_of(_text(log))
        if self._left is not None and not self._left.taken:
            raise DeviceError(f"the GPU takes none of its {self._left.left} operators: {'; '.join(self._left.reasons)}")
        self._fed = self._model.create_input_buffers(0)
        self._answers = self._model.create_output_buffers(0)
        self._ops = _operators(path)

    def opened(self) -> dict[str, Any]:
        """Answer to `open`."""
        left, fully = self._left, self._fully
        notes = () if self._half else (UNSEEN,)
        if left is not None:
            notes = (f"{left.left} of {left.taken + left.left} operators run on the CPU", *left.reasons, *notes)
        elif not fully:
            notes = ("a part runs on the CPU, which LiteRT does not name", *notes)
        return {
            "runtime": f"LiteRT {versions(['ai-edge-litert']).get('ai-edge-litert', '')} (GPU, Vulkan in software)",
            "arithmetic": "half" if self._half else "float32",
            "inputs": [one.model_dump(mode="json") for one in self.inputs],
            "outputs": [one.model_dump(mode="json") for one in self.outputs],
            "ops": self._ops,
            "partitions": 1 if fully else None,
            "outside": dict(left.refused) if left is not None else {} if fully else None,
            "notes": notes,
        }

    def invoke(self, folder: Path, inputs: int, output: int) -> dict[str, Any]:
        """Answer to `invoke`: compute saved values, and save one output beside them.

        Args:
            folder: holds `in0.npy` and so on; `out.npy` is written.
            inputs: number of inputs.
            output: index of the output.
        """
        for index in range(inputs):
            self._fed[index].write(np.load(folder / f"in{index}.npy"))
        self._model.run_by_index(0, self._fed, self._answers)
        spec = self.outputs[output]
        values = self._answers[output].read(int(np.prod(spec.shape)), np.dtype(spec.dtype).type)
        np.save(folder / "out.npy", np.asarray(values).reshape(spec.shape))
        return {}


def _compile(path: Path) -> Any:
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator as Unit

    return CompiledModel.from_file(str(path), hardware_accel=Unit.GPU | Unit.CPU)


def _operators(path: Path) -> Counter[str]:
    """Operator → number of occurrences in the file."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    return Counter(str(node["op_name"]) for node in plain._get_ops_details())


@contextmanager
def _logged() -> Iterator[IO[bytes]]:
    """Standard error of the block, in a file that it can read: LiteRT reports fall-backs in its log only."""
    saved = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield log
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.write(2, _text(log)[-4000:].encode(errors="replace"))


def _text(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")


def main() -> None:
    """Answers requests until the end of input (the parent died)."""
    loaded: Loaded | None = None

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal loaded
        if request["op"] == "open":
            path = Path(request["path"])
            loaded = Loaded(path, Artifact.parse(request["record"], str(path)), request["half"])
            return loaded.opened()
        assert loaded is not None
        return loaded.invoke(Path(request["folder"]), request["inputs"], request["output"])

    workers.main(answer)


if __name__ == "__main__":
    main()
